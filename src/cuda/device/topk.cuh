// The K-1 best blocks of each row, kept while the blocks stream by. A row's list lies in shared
// memory, unsorted; its worst score and the place of that entry stay in registers of the four lanes
// (a quad) that own the row. Blocks arrive in ascending order, so a block that only equals the
// worst score never enters: ties go to the lower id.
#pragma once

#include "cuda/device/layout.h"
#include "cuda/device/ptx.cuh"

namespace msa::cuda {

/// Base-two logarithm of 2^a + 2^b. Minus infinity adds nothing, exactly; NaN stays.
__device__ __forceinline__ float add_lse2(float a, float b) {
  const float largest = fmaxf(a, b);
  if (largest == minus_infinity()) return a + b;  // -inf, or NaN when one of them is
  return largest + __log2f(1.0f + exp2_fast(-fabsf(a - b)));
}

inline constexpr int kNoId = 0x7FFFFFFF;

/// What a quad knows of its row.
struct RowState {
  int position;        // i; below 0 the row sees nothing
  uint32_t threshold;  // score of the worst entry; 0 while there is room
  int worst;           // its place in the list, see list_place()
};

/// Lists of the 8 rows that one half of a warp's 16-row tile holds.
struct CandidateLists {
  uint64_t* entries;  // [8 * slots], by list_place()
  float* lses;        // [8 * slots]: base-two LSE of the block, or null when not wanted
  int slots;          // a multiple of 4
};

__device__ __forceinline__ void clear_lists(const CandidateLists& lists, int num_kept) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int slot = lane % 4; slot < lists.slots; slot += 4) {
    lists.entries[list_place(slot, lane / 4)] = slot < num_kept ? kNoCandidate : kNeverReplaced;
  }
}

/// Offers block `block` to the row of this quad. All lanes of the warp call it; `wanted` says
/// whether the block may be a candidate of the row at all.
__device__ __forceinline__ void offer(const CandidateLists& lists, RowState& row, bool wanted,
                                      float score, int block, float block_lse2) {
  const uint32_t key = ordered_score(__float_as_uint(score));
  const bool enters = wanted && key > row.threshold;
  if (!__any_sync(~0u, enters)) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (enters && lane % 4 == 0) {
    lists.entries[row.worst] = candidate(key, block);
    if (lists.lses != nullptr) lists.lses[row.worst] = block_lse2;
  }
  __syncwarp();
  uint64_t least = kNeverReplaced;
  int place_of_least = 0;
  for (int place = lane; place < lists.slots * 8; place += 32) {  // slots lane % 4 of row lane / 4
    const uint64_t entry = lists.entries[place];
    if (entry < least) {
      least = entry;
      place_of_least = place;
    }
  }
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
    const uint64_t other = __shfl_xor_sync(~0u, least, step);
    const int other_place = __shfl_xor_sync(~0u, place_of_least, step);
    if (other < least || (other == least && other_place < place_of_least)) {
      least = other;
      place_of_least = other_place;
    }
  }
  row.threshold = static_cast<uint32_t>(least >> 32);
  row.worst = place_of_least;
  __syncwarp();
}

/// Walks the row's entries by ascending id: the id after `last`, or kNoId at the end, and its
/// LSE. All lanes of the warp call it.
__device__ __forceinline__ int next_id(const CandidateLists& lists, int last, float* lse2) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int best = kNoId;
  int best_place = 0;
  for (int place = lane; place < lists.slots * 8; place += 32) {
    const uint64_t entry = lists.entries[place];
    const int id = candidate_id(entry);
    const bool real = entry != kNoCandidate && entry != kNeverReplaced;
    if (real && id > last && id < best) {
      best = id;
      best_place = place;
    }
  }
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
    const int other = __shfl_xor_sync(~0u, best, step);
    const int other_place = __shfl_xor_sync(~0u, best_place, step);
    if (other < best) {
      best = other;
      best_place = other_place;
    }
  }
  if (lists.lses != nullptr) *lse2 = lists.lses[best_place];
  return best;
}

}  // namespace msa::cuda
