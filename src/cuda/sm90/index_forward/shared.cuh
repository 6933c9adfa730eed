// The shared memory of the index kernel and what its two halves agree on.
//
//   full[stage]  the selecting warps have read the last maxima of the stage, and new keys are there
//   done[stage]  the scoring warps have read the keys of the stage, and its maxima are there
#pragma once

#include "cuda/device/lists.h"
#include "cuda/device/ptx.cuh"
#include "cuda/sm90/index_forward/pieces.cuh"

namespace msa::cuda {

template <typename Element_, int kDim_, int kBlock_>
struct IndexForwardTraits {
  using Element = Element_;
  static constexpr int kDim = kDim_;
  static constexpr int kBlock = kBlock_;
  static constexpr int kBlockLog2 = kBlock == 128 ? 7 : 6;
  static constexpr int kScores = kBlock / 2;  // accumulators of a thread and tile
  static constexpr int kThreads = 3 * kWarpgroupThreads;
  static constexpr int kStageBytes = kBlock * kDim * 2;
};

inline constexpr int kSelectingWarps = 4;
inline constexpr int kScoringWarps = 8;
inline constexpr int kSelectRegisters = 56;  // 128 * (56 + 2 * 224) of the 65536 registers
inline constexpr int kScoreRegisters = 224;

using IndexLists = CandidateLists<kIndexRows>;

/// Base-two LSEs of the thread block's rows, with an LSE asked for. They lie in shared memory,
/// where each belongs to one thread: registers are for those who ask for none.
struct RowLses {
  float* local;    // of the local block
  float* segment;  // of the blocks of this segment so far
  float* visible;  // of the finished segments
};

/// Views of the shared memory. Nearly all addresses are constants, so that no register holds them.
template <typename Traits>
struct IndexShared {
  static __device__ __forceinline__ uint8_t* memory() {
    extern __shared__ __align__(1024) uint8_t index_shared_memory[];  // the swizzle's atom
    return index_shared_memory;
  }
  static __device__ __forceinline__ uint64_t* full(uint32_t stage) {
    return reinterpret_cast<uint64_t*>(memory()) + stage;
  }
  static __device__ __forceinline__ uint64_t* done(uint32_t stage) {
    return reinterpret_cast<uint64_t*>(memory()) + kIndexMaxStages + stage;
  }
  static __device__ __forceinline__ IndexWork* work() {
    static_assert(2 * kIndexMaxStages * 8 + sizeof(IndexWork) <= kIndexMaximaOffset);
    return reinterpret_cast<IndexWork*>(memory() + 2 * kIndexMaxStages * 8);
  }
  /// [256] of the stage's block: the largest dot of each row, not scaled.
  static __device__ __forceinline__ float* maxima(uint32_t stage) {
    return reinterpret_cast<float*>(memory() + kIndexMaximaOffset) + stage * kIndexRows;
  }
  /// [256], base two; only with an LSE asked for.
  static __device__ __forceinline__ float* block_lses(uint32_t stage) {
    return reinterpret_cast<float*>(memory() + kIndexLsesOffset) + stage * kIndexRows;
  }
  static __device__ __forceinline__ uint8_t* keys(uint32_t stage) {
    return memory() + kIndexRingOffset + stage * Traits::kStageBytes;
  }
  static __device__ __forceinline__ IndexLists lists(const IndexKernelParams& p) {
    const int stages = index_stages(Traits::kStageBytes, p.slots, p.op.lse_idx != nullptr);
    auto* words = reinterpret_cast<uint32_t*>(keys(static_cast<uint32_t>(stages)));
    const int list_words = kIndexRows * p.slots;
    return {words, words + list_words, p.op.lse_idx != nullptr ? words + 2 * list_words : nullptr,
            p.slots, p.num_kept};
  }
  static __device__ __forceinline__ RowLses row_lses(const IndexKernelParams& p) {
    auto* sums = reinterpret_cast<float*>(lists(p).keys + 3 * kIndexRows * p.slots);
    return {sums, sums + kIndexRows, sums + 2 * kIndexRows};
  }
};

}  // namespace msa::cuda
