// The K-1 best blocks of each row, kept while the blocks stream by. One thread owns a row. Its list
// lies in shared memory in order of arrival, which is the order of ids; the worst score and its
// slot stay in registers. A better block takes the worst one out, the entries behind it move up by
// a slot, and the new one comes last: so a list is ready to be written at any time.
//
// Ties go to the lower id: a block that only equals the worst score never enters, and of equal
// worst scores the last one leaves. Slots are laid out in fours, [slots / 4][rows][4]: a warp whose
// lanes own adjacent rows reads 16 bytes a lane without a bank conflict. A replacement is about 140
// instructions for 16 slots; it loads all of them before it uses the first.
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

/// Lists of kRows adjacent rows.
template <int kRows>
struct CandidateLists {
  uint32_t* keys;  // [slots / 4, kRows, 4]: ordered_score()
  uint32_t* ids;   // [slots / 4, kRows, 4]
  uint32_t* lses;  // [slots / 4, kRows, 4]: bits of the block's base-two LSE; null: not wanted
  int slots;       // list_slots()

  static __device__ __forceinline__ int place(int slot, int row) {
    return (slot / 4 * kRows + row) * 4 + slot % 4;
  }
};

/// What the thread knows of its list.
struct ListState {
  uint32_t threshold;  // score of the worst entry; kNoCandidate while there is room
  int worst;           // its slot
};

/// Padding first, then room for `num_kept` entries.
template <int kRows>
__device__ __forceinline__ ListState clear_list(const CandidateLists<kRows>& lists, int row,
                                                int num_kept) {
#pragma unroll 1
  for (int slot = 0; slot < lists.slots; ++slot) {
    lists.keys[lists.place(slot, row)] =
        slot < lists.slots - num_kept ? kNeverReplaced : kNoCandidate;
  }
  return {num_kept > 0 ? kNoCandidate : kNeverReplaced, lists.slots - 1};
}

/// Entries of the row: they lie in the last slots.
template <int kRows>
__device__ __forceinline__ int list_count(const CandidateLists<kRows>& lists, int row,
                                          int num_kept) {
  int count = num_kept;
  while (count > 0 && lists.keys[lists.place(lists.slots - count, row)] == kNoCandidate) --count;
  return count;
}

/// Slot `worst` of the row leaves, those behind it move up, `added` comes last. Calls
/// look(words, first) for each kSlotsAtOnce slots from `begin` on as they are afterwards.
template <int kRows, typename Look>
__device__ __forceinline__ void replace_word(uint32_t* words, const CandidateLists<kRows>& lists,
                                             int row, int worst, uint32_t added, int begin,
                                             const Look& look) {
#pragma unroll 1
  for (int first = begin; first < lists.slots; first += kSlotsAtOnce) {
    auto* fours = reinterpret_cast<uint4*>(words + lists.place(first, row));
    uint32_t here[kSlotsAtOnce + 1];
#pragma unroll
    for (int n = 0; n < kSlotsAtOnce / 4; ++n) {
      const uint4 four = fours[n * kRows];
      here[n * 4] = four.x;
      here[n * 4 + 1] = four.y;
      here[n * 4 + 2] = four.z;
      here[n * 4 + 3] = four.w;
    }
    here[kSlotsAtOnce] = added;
    if (first + kSlotsAtOnce < lists.slots) {
      here[kSlotsAtOnce] = words[lists.place(first + kSlotsAtOnce, row)];
    }
    const int leaving = worst - first;
#pragma unroll
    for (int n = 0; n < kSlotsAtOnce; ++n) {
      if (leaving <= n) here[n] = here[n + 1];
    }
#pragma unroll
    for (int n = 0; n < kSlotsAtOnce / 4; ++n) {
      fours[n * kRows] = make_uint4(here[n * 4], here[n * 4 + 1], here[n * 4 + 2], here[n * 4 + 3]);
    }
    look(here, first);
  }
}

/// Puts a block that is better than the worst entry in its place.
template <int kRows>
__device__ __forceinline__ void replace_worst(const CandidateLists<kRows>& lists, int row,
                                              ListState& list, uint32_t key, int id, float lse2) {
  const int worst = list.worst;
  const int from = worst / kSlotsAtOnce * kSlotsAtOnce;
  const auto nothing = [](const uint32_t*, int) {};
  list.threshold = kNeverReplaced;
  replace_word(lists.keys, lists, row, worst, key, 0, [&](const uint32_t* keys, int first) {
    uint32_t least = keys[0];
#pragma unroll
    for (int n = 1; n < kSlotsAtOnce; n += 2) {
      least =
          n + 1 < kSlotsAtOnce ? __vimin3_u32(least, keys[n], keys[n + 1]) : min(least, keys[n]);
    }
    if (least > list.threshold) return;  // equal ones of these slots come later: they leave first
    list.threshold = least;
    int last = 0;
#pragma unroll
    for (int n = 1; n < kSlotsAtOnce; ++n) {
      if (keys[n] == least) last = n;
    }
    list.worst = first + last;
  });
  replace_word(lists.ids, lists, row, worst, static_cast<uint32_t>(id), from, nothing);
  if (lists.lses != nullptr) {
    replace_word(lists.lses, lists, row, worst, __float_as_uint(lse2), from, nothing);
  }
}

}  // namespace msa::cuda
