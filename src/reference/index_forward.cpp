// The index branch as the paper states it, one row at a time, in double.
//
//   s[j] = scale * (q_idx[i,g] . k_idx[j])
//   m[b] = fl32(scale * max over visible j in b of the dot)
//   ids  = the local block and the K-1 others with the highest m, lower id first on ties, ascending
//   lse  = log sum of exp(s[j]) over the visible tokens of the chosen blocks, or of all
//
// A NaN token score is ignored by the maximum; a block of NaN alone has m = -inf. -0 equals +0.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/element.h"
#include "reference/ops.h"
#include "reference/rows.h"

namespace msa::reference {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// Dots of one row with the visible keys: [i + 1].
std::vector<double> visible_dots(const core::IndexForwardParams& p, int64_t row_index,
                                 int64_t group, const Row& row) {
  std::vector<double> dots(static_cast<size_t>(row.position + 1));
  const int64_t q = row_index * p.q_token_stride + group * p.q_head_stride;
  for (int64_t j = 0; j <= row.position; ++j) {
    const int64_t k = core::key_offset(p.k_idx, p.sequences, row.request, j, 0);
    double dot = 0;
    for (int64_t d = 0; d < p.index_dim; ++d) {
      dot += static_cast<double>(core::load_element(p.q_idx, p.q_dtype, q + d)) *
             static_cast<double>(core::load_element(p.k_idx.data, p.k_idx.dtype, k + d));
    }
    dots[static_cast<size_t>(j)] = dot;
  }
  return dots;
}

std::vector<float> block_maxima(const core::IndexForwardParams& p,
                                const std::vector<double>& dots) {
  const auto block_size = static_cast<size_t>(p.block_size);
  std::vector<float> maxima;
  for (size_t begin = 0; begin < dots.size(); begin += block_size) {
    double best = kMinusInfinity;
    for (size_t j = begin; j < std::min(begin + block_size, dots.size()); ++j) {
      if (dots[j] > best) best = dots[j];  // false for NaN
    }
    maxima.push_back(static_cast<float>(static_cast<double>(p.scale) * best));
  }
  return maxima;
}

/// The rule of selection, for any K and any number of visible blocks; ascending.
std::vector<int32_t> select(const std::vector<float>& scores, int64_t top_k) {
  const auto local = static_cast<int32_t>(scores.size()) - 1;
  std::vector<int32_t> others;
  for (int32_t b = 0; b < local; ++b) others.push_back(b);
  std::stable_sort(others.begin(), others.end(), [&](int32_t a, int32_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  others.resize(std::min(others.size(), static_cast<size_t>(top_k - 1)));
  others.push_back(local);
  std::sort(others.begin(), others.end());
  return others;
}

double log_sum_exp(const std::vector<double>& logits) {
  double largest = kMinusInfinity;
  for (double logit : logits) largest = std::max(largest, logit);
  if (largest == kMinusInfinity) return kMinusInfinity;
  double sum = 0;
  for (double logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

void index_row(const core::IndexForwardParams& p, int64_t t, int64_t g) {
  const Row row = find_row(p.sequences, t);
  std::vector<double> dots;
  std::vector<float> scores;
  std::vector<int32_t> ids;
  if (!row.empty()) {
    dots = visible_dots(p, t, g, row);
    scores = block_maxima(p, dots);
    if (p.block_ids.data != nullptr) ids = select(scores, p.block_ids.top_k);
  }
  if (p.block_ids.data != nullptr) {
    int32_t* out = p.block_ids.data + g * p.block_ids.head_stride + t * p.block_ids.token_stride;
    for (int64_t n = 0; n < p.block_ids.top_k; ++n) {
      out[n] = static_cast<size_t>(n) < ids.size() ? ids[static_cast<size_t>(n)] : -1;
    }
  }
  if (p.block_scores != nullptr) {
    float* out = p.block_scores + g * p.score_head_stride + t * p.score_token_stride;
    for (int64_t b = 0; b < p.max_blocks; ++b) {
      out[b] = static_cast<size_t>(b) < scores.size() ? scores[static_cast<size_t>(b)]
                                                      : -std::numeric_limits<float>::infinity();
    }
  }
  if (p.lse_idx != nullptr) {
    std::vector<double> logits;
    for (int64_t j = 0; j <= row.position; ++j) {
      const auto block = static_cast<int32_t>(j / p.block_size);
      if (p.lse_scope == IndexLseScope::kVisible ||
          std::binary_search(ids.begin(), ids.end(), block)) {
        logits.push_back(static_cast<double>(p.scale) * dots[static_cast<size_t>(j)]);
      }
    }
    p.lse_idx[g * p.lse_head_stride + t * p.lse_token_stride] =
        static_cast<float>(log_sum_exp(logits));
  }
}

}  // namespace

void index_forward(const core::IndexForwardParams& p, const core::RunContext& run) {
  const int64_t num_rows = p.sequences.num_query_tokens * p.num_kv_heads;
  (*run.parallel_for)(num_rows, [&p](int64_t task, int) {
    index_row(p, task / p.num_kv_heads, task % p.num_kv_heads);
  });
}

}  // namespace msa::reference
