// Gradients of the main branch as the formulas stand, in double.
//
//   P = exp(scale q.k - lse) over S(i,g)       D_row = sum of dout * out - dlse
//   dS = P * (dout . v - D_row)                dq = scale dS k
//   dk = scale sum over h in g of dS^T q       dv = sum over h in g of P^T dout
//
// A task is one request and key-value head: it alone adds to its dk and dv, row after row.
#include <cmath>
#include <vector>

#include "reference/ops.h"
#include "reference/visible.h"

namespace msa::reference {
namespace {

using Doubles = std::vector<double>;

/// Sums of one request and key-value head.
struct KeySums {
  std::vector<Doubles> dk;  // [k_len][D]
  std::vector<Doubles> dv;
};

void backward_row(const core::AttentionBackwardParams& p, const Row& row, int64_t t, int64_t h,
                  KeySums& sums) {
  const core::AttentionForwardParams& f = p.forward;
  const auto dim = static_cast<size_t>(f.head_dim);
  const int64_t g = h / f.group_size();
  const int64_t q = t * f.q_token_stride + h * f.q_head_stride;
  const int64_t dout = p.dout.offset(t, h);
  double d_row =
      dot(p.dout.data, p.dout.dtype, dout, p.out.data, p.out.dtype, p.out.offset(t, h), f.head_dim);
  if (p.dlse.data != nullptr) d_row -= static_cast<double>(p.dlse.data[p.dlse.offset(t, h)]);
  const auto lse = static_cast<double>(p.lse.data[p.lse.offset(t, h)]);
  Doubles dq(dim, 0.0);
  for (const int64_t j : visible_tokens(f, t, g, row)) {
    const int64_t k = core::key_offset(f.k, f.sequences, row.request, j, g);
    const int64_t v = core::key_offset(f.v, f.sequences, row.request, j, g);
    const double weight = std::exp(logit(f, row.request, t, h, j) - lse);
    const double d_weight =
        dot(p.dout.data, p.dout.dtype, dout, f.v.data, f.v.dtype, v, f.head_dim);
    const double d_logit = weight * (d_weight - d_row) * static_cast<double>(f.scale);
    for (size_t d = 0; d < dim; ++d) {
      const auto at = static_cast<int64_t>(d);
      dq[d] += d_logit * element(f.k.data, f.k.dtype, k + at);
      sums.dk[static_cast<size_t>(j)][d] += d_logit * element(f.q, f.q_dtype, q + at);
      sums.dv[static_cast<size_t>(j)][d] += weight * element(p.dout.data, p.dout.dtype, dout + at);
    }
  }
  store_row(dq, p.dq, t, h);
}

void backward_request(const core::AttentionBackwardParams& p, int64_t request, int64_t g) {
  const core::AttentionForwardParams& f = p.forward;
  const core::SequenceParams& s = f.sequences;
  const Doubles zeros(static_cast<size_t>(f.head_dim), 0.0);
  const auto length = static_cast<size_t>(s.key_length(request));
  KeySums sums = {std::vector<Doubles>(length, zeros), std::vector<Doubles>(length, zeros)};
  for (int64_t t = s.cu_seqlens_q[request]; t < s.cu_seqlens_q[request + 1]; ++t) {
    const Row row = find_row(s, t);
    for (int64_t h = g * f.group_size(); h < (g + 1) * f.group_size(); ++h) {
      if (row.empty()) {
        store_row(zeros, p.dq, t, h);
      } else {
        backward_row(p, row, t, h, sums);
      }
    }
  }
  for (size_t j = 0; j < length; ++j) {
    const int64_t row = s.cu_seqlens_k[request] + static_cast<int64_t>(j);
    store_row(sums.dk[j], p.dk, row, g);
    store_row(sums.dv[j], p.dv, row, g);
  }
}

}  // namespace

void attention_backward(const core::AttentionBackwardParams& p, const core::RunContext& run) {
  const core::AttentionForwardParams& f = p.forward;
  const core::SequenceParams& s = f.sequences;
  (*run.parallel_for)(s.batch* f.num_kv_heads, [&p, &f](int64_t task, int) {
    backward_request(p, task / f.num_kv_heads, task % f.num_kv_heads);
  });
  // Rows of no request.
  const Doubles zeros(static_cast<size_t>(f.head_dim), 0.0);
  for (int64_t t = s.cu_seqlens_q[s.batch]; t < s.num_query_tokens; ++t) {
    for (int64_t h = 0; h < f.num_q_heads; ++h) store_row(zeros, p.dq, t, h);
  }
  for (int64_t row = s.cu_seqlens_k[s.batch]; row < f.k.num_rows; ++row) {
    for (int64_t g = 0; g < f.num_kv_heads; ++g) {
      store_row(zeros, p.dk, row, g);
      store_row(zeros, p.dv, row, g);
    }
  }
}

}  // namespace msa::reference
