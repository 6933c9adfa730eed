// The one micro-kernel under every op: C[rows x columns] = [C * alpha] + A * B in float32.
//
//   A  row pointers, one element broadcast at a time     B  panels [depth][width] (pack-inl.h)
//   C  row pointers, so rows may lie anywhere
//
// 6 rows x 4 vectors of sums stay in registers (AVX-512, NEON: 24 of 32; elsewhere 6 x 2 of 16):
// 24 FMA for 4 loads and 6 broadcasts, so the FMA units are the bound. Each element of C is one
// chain of FMA in ascending depth, whatever the shape of the tile: no row's bits depend on others.
#if defined(MSA_CPU_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_CPU_GEMM_INL_H_
#undef MSA_CPU_GEMM_INL_H_
#else
#define MSA_CPU_GEMM_INL_H_
#endif

#include <algorithm>

#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

constexpr size_t kMicroRows = 6;
#if HWY_ARCH_ARM_A64 || (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3)
constexpr size_t kMicroVectors = 4;
#else
constexpr size_t kMicroVectors = 2;
#endif
constexpr size_t kPanelColumns = kMicroVectors * kLanes;

/// What one call of the micro-kernel reads and writes.
struct MicroTile {
  const float* const* a;  // [rows][depth]
  const float* b;         // [depth][b_stride]
  size_t b_stride;
  size_t depth;
  float* const* c;  // [rows], at column `c_column`
  size_t c_column;
  const float* alpha;  // [rows]; with kAccumulate only
};

template <bool kAccumulate, size_t kRows, size_t kVectors>
HWY_NOINLINE void micro_kernel(const MicroTile& tile) {
  const Floats d;
  Vector sum[kRows][kVectors];
  const float* a[kRows];
#pragma GCC unroll 8
  for (size_t r = 0; r < kRows; ++r) {
    a[r] = tile.a[r];
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) {
      if constexpr (kAccumulate) {
        const float* c = tile.c[r] + tile.c_column + v * kLanes;
        sum[r][v] = hn::Mul(hn::LoadU(d, c), hn::Set(d, tile.alpha[r]));
      } else {
        sum[r][v] = hn::Zero(d);
      }
    }
  }
  const float* b = tile.b;
  for (size_t k = 0; k < tile.depth; ++k, b += tile.b_stride) {
    Vector right[kVectors];
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) right[v] = hn::LoadU(d, b + v * kLanes);
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) {
      const Vector left = hn::Set(d, a[r][k]);
#pragma GCC unroll 8
      for (size_t v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(left, right[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) {
      hn::StoreU(sum[r][v], d, tile.c[r] + tile.c_column + v * kLanes);
    }
  }
}

template <bool kAccumulate, size_t kRows>
HWY_INLINE void micro_kernel_of_width(const MicroTile& tile, size_t vectors) {
  if constexpr (kMicroVectors == 4) {
    if (vectors == 4) return micro_kernel<kAccumulate, kRows, 4>(tile);
    if (vectors == 3) return micro_kernel<kAccumulate, kRows, 3>(tile);
  }
  if (vectors == 2) return micro_kernel<kAccumulate, kRows, 2>(tile);
  return micro_kernel<kAccumulate, kRows, 1>(tile);
}

template <bool kAccumulate>
HWY_INLINE void micro_kernel_of_size(const MicroTile& tile, size_t rows, size_t vectors) {
  switch (rows) {
    case 1:
      return micro_kernel_of_width<kAccumulate, 1>(tile, vectors);
    case 2:
      return micro_kernel_of_width<kAccumulate, 2>(tile, vectors);
    case 3:
      return micro_kernel_of_width<kAccumulate, 3>(tile, vectors);
    case 4:
      return micro_kernel_of_width<kAccumulate, 4>(tile, vectors);
    case 5:
      return micro_kernel_of_width<kAccumulate, 5>(tile, vectors);
    default:
      return micro_kernel_of_width<kAccumulate, 6>(tile, vectors);
  }
}

/// The size of the next group of rows when `rows` are left: groups as even as they can be.
HWY_INLINE size_t next_row_group(size_t rows) {
  const size_t groups = (rows + kMicroRows - 1) / kMicroRows;
  return (rows + groups - 1) / groups;
}

/// C[rows x used_columns] = A[rows x depth] * B, where B's panels were packed for `columns`.
HWY_INLINE void multiply(const float* const* a, size_t rows, const float* panels, size_t depth,
                         size_t columns, size_t used_columns, float* const* c) {
  for (size_t panel = 0; panel < used_columns; panel += kPanelColumns) {
    const size_t width = std::min(kPanelColumns, columns - panel);
    const size_t vectors = (std::min(width, used_columns - panel) + kLanes - 1) / kLanes;
    size_t group = 0;
    for (size_t row = 0; row < rows; row += group) {
      group = next_row_group(rows - row);
      micro_kernel_of_size<false>({.a = a + row,
                                   .b = panels + panel * depth,
                                   .b_stride = width,
                                   .depth = depth,
                                   .c = c + row,
                                   .c_column = panel,
                                   .alpha = nullptr},
                                  group, vectors);
    }
  }
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MSA_CPU_GEMM_INL_H_
