// wgmma of one warpgroup: D[64, N] += A[64, 16] B[16, N], 16-bit operands, float32 accumulators.
//
//   A   from shared memory (descriptor, 128-byte swizzle, K contiguous) or from registers
//   B   from shared memory: K contiguous (keys for q k^T) or N contiguous (values for p v)
//
// Layouts of registers: device/layout.h. Rules: wgmma_fence() before the first product after
// ordinary code touched accumulators or A registers; wgmma_commit() closes a group;
// wgmma_wait<n>() leaves at most n groups in flight. Registers of a group in flight stay alone.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "cuda/device/layout.h"
#include "cuda/device/ptx.cuh"

namespace msa::cuda {

__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
template <int kInFlight>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kInFlight) : "memory");
}

/// Keeps the compiler from moving uses of accumulators across the waits around them.
template <int kCount>
__device__ __forceinline__ void wgmma_pin(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

/// A shared-memory operand with 128-byte swizzle. Both strides in bytes.
///   K contiguous: `stride` between groups of 8 rows (1024); `leading` is not used.
///   N contiguous: `leading` between panels of 64 columns, `stride` between groups of 8 k rows.
__device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t address, uint32_t leading,
                                                     uint32_t stride) {
  return static_cast<uint64_t>((address & 0x3FFFFu) >> 4) |
         (static_cast<uint64_t>((leading & 0x3FFFFu) >> 4) << 16) |
         (static_cast<uint64_t>((stride & 0x3FFFFu) >> 4) << 32) | (uint64_t{1} << 62);
}

/// Rows of a tile with K contiguous, at column `column` (a multiple of 16) of `rows` rows.
__device__ __forceinline__ uint64_t row_operand(uint32_t tile, int rows, int column) {
  const uint32_t panel = static_cast<uint32_t>(column / kPanelColumns * rows * kSwizzleBytes);
  return wgmma_descriptor(tile + panel + static_cast<uint32_t>(column % kPanelColumns * 2), 16,
                          kSwizzleAtomBytes);
}

/// Rows [row, row + 16) of a tile with N contiguous; `rows` is the height of a panel.
__device__ __forceinline__ uint64_t column_operand(uint32_t tile, int rows, int row) {
  return wgmma_descriptor(tile + static_cast<uint32_t>(row * kSwizzleBytes),
                          static_cast<uint32_t>(rows * kSwizzleBytes), kSwizzleAtomBytes);
}

/// The products, for N = 64 and 128. `accumulate` = 0 starts from zero.
///   shared_rows        A and B from shared memory, both with K contiguous
///   register_rows      A from registers, B with K contiguous
///   register_columns   A from registers, B with N contiguous
///   shared_mixed       A and B from shared memory: A with K contiguous, B with N contiguous
///   shared_columns     A and B from shared memory: A with M contiguous, B with N contiguous
template <typename Element, int kN>
struct Wgmma;

// The instruction names each accumulator, in its text and as an operand: macros, for the four pairs
// of type and N.
#define MSA_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define MSA_NAMES_32 \
  MSA_NAMES_16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define MSA_NAMES_64                                                                  \
  MSA_NAMES_32                                                                        \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
  " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define MSA_FLOATS_8(d, n)                                                                    \
  "+f"(d[n]), "+f"(d[n + 1]), "+f"(d[n + 2]), "+f"(d[n + 3]), "+f"(d[n + 4]), "+f"(d[n + 5]), \
      "+f"(d[n + 6]), "+f"(d[n + 7])
#define MSA_FLOATS_32(d, n) \
  MSA_FLOATS_8(d, n), MSA_FLOATS_8(d, n + 8), MSA_FLOATS_8(d, n + 16), MSA_FLOATS_8(d, n + 24)
#define MSA_FLOATS_64(d, n) MSA_FLOATS_32(d, n), MSA_FLOATS_32(d, n + 32)
#define MSA_WGMMA_TEXT(n, type, names, a_and_b, predicate, flags)                         \
  "{\n"                                                                                   \
  ".reg .pred p;\n"                                                                       \
  "setp.ne.b32 p, " predicate                                                             \
  ", 0;\n"                                                                                \
  "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" names "}, " a_and_b \
  ", p, " flags                                                                           \
  ";\n"                                                                                   \
  "}\n"
#define MSA_DEFINE_WGMMA(Element, type, N, n, count, shared, shared_p, registers, registers_p)     \
  template <>                                                                                      \
  struct Wgmma<Element, N> {                                                                       \
    static constexpr int kRegisters = count;                                                       \
    static __device__ __forceinline__ void shared_rows(float (&d)[count], uint64_t a, uint64_t b,  \
                                                       int accumulate) {                           \
      asm volatile(MSA_WGMMA_TEXT(n, type, MSA_NAMES_##count, shared, shared_p, "1, 1, 0, 0")      \
                   : MSA_FLOATS_##count(d, 0)                                                      \
                   : "l"(a), "l"(b), "r"(accumulate));                                             \
    }                                                                                              \
    static __device__ __forceinline__ void shared_mixed(float (&d)[count], uint64_t a, uint64_t b, \
                                                        int accumulate) {                          \
      asm volatile(MSA_WGMMA_TEXT(n, type, MSA_NAMES_##count, shared, shared_p, "1, 1, 0, 1")      \
                   : MSA_FLOATS_##count(d, 0)                                                      \
                   : "l"(a), "l"(b), "r"(accumulate));                                             \
    }                                                                                              \
    static __device__ __forceinline__ void shared_columns(float (&d)[count], uint64_t a,           \
                                                          uint64_t b, int accumulate) {            \
      asm volatile(MSA_WGMMA_TEXT(n, type, MSA_NAMES_##count, shared, shared_p, "1, 1, 1, 1")      \
                   : MSA_FLOATS_##count(d, 0)                                                      \
                   : "l"(a), "l"(b), "r"(accumulate));                                             \
    }                                                                                              \
    static __device__ __forceinline__ void register_rows(float (&d)[count],                        \
                                                         const uint32_t (&a)[4], uint64_t b,       \
                                                         int accumulate) {                         \
      asm volatile(MSA_WGMMA_TEXT(n, type, MSA_NAMES_##count, registers, registers_p, "1, 1, 0")   \
                   : MSA_FLOATS_##count(d, 0)                                                      \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));         \
    }                                                                                              \
    static __device__ __forceinline__ void register_columns(float (&d)[count],                     \
                                                            const uint32_t (&a)[4], uint64_t b,    \
                                                            int accumulate) {                      \
      asm volatile(MSA_WGMMA_TEXT(n, type, MSA_NAMES_##count, registers, registers_p, "1, 1, 1")   \
                   : MSA_FLOATS_##count(d, 0)                                                      \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));         \
    }                                                                                              \
  };
#define MSA_DEFINE_WGMMA_128(Element, type)                                                       \
  MSA_DEFINE_WGMMA(Element, type, 128, "128", 64, "%64, %65", "%66", "{%64, %65, %66, %67}, %68", \
                   "%69")
#define MSA_DEFINE_WGMMA_64(Element, type)                                                      \
  MSA_DEFINE_WGMMA(Element, type, 64, "64", 32, "%32, %33", "%34", "{%32, %33, %34, %35}, %36", \
                   "%37")
MSA_DEFINE_WGMMA_128(__nv_bfloat16, "bf16")
MSA_DEFINE_WGMMA_128(__half, "f16")
MSA_DEFINE_WGMMA_64(__nv_bfloat16, "bf16")
MSA_DEFINE_WGMMA_64(__half, "f16")
#undef MSA_DEFINE_WGMMA_64
#undef MSA_DEFINE_WGMMA_128
#undef MSA_DEFINE_WGMMA
#undef MSA_WGMMA_TEXT
#undef MSA_FLOATS_64
#undef MSA_FLOATS_32
#undef MSA_FLOATS_8
#undef MSA_NAMES_64
#undef MSA_NAMES_32
#undef MSA_NAMES_16

}  // namespace msa::cuda
