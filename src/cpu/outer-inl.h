// Sums over rows: C[token] += sum over rows r that see the token of weights[r][token] * rows[r].
//
//   weights [rows][kChunkTokens]    rows  row pointers [columns]    C [tokens][c_stride]
//
// The second micro-kernel of training, for gradients of keys and values: the left matrix is read
// along its columns, so that weights stay as the products with keys left them. 6 tokens x 4 vectors
// of sums stay in registers, 24 FMA for 4 loads and 6 broadcasts. Each element of C is one chain of
// FMA in ascending row, whatever the panel: how rows are cut into panels changes no bit.
#if defined(MSA_CPU_OUTER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_CPU_OUTER_INL_H_
#undef MSA_CPU_OUTER_INL_H_
#else
#define MSA_CPU_OUTER_INL_H_
#endif

#include <algorithm>

#include "cpu/attention_tile.h"
#include "cpu/gemm-inl.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

/// What one call of the micro-kernel reads and writes.
struct OuterTile {
  const float* weights;      // [depth][kChunkTokens], from the first token on
  const float* const* rows;  // [depth], at column `column`
  size_t depth;
  size_t column;
  float* c;  // [tokens][c_stride], from the first token on
  size_t c_stride;
};

template <size_t kTokens, size_t kVectors>
HWY_NOINLINE void outer_kernel(const OuterTile& tile) {
  const Floats d;
  Vector sum[kTokens][kVectors];
#pragma GCC unroll 8
  for (size_t t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) {
      sum[t][v] = hn::LoadU(d, tile.c + t * tile.c_stride + tile.column + v * kLanes);
    }
  }
  const float* weights = tile.weights;
  for (size_t k = 0; k < tile.depth; ++k, weights += kChunkTokens) {
    const float* row = tile.rows[k] + tile.column;
    Vector right[kVectors];
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) right[v] = hn::LoadU(d, row + v * kLanes);
#pragma GCC unroll 8
    for (size_t t = 0; t < kTokens; ++t) {
      const Vector left = hn::Set(d, weights[t]);
#pragma GCC unroll 8
      for (size_t v = 0; v < kVectors; ++v) sum[t][v] = hn::MulAdd(left, right[v], sum[t][v]);
    }
  }
#pragma GCC unroll 8
  for (size_t t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) {
      hn::StoreU(sum[t][v], d, tile.c + t * tile.c_stride + tile.column + v * kLanes);
    }
  }
}

template <size_t kTokens>
HWY_INLINE void outer_kernel_of_width(const OuterTile& tile, size_t vectors) {
  if constexpr (kMicroVectors == 4) {
    if (vectors == 4) return outer_kernel<kTokens, 4>(tile);
    if (vectors == 3) return outer_kernel<kTokens, 3>(tile);
  }
  if (vectors == 2) return outer_kernel<kTokens, 2>(tile);
  return outer_kernel<kTokens, 1>(tile);
}

HWY_INLINE void outer_kernel_of_size(const OuterTile& tile, size_t tokens, size_t vectors) {
  switch (tokens) {
    case 1:
      return outer_kernel_of_width<1>(tile, vectors);
    case 2:
      return outer_kernel_of_width<2>(tile, vectors);
    case 3:
      return outer_kernel_of_width<3>(tile, vectors);
    case 4:
      return outer_kernel_of_width<4>(tile, vectors);
    case 5:
      return outer_kernel_of_width<5>(tile, vectors);
    default:
      return outer_kernel_of_width<6>(tile, vectors);
  }
}

/// `columns` is a multiple of kLanes. Row r sees tokens [0, visible[r]), and no row less than the
/// one before it. A row's numbers meet no token that it does not see, not even with weight 0.
HWY_INLINE void add_outer(const float* weights, const float* const* rows, const size_t* visible,
                          size_t count, size_t columns, float* c, size_t c_stride) {
  const Floats d;
  const size_t tokens = visible[count - 1];
  size_t group = 0;
  for (size_t token = 0; token < tokens; token += group) {
    group = next_row_group(tokens - token);
    // Rows that see a part of the group come before those that see all of it.
    const auto all =
        static_cast<size_t>(std::lower_bound(visible, visible + count, token + group) - visible);
    for (size_t t = token; t < token + group; ++t) {
      for (size_t r = 0; r < all; ++r) {
        if (visible[r] <= t) continue;
        const Vector weight = hn::Set(d, weights[r * kChunkTokens + t]);
        float* const to = c + t * c_stride;
        for (size_t n = 0; n < columns; n += kLanes) {
          hn::StoreU(hn::MulAdd(weight, hn::LoadU(d, rows[r] + n), hn::LoadU(d, to + n)), d,
                     to + n);
        }
      }
    }
    for (size_t column = 0; column < columns; column += kPanelColumns) {
      outer_kernel_of_size({.weights = weights + all * kChunkTokens + token,
                            .rows = rows + all,
                            .depth = count - all,
                            .column = column,
                            .c = c + token * c_stride,
                            .c_stride = c_stride},
                           group, std::min(kPanelColumns, columns - column) / kLanes);
    }
  }
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MSA_CPU_OUTER_INL_H_
