// Softmax attention of rows over one chunk of keys, online:
//
//   S = Q K^T       m' = max(m, max S)       P = exp(scale * (S - m'))
//   a = exp(scale * (m - m'))                l' = a l + sum P          O' = a O + P V
//
// S [kPanelRows x chunk] stays in the first-level cache between the two products. What a row does
// not see is masked before the maximum, and its values are not multiplied: the second product runs
// over the tokens that all rows of a group see, the few others follow one by one. The order of the
// sums of a row is the order of its tokens, whichever rows stand beside it.
#if defined(MSA_CPU_ATTEND_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_CPU_ATTEND_INL_H_
#undef MSA_CPU_ATTEND_INL_H_
#else
#define MSA_CPU_ATTEND_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "cpu/attention_tile.h"
#include "cpu/gemm-inl.h"
#include "cpu/pack-inl.h"
#include "cpu/schedule.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// Keys and values of consecutive tokens, packed.
struct Chunk {
  const float* keys;
  const float* values;
  size_t tokens;
  size_t dim;
};

/// Rows that attend to a chunk together; each sees at least one of its tokens.
struct RowPanel {
  size_t count = 0;
  const float* q[kPanelRows];
  float* out[kPanelRows];
  RowState* state[kPanelRows];
  size_t visible[kPanelRows];  // tokens of the chunk, from its first
};

/// Turns the scores of one row into weights; returns the factor for what was summed before.
HWY_INLINE float softmax_row(float* scores, size_t visible, float scale_log2, RowState& state) {
  const Floats d;
  const size_t whole = visible / kLanes * kLanes;
  const auto tail = hn::FirstN(d, visible - whole);
  const Vector lowest = hn::Set(d, kMinusInfinity);
  Vector largest = lowest;
  for (size_t i = 0; i < whole; i += kLanes) largest = hn::Max(largest, hn::LoadU(d, scores + i));
  if (whole < visible) {
    largest = hn::Max(largest, hn::IfThenElse(tail, hn::LoadU(d, scores + whole), lowest));
  }
  const float maximum = std::max(state.maximum, hn::GetLane(hn::MaxOfLanes(d, largest)));
  // With nothing but -inf so far any finite number will do: all weights are 0 then.
  const Vector origin = hn::Set(d, maximum == kMinusInfinity ? 0.0f : maximum);
  const Vector scale = hn::Set(d, scale_log2);
  Vector sum = hn::Zero(d);
  for (size_t i = 0; i < whole; i += kLanes) {
    const Vector weight =
        exp2_nonpositive(hn::Mul(hn::Sub(hn::LoadU(d, scores + i), origin), scale));
    sum = hn::Add(sum, weight);
    hn::StoreU(weight, d, scores + i);
  }
  if (whole < visible) {
    const Vector weight = hn::IfThenElseZero(
        tail, exp2_nonpositive(hn::Mul(hn::Sub(hn::LoadU(d, scores + whole), origin), scale)));
    sum = hn::Add(sum, weight);
    hn::StoreU(weight, d, scores + whole);
  }
  const Vector before = hn::Mul(hn::Sub(hn::Set(d, state.maximum), origin), scale);
  const float alpha = hn::GetLane(exp2_nonpositive(before));
  state.sum = state.sum * alpha + hn::GetLane(hn::SumOfLanes(d, sum));
  state.maximum = maximum;
  return alpha;
}

/// out += weight of token n * value of token n, for tokens [begin, end).
HWY_INLINE void add_values(const float* weights, size_t begin, size_t end, const Chunk& chunk,
                           float* out) {
  const Floats d;
  const size_t columns = padded_columns(chunk.dim);
  for (size_t n = begin; n < end; ++n) {
    const Vector weight = hn::Set(d, weights[n]);
    for (size_t c = 0; c < columns; c += kLanes) {
      const size_t panel = c / kPanelColumns * kPanelColumns;
      const size_t width = std::min(kPanelColumns, columns - panel);
      const float* value = chunk.values + panel * chunk.tokens + n * width + (c - panel);
      hn::StoreU(hn::MulAdd(weight, hn::LoadU(d, value), hn::LoadU(d, out + c)), d, out + c);
    }
  }
}

/// out[r] = alpha[r] * out[r] + sum over the visible tokens of weights[r][token] * value, for up to
/// kPanelRows rows. The sum of a row is in the order of its tokens.
HWY_INLINE void add_weighted_values(const float* const* weights, const size_t* visible,
                                    size_t count, const float* alpha, const Chunk& chunk,
                                    float* const* out) {
  const size_t columns = padded_columns(chunk.dim);
  size_t group = 0;
  for (size_t row = 0; row < count; row += group) {
    group = next_row_group(count - row);
    const size_t common = *std::min_element(visible + row, visible + row + group);
    for (size_t panel = 0; panel < columns; panel += kPanelColumns) {
      const size_t width = std::min(kPanelColumns, columns - panel);
      micro_kernel_of_size<true>({.a = weights + row,
                                  .b = chunk.values + panel * chunk.tokens,
                                  .b_stride = width,
                                  .depth = common,
                                  .c = out + row,
                                  .c_column = panel,
                                  .alpha = alpha + row},
                                 group, width / kLanes);
    }
    for (size_t r = row; r < row + group; ++r) {
      add_values(weights[r], common, visible[r], chunk, out[r]);
    }
  }
}

inline HWY_NOINLINE void attend_panel(const RowPanel& rows, const Chunk& chunk, float scale_log2,
                                      float* scores) {
  float* score_rows[kPanelRows];
  float alpha[kPanelRows];
  size_t most = 0;
  for (size_t r = 0; r < rows.count; ++r) {
    score_rows[r] = scores + r * kChunkTokens;
    most = std::max(most, rows.visible[r]);
  }
  multiply(rows.q, rows.count, chunk.keys, chunk.dim, padded_columns(chunk.tokens), most,
           score_rows);
  for (size_t r = 0; r < rows.count; ++r) {
    alpha[r] = softmax_row(score_rows[r], rows.visible[r], scale_log2, *rows.state[r]);
  }
  add_weighted_values(score_rows, rows.visible, rows.count, alpha, chunk, rows.out);
}

/// Q of the tile as floats, sums and states as before the first key.
HWY_INLINE void begin_tile(const AttentionTile& tile, const AttentionScratch& scratch) {
  const core::AttentionForwardParams& p = *tile.p;
  const int64_t group = p.group_size();
  const int64_t padded_dim = round_up(p.head_dim, kMaxLanes);
  for (int64_t n = 0; n < tile.num_queries * group; ++n) {
    const int64_t offset = (tile.first_row + n / group) * p.q_token_stride +
                           (tile.kv_head * group + n % group) * p.q_head_stride;
    with_type(p.q, p.q_dtype, [&](const auto* q) HWY_ATTR {
      convert(q + offset, static_cast<size_t>(p.head_dim), scratch.q + n * p.head_dim);
    });
    scratch.state[n] = {kMinusInfinity, 0.0f};
  }
  std::memset(scratch.out, 0,
              static_cast<size_t>(tile.num_queries * group * padded_dim) * sizeof(float));
}

/// Lets the listed queries of the tile attend to the keys of a chunk. Each query's position is at
/// or past the first key.
HWY_INLINE void attend_chunk(const AttentionTile& tile, const AttentionScratch& scratch,
                             const int32_t* queries, int64_t num_queries, KeyRange keys) {
  const core::AttentionForwardParams& p = *tile.p;
  const int64_t group = p.group_size();
  const int64_t padded_dim = round_up(p.head_dim, kMaxLanes);
  const auto count = static_cast<size_t>(keys.tokens);
  const auto dim = static_cast<size_t>(p.head_dim);
  int64_t* const k_offsets = scratch.offsets;
  int64_t* const v_offsets = scratch.offsets + kChunkTokens;
  fill_key_offsets(p.k, p.sequences, tile.request, tile.kv_head, keys.first, keys.tokens,
                   k_offsets);
  fill_key_offsets(p.v, p.sequences, tile.request, tile.kv_head, keys.first, keys.tokens,
                   v_offsets);
  with_type(p.k.data, p.k.dtype, [&](const auto* k) HWY_ATTR {
    pack_transposed(k, k_offsets, count, dim, scratch.keys);
  });
  with_type(p.v.data, p.v.dtype,
            [&](const auto* v) HWY_ATTR { pack_rows(v, v_offsets, count, dim, scratch.values); });
  const Chunk chunk = {scratch.keys, scratch.values, count, dim};
  const float scale_log2 = p.scale * std::numbers::log2e_v<float>;
  RowPanel panel;
  for (int64_t n = 0; n < num_queries; ++n) {
    const int64_t seen = tile.first_position + queries[n] - keys.first + 1;
    for (int64_t h = 0; h < group; ++h) {
      const int64_t row = queries[n] * group + h;
      panel.q[panel.count] = scratch.q + row * p.head_dim;
      panel.out[panel.count] = scratch.out + row * padded_dim;
      panel.state[panel.count] = scratch.state + row;
      panel.visible[panel.count] = static_cast<size_t>(std::min(seen, keys.tokens));
      if (++panel.count == kPanelRows) {
        attend_panel(panel, chunk, scale_log2, scratch.scores);
        panel.count = 0;
      }
    }
  }
  if (panel.count > 0) attend_panel(panel, chunk, scale_log2, scratch.scores);
}

/// Divides and writes one row. A row that saw nothing is 0 with lse -inf; a row that saw only
/// weights of 0 (all logits -inf) is NaN, as the formula says.
HWY_INLINE void finish_row(const core::AttentionForwardParams& p, int64_t packed_row, int64_t head,
                           bool saw_any, const float* sums, const RowState& state) {
  const float factor = saw_any ? 1.0f / state.sum : 0.0f;
  store_row(sums, factor, static_cast<size_t>(p.head_dim), p.out, p.q_dtype,
            packed_row * p.out_token_stride + head * p.out_head_stride);
  if (p.lse != nullptr) {
    p.lse[packed_row * p.lse_token_stride + head * p.lse_head_stride] =
        saw_any ? p.scale * state.maximum + std::log(state.sum) : kMinusInfinity;
  }
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MSA_CPU_ATTEND_INL_H_
