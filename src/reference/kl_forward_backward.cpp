// The KL loss of the index branch and its gradients as the formulas stand, in double.
//
//   p[j] = (1/G) sum over h in g of exp(scale q[i,h].k[j,g] - lse[i,h])              j in S(i,g)
//   r[j] = exp(s[j] - lse_idx[g,i])      s[j] = scale_idx q_idx[i,g].k_idx[j]
//   loss = coefficient / normaliser * sum of p (log p - (s - lse_idx))               0 log 0 = 0
//   dq_idx = c sum_j (r - p) k_idx[j]    dk_idx[j] = c sum (r - p) q_idx
//   c = scale_idx * coefficient / normaliser
//
// A task is one request: it alone adds to its dk_idx; losses are added in the order of requests.
#include <cmath>
#include <vector>

#include "reference/ops.h"
#include "reference/visible.h"

namespace msa::reference {
namespace {

using Doubles = std::vector<double>;

double teacher(const core::KlParams& p, const Row& row, int64_t t, int64_t g, int64_t j) {
  const int64_t group = p.teacher.group_size();
  double sum = 0;
  for (int64_t h = g * group; h < (g + 1) * group; ++h) {
    const auto lse = static_cast<double>(p.lse.data[p.lse.offset(t, h)]);
    sum += std::exp(logit(p.teacher, row.request, t, h, j) - lse);
  }
  return sum / static_cast<double>(group);
}

/// Adds to dk_idx and returns the sum of p (log p - log r) of one row and group.
double kl_row(const core::KlParams& p, const Row& row, int64_t t, int64_t g,
              std::vector<Doubles>& dk_idx) {
  const core::SequenceParams& s = p.teacher.sequences;
  const auto dim = static_cast<size_t>(p.index_dim);
  const double factor =
      static_cast<double>(p.scale_idx) * static_cast<double>(p.coefficient) / p.normaliser;
  const auto lse_idx = static_cast<double>(p.lse_idx.data[p.lse_idx.offset(t, g)]);
  const int64_t q = p.q_idx.offset(t, g);
  double divergence = 0;
  Doubles dq(dim, 0.0);
  for (const int64_t j : visible_tokens(p.teacher, t, g, row)) {
    const int64_t k = core::key_offset(p.k_idx, s, row.request, j, 0);
    const double log_r =
        static_cast<double>(p.scale_idx) *
            dot(p.q_idx.data, p.q_idx.dtype, q, p.k_idx.data, p.k_idx.dtype, k, p.index_dim) -
        lse_idx;
    const double target = teacher(p, row, t, g, j);
    if (target != 0) divergence += target * (std::log(target) - log_r);
    const double difference = factor * (std::exp(log_r) - target);
    for (size_t d = 0; d < dim; ++d) {
      const auto at = static_cast<int64_t>(d);
      dq[d] += difference * element(p.k_idx.data, p.k_idx.dtype, k + at);
      dk_idx[static_cast<size_t>(j)][d] +=
          difference * element(p.q_idx.data, p.q_idx.dtype, q + at);
    }
  }
  store_row(dq, p.dq_idx, t, g);
  return divergence;
}

double kl_request(const core::KlParams& p, int64_t request) {
  const core::SequenceParams& s = p.teacher.sequences;
  const Doubles zeros(static_cast<size_t>(p.index_dim), 0.0);
  std::vector<Doubles> dk_idx(static_cast<size_t>(s.key_length(request)), zeros);
  double divergence = 0;
  for (int64_t t = s.cu_seqlens_q[request]; t < s.cu_seqlens_q[request + 1]; ++t) {
    const Row row = find_row(s, t);
    for (int64_t g = 0; g < p.teacher.num_kv_heads; ++g) {
      if (row.empty()) {
        store_row(zeros, p.dq_idx, t, g);
      } else {
        divergence += kl_row(p, row, t, g, dk_idx);
      }
    }
  }
  for (size_t j = 0; j < dk_idx.size(); ++j) {
    store_row(dk_idx[j], p.dk_idx, s.cu_seqlens_k[request] + static_cast<int64_t>(j), 0);
  }
  return divergence;
}

}  // namespace

void kl_forward_backward(const core::KlParams& p, const core::RunContext& run) {
  const core::SequenceParams& s = p.teacher.sequences;
  Doubles divergences(static_cast<size_t>(s.batch), 0.0);
  (*run.parallel_for)(s.batch, [&p, &divergences](int64_t request, int) {
    divergences[static_cast<size_t>(request)] = kl_request(p, request);
  });
  double loss = 0;
  for (const double divergence : divergences) loss += divergence;
  *p.loss = static_cast<float>(loss * static_cast<double>(p.coefficient) / p.normaliser);
  // Rows of no request.
  const Doubles zeros(static_cast<size_t>(p.index_dim), 0.0);
  for (int64_t t = s.cu_seqlens_q[s.batch]; t < s.num_query_tokens; ++t) {
    for (int64_t g = 0; g < p.teacher.num_kv_heads; ++g) store_row(zeros, p.dq_idx, t, g);
  }
  for (int64_t row = s.cu_seqlens_k[s.batch]; row < p.k_idx.num_rows; ++row) {
    store_row(zeros, p.dk_idx, row, 0);
  }
}

}  // namespace msa::reference
