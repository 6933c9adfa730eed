// The scoring half of the index kernel: two warpgroups, each with two tiles of 64 rows, turn key
// blocks into one maximum a row (and one LSE, when asked for) in shared memory.
//
// The queries of both tiles and two sets of accumulators stay in registers, so that the product of
// one tile runs while the maximum of the other is taken: 512 cycles of wgmma against about 150 of
// ALU. What happens to a maximum is the business of the selecting warps (select.cuh): scoring never
// waits for a list.
#pragma once

#include "cuda/device/mbarrier.cuh"
#include "cuda/device/wgmma.cuh"
#include "cuda/sm90/index_forward/shared.cuh"

namespace msa::cuda {

/// Rows of a thread block as positions.
struct TileRows {
  int first_position;  // of row 0
  int num_rows;        // those past it do not exist
  int head_shift;
  __device__ __forceinline__ int position(int row) const {
    return row < num_rows ? first_position + (row >> head_shift) : -1;
  }
};

/// The 64 queries of one tile as operand A. Rows that do not exist repeat the last one: nobody
/// reads their maxima.
template <typename Traits>
struct QueryTile {
  uint32_t fragments[Traits::kDim / 16][4];

  /// `first_row` is the packed row t * Hkv + head of the thread block's row 0; `base` the first of
  /// the warp's 16 rows within the thread block.
  __device__ __forceinline__ void load(const IndexKernelParams& p, int first_row, int base,
                                       int num_rows) {
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + min(base + lane / 4 + 8 * half, num_rows - 1);
      const auto* q = reinterpret_cast<const uint32_t*>(
          static_cast<const uint16_t*>(p.op.q_idx) + p.token(row) * p.op.q_token_stride +
          p.head(row) * p.op.q_head_stride + (lane % 4) * 2);
#pragma unroll
      for (int k = 0; k < Traits::kDim / 16; ++k) {
        fragments[k][half] = __ldg(q + k * 8);
        fragments[k][half + 2] = __ldg(q + k * 8 + 4);
      }
    }
  }

  /// Starts the product with the block at `keys`; it is in flight until a wait.
  __device__ __forceinline__ void multiply(float (&scores)[Traits::kScores], uint32_t keys) const {
    wgmma_pin(scores);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < Traits::kDim / 16; ++k) {
      Wgmma<typename Traits::Element, Traits::kBlock>::register_rows(
          scores, fragments[k], row_operand(keys, Traits::kBlock, k * 16), k > 0);
    }
    wgmma_commit();
  }
};

/// Of the thread's 32 scores of row lane / 4 + 8 * half. NaN is ignored; of NaN alone: -inf.
template <int kScores>
__device__ __forceinline__ float largest_of(const float (&scores)[kScores], int half) {
  float parts[4];
#pragma unroll
  for (int n = 0; n < 4; ++n)
    parts[n] = fmaxf(scores[n * 4 + 2 * half], scores[n * 4 + 2 * half + 1]);
#pragma unroll
  for (int i = 16; i < kScores; i += 4) {
    parts[i / 4 % 4] =
        fmaxf(parts[i / 4 % 4], fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
  }
  return fmaxf(fmaxf(fmaxf(parts[0], parts[1]), fmaxf(parts[2], parts[3])), minus_infinity());
}

/// Scores of keys past the row's position become minus infinity.
template <int kScores>
__device__ __forceinline__ void mask_scores(float (&scores)[kScores], int first_key, int last_key,
                                            const TileRows& rows, int base) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int first = first_key + (lane % 4) * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int position = rows.position(base + lane / 4 + 8 * half);
    if (position >= last_key) continue;
#pragma unroll
    for (int i = 0; i < kScores; i += 4) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        if (first + i * 2 + c > position) scores[i + 2 * half + c] = minus_infinity();
      }
    }
  }
}

/// Base-two LSE of a row's scores, for the quad that owns the row.
template <int kScores>
__device__ __forceinline__ float row_lse2(const float (&scores)[kScores], float largest,
                                          float scale_log2, int half) {
  const float shift = largest == minus_infinity() ? 0.0f : largest * scale_log2;
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kScores; i += 4) {
    sum += exp2_fast(fmaf(scores[i + 2 * half], scale_log2, -shift));
    sum += exp2_fast(fmaf(scores[i + 2 * half + 1], scale_log2, -shift));
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  return shift + __log2f(sum);
}

/// A finished product: the maxima of the warp's 16 rows go to shared memory. After the first
/// exchange the even lanes of a quad look after row lane / 4, the odd ones after the row 8 below.
template <typename Traits>
__device__ __forceinline__ void finish_scores(float (&scores)[Traits::kScores],
                                              const IndexKernelParams& p, const TileRows& rows,
                                              int base, int block, uint32_t stage) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (p.scores_local()) {
    mask_scores(scores, block * Traits::kBlock, (block + 1) * Traits::kBlock - 1, rows, base);
  }
  const float upper = largest_of(scores, 0);
  const float lower = largest_of(scores, 1);
  const bool odd = (lane & 1) != 0;
  float largest = fmaxf(odd ? lower : upper, __shfl_xor_sync(~0u, odd ? upper : lower, 1));
  largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
  const int row = base + lane / 4 + 8 * (lane & 1);
  if ((lane & 2) == 0) IndexShared<Traits>::maxima(stage)[row] = largest;
  if (p.op.lse_idx == nullptr) return;
  const float scale_log2 = p.op.scale * kLog2E;
  const float upper_lse2 = row_lse2(scores, __shfl_sync(~0u, largest, lane & ~3), scale_log2, 0);
  const float lower_lse2 = row_lse2(scores, __shfl_sync(~0u, largest, lane | 1), scale_log2, 1);
  if ((lane & 2) == 0) IndexShared<Traits>::block_lses(stage)[row] = odd ? lower_lse2 : upper_lse2;
}

/// Everything that a scoring warpgroup does; `warpgroup` is 0 or 1.
template <typename Traits>
__device__ __forceinline__ void score_blocks(const IndexKernelParams& p, int first_row,
                                             const TileRows& rows, int warpgroup, int begin,
                                             int end) {
  using Shared = IndexShared<Traits>;
  const auto stages =
      static_cast<uint32_t>(index_stages(Traits::kStageBytes, p.slots, p.op.lse_idx != nullptr));
  const int base = warpgroup * 128 + static_cast<int>(threadIdx.x) % kWarpgroupThreads / 32 * 16;
  QueryTile<Traits> queries[2];
  queries[0].load(p, first_row, base, rows.num_rows);
  queries[1].load(p, first_row, base + 64, rows.num_rows);
  float first[Traits::kScores];
  float second[Traits::kScores];
  RingPosition ring;
  for (int block = begin; block < end; ++block) {
    const uint32_t keys = shared_address(Shared::keys(ring.stage));
    mbarrier_wait(Shared::full(ring.stage), ring.parity);
    queries[0].multiply(first, keys);
    queries[1].multiply(second, keys);
    wgmma_wait<1>();
    wgmma_pin(first);
    finish_scores<Traits>(first, p, rows, base, block, ring.stage);
    wgmma_wait<0>();
    wgmma_pin(second);
    finish_scores<Traits>(second, p, rows, base + 64, block, ring.stage);
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(Shared::done(ring.stage));
    ring.advance(stages);
  }
}

}  // namespace msa::cuda
