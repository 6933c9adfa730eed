// Two partial attentions of the same rows into one, by their LSEs.
//
//   out_a, out_b [Tq, Hq, D], lse_a, lse_b [Tq, Hq]  ->  out [Tq, Hq, D], lse [Tq, Hq]
//   m = max(lse_a, lse_b)        w = exp(lse of the part - m)
//   lse = m + log(w_a + w_b)     out = (w_a out_a + w_b out_b) / (w_a + w_b)
//
// A task is a run of rows. Bound by memory: three rows of D elements a head move for 3 D FLOP.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/merge_states.cpp"
#include "cpu/targets.h"
// Targets come first: this header includes the file once for each.
#include "hwy/foreach_target.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/ops.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

constexpr int64_t kPieceDims = 64;  // a row goes by in pieces of this many

/// The weights of the two parts; a part of weight 0 is not read.
void merge_row(const core::MergeStatesParams& p, int64_t t, int64_t head, float weight_a,
               float weight_b) {
  const Floats d;
  const int64_t to = p.merged_out.offset(t, head);
  HWY_ALIGN float pieces[2][kPieceDims] = {};
  const float weights[2] = {weight_a, weight_b};
  for (int64_t first = 0; first < p.head_dim; first += kPieceDims) {
    const int64_t count = std::min(kPieceDims, p.head_dim - first);
    int filled = 0;
    float factors[2] = {0, 0};
    for (int part = 0; part < 2; ++part) {
      if (weights[part] == 0) continue;
      with_type(p.out[part].data, p.out[part].dtype, [&](const auto* from) HWY_ATTR {
        convert(from + p.out[part].offset(t, head) + first, static_cast<size_t>(count),
                pieces[filled]);
      });
      factors[filled++] = weights[part];
    }
    if (filled == 0) std::fill_n(pieces[0], count, 0.0f);
    if (filled == 2) {
      const Vector a = hn::Set(d, factors[0]);
      const Vector b = hn::Set(d, factors[1]);
      for (int64_t n = 0; n < count; n += static_cast<int64_t>(kLanes)) {
        const Vector sum =
            hn::MulAdd(a, hn::Load(d, pieces[0] + n), hn::Mul(b, hn::Load(d, pieces[1] + n)));
        hn::Store(sum, d, pieces[0] + n);
      }
    }
    store_row(pieces[0], filled == 1 ? factors[0] : 1.0f, static_cast<size_t>(count),
              p.merged_out.data, p.merged_out.dtype, to + first);
  }
}

void merge_rows(const core::MergeStatesParams& p, int64_t begin, int64_t end) {
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  for (int64_t row = begin; row < end; ++row) {
    const int64_t t = row / p.num_q_heads;
    const int64_t head = row % p.num_q_heads;
    const float lse_a = p.lse[0].data[p.lse[0].offset(t, head)];
    const float lse_b = p.lse[1].data[p.lse[1].offset(t, head)];
    float lse = kMinusInfinity;
    float weight_a = 0;
    float weight_b = 0;
    if (lse_a == kMinusInfinity || lse_b == kMinusInfinity) {
      // At most one part saw something: its result is taken as it is.
      lse = lse_a == kMinusInfinity ? lse_b : lse_a;
      weight_a = lse_a == kMinusInfinity ? 0.0f : 1.0f;
      weight_b = lse_b == kMinusInfinity ? 0.0f : 1.0f;
    } else {
      // Weights in double, so that they sum to 1 within a rounding at any distance of the LSEs.
      const double largest = std::max(lse_a, lse_b);
      const double a = std::exp(static_cast<double>(lse_a) - largest);
      const double b = std::exp(static_cast<double>(lse_b) - largest);
      lse = static_cast<float>(largest + std::log(a + b));
      weight_a = static_cast<float>(a / (a + b));
      weight_b = static_cast<float>(b / (a + b));
    }
    merge_row(p, t, head, weight_a, weight_b);
    if (p.merged_lse.data != nullptr) p.merged_lse.data[p.merged_lse.offset(t, head)] = lse;
  }
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa::cpu {
namespace {

HWY_EXPORT(merge_rows);

}  // namespace

void merge_states(const core::MergeStatesParams& p, const core::RunContext& run) {
  constexpr int64_t kRowsPerTask = 64;
  const int64_t rows = p.num_query_tokens * p.num_q_heads;
  const auto kernel = HWY_DYNAMIC_DISPATCH(merge_rows);
  (*run.parallel_for)((rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int) {
    kernel(p, task * kRowsPerTask, std::min(rows, (task + 1) * kRowsPerTask));
  });
}

}  // namespace msa::cpu
#endif  // HWY_ONCE
