// sm90_decode_scores: block scores of requests with few queries, all of a batch in one launch.
//
//   scores[t * Hkv + head, b] = scale * max over tokens j of block b of q_idx[t, head] . k_idx[j]
//
// for the blocks b before the local one of the request's last row (the local block needs no score).
// A thread block takes an equal share of all blocks of all requests, counted on the device: a
// range that may begin and end in the middle of a request. One warp streams key blocks through a
// ring of five stages of 32 KiB, four warps multiply: 64 rows (queries x index heads) by the block,
// as in the prefill kernel and so with the same bits. A block is scored alone: nothing depends on
// how blocks are shared out.
//
// Bound: memory, 256 bytes a key at Di 128: 63 us at 1M keys and 4.3 TB/s. A block of 128 keys
// takes 1650 cycles to arrive at a multiprocessor's share, its product 512.
#pragma once

#include "cuda/device/mbarrier.cuh"
#include "cuda/device/overlap.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/device/wgmma.cuh"
#include "cuda/sm90/decode/launch.h"
#include "cuda/sm90/decode/share.cuh"

namespace msa::cuda {

template <typename ElementType, int kDimension, int kBlockSize>
struct DecodeScoresTraits {
  using Element = ElementType;
  static constexpr int kDim = kDimension;
  static constexpr int kBlock = kBlockSize;
  static constexpr int kScores = kBlock / 2;  // accumulators of a thread
  static constexpr int kStageBytes = kBlock * kDim * 2;
  static constexpr int kScoringWarps = 4;
  static constexpr int kThreads = (kScoringWarps + 1) * 32;
  static constexpr int kStages = kDecodeIndexStages;
  static constexpr int kRingOffset = 1024;  // behind the barriers
  static constexpr int kPrefixOffset = kRingOffset + kStages * kStageBytes;
  static constexpr int shared_bytes(int batch) { return kPrefixOffset + (batch + 1) * 4; }
};

/// The queries of a request as operand A: 64 rows, those that do not exist repeat the last one.
template <typename Traits>
__device__ __forceinline__ void load_queries(const DecodeIndexParams& p, const Request& request,
                                             uint32_t (&fragments)[Traits::kDim / 16][4]) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
  const int num_rows = static_cast<int>(request.num_rows) << p.head_shift;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = min(operand_row(thread, half), num_rows - 1);
    const int64_t token = request.first_row + (row >> p.head_shift);
    const int64_t head = row & ((1 << p.head_shift) - 1);
    const auto* q = reinterpret_cast<const uint32_t*>(static_cast<const uint16_t*>(p.op.q_idx) +
                                                      token * p.op.q_token_stride +
                                                      head * p.op.q_head_stride + (thread % 4) * 2);
#pragma unroll
    for (int k = 0; k < Traits::kDim / 16; ++k) {
      fragments[k][half] = __ldg(q + k * 8);
      fragments[k][half + 2] = __ldg(q + k * 8 + 4);
    }
  }
}

/// Of a row's scores in the thread's registers; NaN is ignored.
template <int kScores>
__device__ __forceinline__ float largest_score(const float (&scores)[kScores], int half) {
  float parts[4];
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    parts[n] = fmaxf(scores[n * 4 + 2 * half], scores[n * 4 + 2 * half + 1]);
  }
#pragma unroll
  for (int i = 16; i < kScores; i += 4) {
    parts[i / 4 % 4] =
        fmaxf(parts[i / 4 % 4], fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
  }
  float largest =
      fmaxf(fmaxf(fmaxf(parts[0], parts[1]), fmaxf(parts[2], parts[3])), minus_infinity());
  largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
  return fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
}

template <typename Traits>
__device__ __forceinline__ void score_range(const DecodeIndexParams& p, const int32_t* prefix,
                                            uint8_t* shared) {
  auto* full = reinterpret_cast<uint64_t*>(shared);
  uint64_t* empty = full + Traits::kStages;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  uint32_t queries[Traits::kDim / 16][4];
  float scores[Traits::kScores];
  RingPosition ring;
  for_requests(p, prefix, [&](const ScoredRequest& part) {
    load_queries<Traits>(p, part.rows, queries);
    const int num_rows = static_cast<int>(part.rows.num_rows) << p.head_shift;
    const int row = accumulator_row(thread, 0);
    float* to = p.scores + ((part.rows.first_row << p.head_shift) + row) * p.score_stride;
    for (int block = part.begin; block < part.end; ++block) {
      mbarrier_wait(full + ring.stage, ring.parity);
      const uint32_t keys =
          shared_address(shared + Traits::kRingOffset + ring.stage * Traits::kStageBytes);
      wgmma_pin(scores);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < Traits::kDim / 16; ++k) {
        Wgmma<typename Traits::Element, Traits::kBlock>::register_rows(
            scores, queries[k], row_operand(keys, Traits::kBlock, k * 16), k > 0);
      }
      wgmma_commit();
      wgmma_wait<0>();
      wgmma_pin(scores);
      if (lane == 0) mbarrier_arrive(empty + ring.stage);
      ring.advance(Traits::kStages);
      if (thread / 32 * 16 >= num_rows) continue;  // nobody asked for this warp's rows
      const float upper = largest_score(scores, 0);
      const float lower = largest_score(scores, 1);
      if (lane % 4 == 0 && row < num_rows) to[block] = __fmul_rn(p.op.scale, upper);
      if (lane % 4 == 1 && row + 8 < num_rows) {
        to[8 * p.score_stride + block] = __fmul_rn(p.op.scale, lower);
      }
    }
  });
}

/// One warp: page numbers of 32 blocks at once, then their copies.
template <typename Traits>
__device__ __forceinline__ void stream_keys(const CUtensorMap& key_map, const DecodeIndexParams& p,
                                            const int32_t* prefix, uint8_t* shared) {
  auto* full = reinterpret_cast<uint64_t*>(shared);
  uint64_t* empty = full + Traits::kStages;
  const int lane = static_cast<int>(threadIdx.x % 32);
  RingPosition ring;
  for_requests(p, prefix, [&](const ScoredRequest& part) {
    for (int first = part.begin; first < part.end; first += 32) {
      int2 own = make_int2(0, 0);
      if (first + lane < part.end) {
        own = block_coordinates(p.op.sequences, part.index, part.rows.first_key, first + lane,
                                Traits::kBlock);
      }
      const int count = min(32, part.end - first);
      for (int n = 0; n < count; ++n) {
        const int token = __shfl_sync(~0u, own.x, n);
        const int page = __shfl_sync(~0u, own.y, n);
        if (lane == 0) {
          mbarrier_wait(empty + ring.stage, ring.parity ^ 1);
          mbarrier_arrive_expect(full + ring.stage, Traits::kStageBytes);
#pragma unroll
          for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
            tma_load_4d(shared + Traits::kRingOffset + ring.stage * Traits::kStageBytes +
                            column * Traits::kBlock * 2,
                        &key_map, full + ring.stage, column, token, 0, page);
          }
        }
        __syncwarp();
        ring.advance(Traits::kStages);
      }
    }
  });
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1)
    sm90_decode_scores(const __grid_constant__ CUtensorMap key_map,
                       const __grid_constant__ DecodeIndexParams p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto* barriers = reinterpret_cast<uint64_t*>(shared);
  auto* prefix = reinterpret_cast<int32_t*>(shared + Traits::kPrefixOffset);
  if (threadIdx.x == 0) {
    tma_prefetch(&key_map);
    for (int stage = 0; stage < Traits::kStages; ++stage) {
      mbarrier_init(barriers + stage, 1);
      mbarrier_init(barriers + Traits::kStages + stage, Traits::kScoringWarps);
    }
    fence_mbarrier_init();
  }
  // Lengths and tables may come from the kernel before. Only then may the next one start, which
  // reads them without waiting for this one.
  wait_for_previous_kernel();
  allow_next_kernel();
  count_blocks<Traits::kThreads>(p, prefix);
  if (threadIdx.x < Traits::kScoringWarps * 32) {
    score_range<Traits>(p, prefix, shared);
  } else {
    stream_keys<Traits>(key_map, p, prefix, shared);
  }
}

template <typename Traits>
cudaError_t launch_decode_scores(const DecodeIndexParams& params, const CUtensorMap& key_map,
                                 int num_multiprocessors, cudaStream_t stream) {
  const int bytes = Traits::shared_bytes(static_cast<int>(params.op.sequences.batch));
  const cudaError_t error = cudaFuncSetAttribute(
      sm90_decode_scores<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return launch_overlapped(sm90_decode_scores<Traits>, static_cast<unsigned>(num_multiprocessors),
                           Traits::kThreads, static_cast<size_t>(bytes), stream, key_map, params);
}

template <typename Element>
cudaError_t launch_decode_scores_of(const DecodeIndexParams& params, const CUtensorMap& key_map,
                                    int num, cudaStream_t stream) {
  const bool wide = params.op.index_dim == 128;
  if (params.op.block_size == 128) {
    return wide ? launch_decode_scores<DecodeScoresTraits<Element, 128, 128>>(params, key_map, num,
                                                                              stream)
                : launch_decode_scores<DecodeScoresTraits<Element, 64, 128>>(params, key_map, num,
                                                                             stream);
  }
  return wide ? launch_decode_scores<DecodeScoresTraits<Element, 128, 64>>(params, key_map, num,
                                                                           stream)
              : launch_decode_scores<DecodeScoresTraits<Element, 64, 64>>(params, key_map, num,
                                                                          stream);
}

}  // namespace msa::cuda
