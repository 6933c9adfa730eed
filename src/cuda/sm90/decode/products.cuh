// The products of one warp in decode attention: 16 heads of a query by a quarter of a block's keys,
// softmax with a running maximum, and the weights by the values.
//
// mma.m16n8k16 with float32 accumulators. Keys and values lie in shared memory as the copy engine
// left them (128-byte swizzle) and come to registers by ldmatrix, values transposed; queries stay
// in registers. A lane holds two columns of row lane / 4 and of the row 8 below.
#pragma once

#include "cuda/device/layout.h"
#include "cuda/device/ptx.cuh"
#include "cuda/sm90/decode/params.h"

namespace msa::cuda {

inline constexpr int kDecodeHeads = 16;  // rows of a product
inline constexpr int kDecodeWarps = 4;

template <typename ElementType, int kDimension, int kBlockSize>
struct DecodeAttentionTraits {
  using Element = ElementType;
  static constexpr int kDim = kDimension;
  static constexpr int kBlock = kBlockSize;
  static constexpr int kWarpKeys = kBlock / kDecodeWarps;
  static constexpr int kTileBytes = kBlock * kDim * 2;  // keys, or values
  static constexpr int kThreads = kDecodeWarps * 32;
  static constexpr int kTilesOffset = 1024;  // behind what is in DecodeShared
  static constexpr int shared_bytes(int stages) {
    // The outputs of four warps lie where the first blocks were.
    constexpr int kOutputs = kDecodeWarps * kDecodeHeads * kDim * 4;
    const int tiles = stages * 2 * kTileBytes;
    return kTilesOffset + (tiles > kOutputs ? tiles : kOutputs);
  }
};

__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

template <typename Element>
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1);
template <>
__device__ __forceinline__ void multiply_add<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4],
                                                            uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply_add<__half>(float (&d)[4], const uint32_t (&a)[4],
                                                     uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// One warp's state of 16 heads: row lane / 4 and the one 8 below.
template <typename Traits>
struct DecodeWarp {
  static constexpr int kSteps = Traits::kDim / 16;
  static constexpr int kKeyTiles = Traits::kWarpKeys / 8;
  static constexpr int kValueTiles = Traits::kDim / 8;
  using Element = typename Traits::Element;

  uint32_t queries[kSteps][4];
  float out[kValueTiles][4];
  float max2[2];
  float sum[2];  // of the columns that this lane has seen

  __device__ __forceinline__ void load_queries(const DecodeAttentionParams& p, int64_t row,
                                               int group) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int group_size = 1 << p.group_shift;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = lane / 4 + 8 * half;
      const auto* q = reinterpret_cast<const uint32_t*>(
          static_cast<const uint16_t*>(p.op.q) + row * p.op.q_token_stride +
          (group * group_size + head) * p.op.q_head_stride + (lane % 4) * 2);
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        queries[k][half] = head < group_size ? __ldg(q + k * 8) : 0;
        queries[k][half + 2] = head < group_size ? __ldg(q + k * 8 + 4) : 0;
      }
    }
#pragma unroll
    for (int n = 0; n < kValueTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] = 0.0f;
    }
    max2[0] = max2[1] = minus_infinity();
    sum[0] = sum[1] = 0.0f;
  }

  /// Scores of the warp's keys [first, first + kWarpKeys) become weights, packed as operand A;
  /// what was summed so far shrinks to the new maximum.
  __device__ __forceinline__ void weigh(uint32_t keys, int first, int visible, float scale_log2,
                                        uint32_t (&weights)[kKeyTiles / 2][4]) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    float scores[kKeyTiles][4];
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[n][i] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kSteps; k += 2) {  // products of one tile wait for each other
      uint32_t b[kKeyTiles][4];
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        load_matrices(b[n], keys + swizzled_offset(Traits::kBlock, first + n * 8 + lane % 8,
                                                   k * 16 + lane / 8 * 8));
      }
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        multiply_add<Element>(scores[n], queries[k], b[n][0], b[n][1]);
      }
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        multiply_add<Element>(scores[n], queries[k + 1], b[n][2], b[n][3]);
      }
    }
    if (first + Traits::kWarpKeys > visible) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (first + n * 8 + (lane % 4) * 2 + i % 2 >= visible) scores[n][i] = minus_infinity();
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = minus_infinity();
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        largest = fmaxf(largest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
      const float before = max2[half];
      max2[half] = fmaxf(before, largest * scale_log2);
      const float shift = max2[half] == minus_infinity() ? 0.0f : max2[half];
      const float shrink = exp2_fast(before - shift);
      sum[half] *= shrink;
#pragma unroll
      for (int n = 0; n < kValueTiles; ++n) {
        out[n][2 * half] *= shrink;
        out[n][2 * half + 1] *= shrink;
      }
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[n][i] = exp2_fast(fmaf(scores[n][i], scale_log2, -shift));
          sum[half] += scores[n][i];
        }
      }
    }
#pragma unroll
    for (int n = 0; n < kKeyTiles / 2; ++n) {
      weights[n][0] = ElementTraits<Element>::pack(scores[2 * n][0], scores[2 * n][1]);
      weights[n][1] = ElementTraits<Element>::pack(scores[2 * n][2], scores[2 * n][3]);
      weights[n][2] = ElementTraits<Element>::pack(scores[2 * n + 1][0], scores[2 * n + 1][1]);
      weights[n][3] = ElementTraits<Element>::pack(scores[2 * n + 1][2], scores[2 * n + 1][3]);
    }
  }

  __device__ __forceinline__ void add_values(uint32_t values, int first,
                                             const uint32_t (&weights)[kKeyTiles / 2][4]) {
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int k = 0; k < kKeyTiles / 2; ++k) {
#pragma unroll
      for (int n = 0; n < kValueTiles; n += 2) {
        uint32_t b[4];
        load_matrices_transposed(
            b,
            values + swizzled_offset(Traits::kBlock, first + k * 16 + lane / 8 % 2 * 8 + lane % 8,
                                     n * 8 + lane / 16 * 8));
        multiply_add<Element>(out[n], weights[k], b[0], b[1]);
        multiply_add<Element>(out[n + 1], weights[k], b[2], b[3]);
      }
    }
  }
};

/// Values of the warp's tokens from `visible` on become zero.
template <typename Traits>
__device__ __forceinline__ void hide_values(uint8_t* values, int first, int visible) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  constexpr int kChunks = Traits::kDim / 8;  // of 16 bytes
  const int from = visible > first ? visible : first;
  const int count = (first + Traits::kWarpKeys - from) * kChunks;
  for (int n = lane; n < count; n += 32) {
    *reinterpret_cast<uint4*>(values + swizzled_offset(Traits::kBlock, from + n / kChunks,
                                                       n % kChunks * 8)) = make_uint4(0, 0, 0, 0);
  }
  fence_async_proxy();  // the copy engine may write here again
  __syncwarp();
}

}  // namespace msa::cuda
