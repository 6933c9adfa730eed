// The K best of a row of block scores, by one warp: exact, lower id first on ties, in two looks.
//
//   1. Every lane takes the maxima of one, two or four sets of its scores. At least K scores of the
//      row are as good as the K-th best of these maxima, so what is worse cannot be selected.
//   2. What is not worse becomes a candidate: 22 of 1024 scores for K = 16, on average, of random
//      data, whatever the length. A candidate's rank is the number of better ones.
//
// Order is that of a 64-bit word: score above, inverted id below. Rows longer than what is staged
// at once come chunk by chunk, the best so far staying in the room. Should a row have more
// candidates than there is room (scores in order, or equal), the cut is found by bisection: slower,
// the same result. About 350 instructions for 1024 scores. Plain CUDA C++: it also runs on the
// host, where its tests are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device/layout.h"

namespace msa::cuda {

inline constexpr int kCandidatePlaces = 192;  // of a warp: those of a chunk and the best so far

/// Scores of which a lane takes one maximum: as many of them in a warp as entries are kept.
MSA_HOST_DEVICE constexpr int select_sets(int most_kept) {
  return most_kept <= 16 ? 1 : (most_kept <= 32 ? 2 : 4);
}

__device__ __forceinline__ float select_lowest() {
  return __int_as_float(static_cast<int>(0xff800000u));
}

/// Greater is better; ids differ, so no two are equal. NaN counts as minus infinity.
__device__ __forceinline__ uint64_t candidate_word(float score, int id) {
  const uint32_t bits = score != score ? 0xff800000u : __float_as_uint(score);
  return static_cast<uint64_t>(ordered_score(bits)) << 32 | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ int candidate_id(uint64_t word) {
  return static_cast<int>(~static_cast<uint32_t>(word));
}

/// The k-th largest of the warp's values, k in [1, 32 * kSets]: a bitonic network.
template <int kSets>
__device__ __forceinline__ float kth_largest(float (&values)[static_cast<size_t>(kSets)], int k) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int size = 2; size <= 32 * kSets; size *= 2) {
#pragma unroll
    for (int stride = size / 2; stride > 0; stride /= 2) {
#pragma unroll
      for (int n = 0; n < kSets; ++n) {
        const bool falling = ((n * 32 + lane) & size) == 0;
        if constexpr (kSets > 1) {
          if (stride >= 32) {
            const int other = n ^ (stride / 32);
            if (other < n) continue;
            const float most = fmaxf(values[n], values[other]);
            const float least = fminf(values[n], values[other]);
            values[n] = falling ? most : least;
            values[other] = falling ? least : most;
            continue;
          }
        }
        const float other = __shfl_xor_sync(~0u, values[n], stride);
        const bool first = (lane & stride) == 0;
        values[n] = first == falling ? fmaxf(values[n], other) : fminf(values[n], other);
      }
    }
  }
  float result = values[0];
#pragma unroll
  for (int n = 0; n < kSets; ++n) {
    const float value = __shfl_sync(~0u, values[n], (k - 1) % 32);
    if ((k - 1) / 32 == n) result = value;
  }
  return result;
}

/// Adds the `wanted` best of columns [0, count) to the room behind `held` entries: the slow and
/// sure way. count > wanted.
__device__ __forceinline__ void add_by_bisection(const float* row, int count, int first_id,
                                                 int wanted, uint64_t* room, int held) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const auto count_from = [&](uint32_t key) {
    unsigned sum = 0;
    for (int column = lane; column < count; column += 32) {
      sum += static_cast<uint32_t>(candidate_word(row[column], 0) >> 32) >= key ? 1u : 0u;
    }
    return static_cast<int>(__reduce_add_sync(~0u, sum));
  };
  // At least `wanted` are as good as `low`, fewer are as good as `high`.
  uint32_t low = 0;
  uint32_t high = ~0u;
  int better = 0;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    const int found = count_from(middle);
    if (found >= wanted) {
      low = middle;
    } else {
      high = middle;
      better = found;
    }
  }
  int ties = wanted - better;  // of those equal to `low`, the first
  const unsigned before = (1u << lane) - 1;
  for (int base = 0; base < count; base += 32) {
    const bool real = base + lane < count;
    const uint64_t word = candidate_word(real ? row[base + lane] : 0.0f, first_id + base + lane);
    const auto key = static_cast<uint32_t>(word >> 32);
    const bool equal = real && key == low;
    const unsigned equals = __ballot_sync(~0u, equal);
    const bool taken = (real && key > low) || (equal && __popc(equals & before) < ties);
    const unsigned takes = __ballot_sync(~0u, taken);
    if (taken) room[held + __popc(takes & before)] = word;
    held += __popc(takes);
    ties -= __popc(equals) < ties ? __popc(equals) : ties;
  }
}

/// Leaves the `kept` best of `held` entries in the room, best first. All lanes call it after a
/// __syncwarp().
__device__ __forceinline__ void sort_candidates(uint64_t* room, int held, int kept) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  constexpr int kOwn = kCandidatePlaces / 32;
  uint64_t own[kOwn];
  int rank[kOwn];
#pragma unroll
  for (int n = 0; n < kOwn; ++n) {
    own[n] = 0;
    rank[n] = kept;
    if (n * 32 >= held) continue;
    const bool real = n * 32 + lane < held;
    own[n] = real ? room[n * 32 + lane] : 0;
    int better = real ? 0 : kept;
    for (int other = 0; other < held; ++other) better += room[other] > own[n] ? 1 : 0;
    rank[n] = better;
  }
  __syncwarp();
#pragma unroll
  for (int n = 0; n < kOwn; ++n) {
    if (n * 32 < held && rank[n] < kept) room[rank[n]] = own[n];
  }
  __syncwarp();
}

/// Columns [0, count) of a row, in shared memory at an address that is a multiple of 16, followed
/// by minus infinities up to the next multiple of 128. `room` holds the `held` <= kept best entries
/// of the columns before, best first; afterwards the best of all. Returns their number.
template <int kSets>
__device__ __forceinline__ int select_columns(const float* row, int count, int first_id, int kept,
                                              uint64_t* room, int held) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const auto* fours = reinterpret_cast<const float4*>(row);
  const int num_fours = (count + 127) / 128;  // of a lane

  // 1. A bound that at least `kept` scores reach.
  float maxima[static_cast<size_t>(kSets)];
#pragma unroll
  for (int n = 0; n < kSets; ++n) maxima[n] = select_lowest();
  for (int first = 0; first < num_fours; first += 8) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      if (first + n >= num_fours) break;
      const float4 four = fours[(first + n) * 32 + lane];
      maxima[n % kSets] =
          fmaxf(fmaxf(maxima[n % kSets], fmaxf(four.x, four.y)), fmaxf(four.z, four.w));
    }
  }
  const float bound = kth_largest<kSets>(maxima, kept);

  // 2. Candidates: whatever is not below the bound, NaN included.
  const unsigned before = (1u << lane) - 1;
  int found = held;
  for (int first = 0; first < num_fours; first += 8) {
    unsigned marks = 0;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      if (first + n >= num_fours) break;
      const float4 four = fours[(first + n) * 32 + lane];
      if (!(four.x < bound)) marks |= 1u << (n * 4);
      if (!(four.y < bound)) marks |= 2u << (n * 4);
      if (!(four.z < bound)) marks |= 4u << (n * 4);
      if (!(four.w < bound)) marks |= 8u << (n * 4);
    }
    while (__any_sync(~0u, marks != 0)) {
      const int mark = __ffs(static_cast<int>(marks)) - 1;
      const int column = ((first + mark / 4) * 32 + lane) * 4 + mark % 4;
      const bool real = marks != 0 && column < count;
      const unsigned reals = __ballot_sync(~0u, real);
      const int place = found + __popc(reals & before);
      if (real && place < kCandidatePlaces) {
        room[place] = candidate_word(row[column], first_id + column);
      }
      found += __popc(reals);
      marks &= marks - 1;
    }
  }
  if (found > kCandidatePlaces) {
    __syncwarp();
    add_by_bisection(row, count, first_id, kept, room, held);
    found = held + kept;
  }
  __syncwarp();
  sort_candidates(room, found, kept);
  return found < kept ? found : kept;
}

/// Writes the ids of `held` <= 64 entries in ascending order, then `local` unless it is below 0,
/// then -1 up to `top_k` places.
__device__ __forceinline__ void write_selection(const uint64_t* room, int held, int local,
                                                int32_t* ids, int top_k) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int first = 0; first < held; first += 32) {
    const int own = first + lane < held ? candidate_id(room[first + lane]) : 0;
    int place = 0;
    for (int other = 0; other < held; ++other) place += candidate_id(room[other]) < own ? 1 : 0;
    if (first + lane < held) ids[place] = own;
  }
  for (int place = held + lane; place < top_k; place += 32) {
    ids[place] = place == held ? local : -1;
  }
}

}  // namespace msa::cuda
