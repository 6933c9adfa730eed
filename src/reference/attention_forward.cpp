// The main branch as the paper states it, one row and head at a time, in double.
//
//   S   = visible tokens of the listed blocks (dense: all visible tokens)
//   out = sum_j softmax_j(scale * q . k[j]) v[j]          lse = log sum_j exp(scale * q . k[j])
//
// An empty S gives out = 0 and lse = -inf.
#include <cmath>
#include <limits>
#include <vector>

#include "reference/ops.h"
#include "reference/visible.h"

namespace msa::reference {
namespace {

void attention_row(const core::AttentionForwardParams& p, int64_t t, int64_t h) {
  const int64_t g = h / p.group_size();
  const Row row = find_row(p.sequences, t);
  const std::vector<int64_t> tokens = visible_tokens(p, t, g, row);

  std::vector<double> logits;
  double largest = -std::numeric_limits<double>::infinity();
  for (int64_t j : tokens) {
    logits.push_back(logit(p, row.request, t, h, j));
    largest = std::max(largest, logits.back());
  }

  std::vector<double> out(static_cast<size_t>(p.head_dim), 0.0);
  double sum = 0;
  for (size_t n = 0; n < tokens.size(); ++n) {
    const double weight = std::exp(logits[n] - largest);
    const int64_t v = core::key_offset(p.v, p.sequences, row.request, tokens[n], g);
    sum += weight;
    for (int64_t d = 0; d < p.head_dim; ++d) {
      out[static_cast<size_t>(d)] += weight * element(p.v.data, p.v.dtype, v + d);
    }
  }

  const bool empty = tokens.empty();
  const int64_t o = t * p.out_token_stride + h * p.out_head_stride;
  for (int64_t d = 0; d < p.head_dim; ++d) {
    const double value = empty ? 0.0 : out[static_cast<size_t>(d)] / sum;
    core::store_element(p.out, p.q_dtype, o + d, static_cast<float>(value));
  }
  if (p.lse != nullptr) {
    p.lse[t * p.lse_token_stride + h * p.lse_head_stride] =
        empty ? -std::numeric_limits<float>::infinity()
              : static_cast<float>(largest + std::log(sum));
  }
}

}  // namespace

void attention_forward(const core::AttentionForwardParams& p, const core::RunContext& run) {
  const int64_t num_rows = p.sequences.num_query_tokens * p.num_q_heads;
  (*run.parallel_for)(num_rows, [&p](int64_t task, int) {
    attention_row(p, task / p.num_q_heads, task % p.num_q_heads);
  });
}

}  // namespace msa::reference
