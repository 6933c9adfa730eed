// One 64-row tile against one block of keys: products, mask, softmax, and the way its rows of
// partial output are stored.
//
//   s = q k^T over the block      m = max s      p = 2^((s - m) scale log2(e))      l = sum p
//   partial = p v / l (16 bits)   partial_lse2 = m scale log2(e) + log2(l)
//
// A warpgroup holds the tile in registers: 64 rows, two of them in every thread.
#pragma once

#include "cuda/device/wgmma.cuh"
#include "cuda/sm90/attention_forward/params.h"

namespace msa::cuda {

template <typename Element_, int kDim_, int kBlock_>
struct AttentionTraits {
  using Element = Element_;
  static constexpr int kDim = kDim_;
  static constexpr int kBlock = kBlock_;
  static constexpr int kKeyBytes = kBlock * kDim * 2;  // K of a block; V has the same size
  static constexpr int kQueryBytes = kTileRows * kDim * 2;
};

/// Scores to -inf past the last visible token of each row, then the softmax.
template <typename Traits>
__device__ __forceinline__ void mask_tile(float (&scores)[Traits::kBlock / 2],
                                          const int (&last_visible)[2]) {
  const int column = static_cast<int>(threadIdx.x % 4) * 2;
#pragma unroll
  for (int i = 0; i < Traits::kBlock / 2; ++i) {
    if (column + i / 4 * 8 + i % 2 > last_visible[i / 2 % 2]) scores[i] = minus_infinity();
  }
}

/// Softmax of one 64-row tile without mask, in registers: scores become weights in the layout of
/// operand A. largest2 is the maximum in base-two units, sum the sum of the weights.
template <typename Element, int kCount>
__device__ __forceinline__ void softmax_tile(const float (&scores)[kCount], float scale_log2,
                                             uint32_t (&weights)[kCount / 8][4],
                                             float (&largest2)[2], float (&sum)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = minus_infinity();
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      largest = fmaxf(largest, fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    largest2[half] = largest * scale_log2;
    const float shift = largest == minus_infinity() ? 0.0f : largest2[half];
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float low = exp2_fast(fmaf(scores[i + 2 * half], scale_log2, -shift));
      const float high = exp2_fast(fmaf(scores[i + 2 * half + 1], scale_log2, -shift));
      total += low + high;
      weights[i / 8][i / 4 % 2 * 2 + half] = ElementTraits<Element>::pack(low, high);
    }
    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    sum[half] = total;
  }
}

/// Starts q k^T of a 64-row tile and a block, both in shared memory.
template <typename Traits>
__device__ __forceinline__ void issue_keys(float (&scores)[Traits::kBlock / 2], uint32_t queries,
                                           uint32_t keys) {
#pragma unroll
  for (int k = 0; k < Traits::kDim / 16; ++k) {
    Wgmma<typename Traits::Element, Traits::kBlock>::shared_rows(
        scores, row_operand(queries, kTileRows, k * 16), row_operand(keys, Traits::kBlock, k * 16),
        k > 0);
  }
}

/// Starts weights v, added to `out` or in its place.
template <typename Traits>
__device__ __forceinline__ void issue_values(float (&out)[Traits::kDim / 2],
                                             const uint32_t (&weights)[Traits::kBlock / 16][4],
                                             uint32_t values, bool accumulate) {
#pragma unroll
  for (int k = 0; k < Traits::kBlock / 16; ++k) {
    Wgmma<typename Traits::Element, Traits::kDim>::register_columns(
        out, weights[k], column_operand(values, Traits::kBlock, k * 16), k > 0 || accumulate);
  }
}

/// q k^T; waits for the result.
template <typename Traits>
__device__ __forceinline__ void multiply_keys(float (&scores)[Traits::kBlock / 2], uint32_t queries,
                                              uint32_t keys) {
  wgmma_pin(scores);
  wgmma_fence();
  issue_keys<Traits>(scores, queries, keys);
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_pin(scores);
}

/// weights v; waits for the result.
template <typename Traits>
__device__ __forceinline__ void multiply_values(float (&out)[Traits::kDim / 2],
                                                const uint32_t (&weights)[Traits::kBlock / 16][4],
                                                uint32_t values) {
  wgmma_pin(out);
  wgmma_fence();
  issue_values<Traits>(out, weights, values, false);
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_pin(out);
}

/// Writes a thread's share of a row: 16 bytes for every 32 columns; see partial_place().
template <typename Traits>
__device__ __forceinline__ void store_partial(const float (&out)[Traits::kDim / 2], int half,
                                              float factor, uint16_t* row) {
  using Type = ElementTraits<typename Traits::Element>;
  uint16_t* to = row + threadIdx.x % 4 * 8;
#pragma unroll
  for (int s = 0; s < Traits::kDim / 32; ++s) {
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int i = (s * 4 + j) * 4 + 2 * half;
      words[j] = Type::pack_output(out[i] * factor, out[i + 1] * factor);
    }
    *reinterpret_cast<uint4*>(to + s * 32) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

/// Turns the order of store_partial() into columns, within quads: lane c of a quad goes in with its
/// words of tiles 0 to 3 and comes out with the four words of tile c.
__device__ __forceinline__ void transpose_quad(uint32_t (&words)[4]) {
  const bool odd = (threadIdx.x & 1) != 0;
  const bool upper = (threadIdx.x & 2) != 0;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t got = __shfl_xor_sync(~0u, odd ? words[i] : words[i + 1], 1);
    words[i] = odd ? got : words[i];
    words[i + 1] = odd ? words[i + 1] : got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t got = __shfl_xor_sync(~0u, upper ? words[i] : words[i + 2], 2);
    words[i] = upper ? got : words[i];
    words[i + 2] = upper ? words[i + 2] : got;
  }
}

/// Writes the eight columns of a lane.
__device__ __forceinline__ void store_columns(uint16_t* to, const uint32_t (&words)[4], bool wide) {
  if (wide) {
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) reinterpret_cast<uint32_t*>(to)[i] = words[i];
  }
}

/// Zeroes the rows of V from `num_tokens` on, and raises *last_bad to the last row before that with
/// an infinity or NaN. `thread` of `num_threads` takes its share; a barrier must follow.
template <typename Traits>
__device__ __forceinline__ void clean_values(uint8_t* values, int* last_bad, int num_tokens,
                                             int thread, int num_threads) {
  constexpr int kChunks = Traits::kDim / 8;  // of 16 bytes, in a row
  constexpr uint32_t kMask = ElementTraits<typename Traits::Element>::kExponentMask;
  for (int i = thread; i < Traits::kBlock * kChunks; i += num_threads) {
    const int row = i / kChunks;
    const int chunk = i % kChunks;  // the swizzle stays within a panel's row
    auto* place = reinterpret_cast<uint4*>(values + chunk / 8 * Traits::kBlock * kSwizzleBytes +
                                           row * kSwizzleBytes + chunk % 8 * 16);
    if (row >= num_tokens) {
      *place = make_uint4(0, 0, 0, 0);
      continue;
    }
    const uint4 words = *place;
    bool bad = false;
    for (const uint32_t word : {words.x, words.y, words.z, words.w}) {
      bad = bad || (word & kMask) == kMask || (word >> 16 & kMask) == kMask;
    }
    if (bad) atomicMax(last_bad, row);
  }
  fence_async_proxy();
}

}  // namespace msa::cuda
