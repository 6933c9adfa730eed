// The K-1 best blocks of each row, kept while the blocks stream by. One thread owns a row. Its list
// lies in shared memory in order of arrival, which is the order of ids; the worst score and its
// slot stay in registers. While there is room, a block is stored and nothing else. Then a better
// block takes the worst one out, the entries behind it move up by a slot, and the new one comes
// last: so a list is ready to be written at any time.
//
// Ties go to the lower id: a block that only equals the worst score never enters, and of equal
// worst scores the last one leaves. Slots are laid out in fours, [slots / 4][rows][4]: a warp whose
// lanes own adjacent rows reads 16 bytes a lane without a bank conflict. A replacement is about 140
// instructions for 16 slots; it loads all of them before it uses the first. Host and device run
// the same code, so that it is tested on a machine without a GPU.
#pragma once

#include "cuda/device/layout.h"

#ifdef __CUDA_ARCH__
#define MSA_UNROLL _Pragma("unroll")
#define MSA_DO_NOT_UNROLL _Pragma("unroll 1")
#else
#define MSA_UNROLL
#define MSA_DO_NOT_UNROLL
#endif

namespace msa::cuda {

/// Lists of kRows adjacent rows.
template <int kRows>
struct CandidateLists {
  uint32_t* keys;  // [slots / 4, kRows, 4]: ordered_score()
  uint32_t* ids;   // [slots / 4, kRows, 4]
  uint32_t* lses;  // [slots / 4, kRows, 4]: bits of the block's base-two LSE; null: not wanted
  int slots;       // list_slots(num_kept)
  int num_kept;    // K-1: entries are in the last `num_kept` slots, from the first of those on

  static MSA_HOST_DEVICE int place(int slot, int row) {
    return (slot / 4 * kRows + row) * 4 + slot % 4;
  }
  MSA_HOST_DEVICE int first_slot() const { return slots - num_kept; }
};

/// What the thread knows of its list.
struct ListState {
  uint32_t threshold;  // score of the worst entry; kNoCandidate while there is room
  int worst;           // its slot; while there is room, the slot of the next entry
};

struct alignas(16) FourWords {
  uint32_t words[4];
};

MSA_HOST_DEVICE uint32_t least_of(uint32_t a, uint32_t b, uint32_t c) {
#ifdef __CUDA_ARCH__
  return __vimin3_u32(a, b, c);
#else
  const uint32_t least = a < b ? a : b;
  return least < c ? least : c;
#endif
}

/// Slots before the first entry hold kNeverReplaced, those after the last one kNoCandidate.
template <int kRows>
MSA_HOST_DEVICE ListState clear_list(const CandidateLists<kRows>& lists, int row) {
  MSA_DO_NOT_UNROLL
  for (int slot = 0; slot < lists.slots; ++slot) {
    lists.keys[lists.place(slot, row)] = slot < lists.first_slot() ? kNeverReplaced : kNoCandidate;
  }
  return {lists.num_kept > 0 ? kNoCandidate : kNeverReplaced, lists.first_slot()};
}

template <int kRows>
MSA_HOST_DEVICE int list_count(const CandidateLists<kRows>& lists, const ListState& list) {
  return list.threshold == kNoCandidate ? list.worst - lists.first_slot() : lists.num_kept;
}

/// Calls use(words, first) for each kSlotsAtOnce slots of the row from `begin` on, held in
/// registers; words[kSlotsAtOnce] is the slot after them, or `added` after the last one.
template <int kRows, typename Use>
MSA_HOST_DEVICE void for_slots(const uint32_t* list_words, const CandidateLists<kRows>& lists,
                               int row, int begin, uint32_t added, const Use& use) {
  MSA_DO_NOT_UNROLL
  for (int first = begin; first < lists.slots; first += kSlotsAtOnce) {
    const auto* fours = reinterpret_cast<const FourWords*>(list_words + lists.place(first, row));
    uint32_t words[kSlotsAtOnce + 1];
    MSA_UNROLL
    for (int n = 0; n < kSlotsAtOnce / 4; ++n) {
      const FourWords four = fours[int64_t{n} * kRows];
      MSA_UNROLL
      for (int i = 0; i < 4; ++i) words[n * 4 + i] = four.words[i];
    }
    words[kSlotsAtOnce] = added;
    if (first + kSlotsAtOnce < lists.slots) {
      words[kSlotsAtOnce] = list_words[lists.place(first + kSlotsAtOnce, row)];
    }
    use(words, first);
  }
}

/// Of the slots looked at so far, the worst score and its last slot.
MSA_HOST_DEVICE void look_for_worst(ListState& list, const uint32_t* keys, int first) {
  uint32_t least = keys[0];
  MSA_UNROLL
  for (int n = 1; n + 1 < kSlotsAtOnce; n += 2) least = least_of(least, keys[n], keys[n + 1]);
  least = least_of(least, keys[kSlotsAtOnce - 1], keys[kSlotsAtOnce - 1]);
  if (least > list.threshold) return;  // equal ones of these slots come later: they leave first
  list.threshold = least;
  int last = 0;
  MSA_UNROLL
  for (int n = 1; n < kSlotsAtOnce; ++n) {
    if (keys[n] == least) last = n;
  }
  list.worst = first + last;
}

/// Stores a block while there is room.
template <int kRows>
MSA_HOST_DEVICE void append_entry(const CandidateLists<kRows>& lists, int row, ListState& list,
                                  uint32_t key, int id, uint32_t lse2_bits) {
  const int place = lists.place(list.worst, row);
  lists.keys[place] = key;
  lists.ids[place] = static_cast<uint32_t>(id);
  if (lists.lses != nullptr) lists.lses[place] = lse2_bits;
  if (++list.worst < lists.slots) return;
  list.threshold = kNeverReplaced;
  for_slots(lists.keys, lists, row, 0, 0,
            [&](const uint32_t* keys, int first) { look_for_worst(list, keys, first); });
}

/// Slot `worst` of the row leaves, those behind it move up, `added` comes last. Calls
/// look(words, first) for each kSlotsAtOnce slots from `begin` on as they are afterwards.
template <int kRows, typename Look>
MSA_HOST_DEVICE void replace_word(uint32_t* list_words, const CandidateLists<kRows>& lists, int row,
                                  int worst, uint32_t added, int begin, const Look& look) {
  for_slots(list_words, lists, row, begin, added, [&](uint32_t* words, int first) {
    const int leaving = worst - first;
    MSA_UNROLL
    for (int n = 0; n < kSlotsAtOnce; ++n) {
      if (leaving <= n) words[n] = words[n + 1];
    }
    auto* fours = reinterpret_cast<FourWords*>(list_words + lists.place(first, row));
    MSA_UNROLL
    for (int n = 0; n < kSlotsAtOnce / 4; ++n) {
      const uint32_t* four = words + int64_t{n} * 4;
      fours[int64_t{n} * kRows] = {four[0], four[1], four[2], four[3]};
    }
    look(words, first);
  });
}

/// Puts a block that is better than the worst entry of a full list in its place.
template <int kRows>
MSA_HOST_DEVICE void replace_worst(const CandidateLists<kRows>& lists, int row, ListState& list,
                                   uint32_t key, int id, uint32_t lse2_bits) {
  const int worst = list.worst;
  const int from = worst / kSlotsAtOnce * kSlotsAtOnce;
  const auto nothing = [](const uint32_t*, int) {};
  list.threshold = kNeverReplaced;
  replace_word(lists.keys, lists, row, worst, key, 0,
               [&](const uint32_t* keys, int first) { look_for_worst(list, keys, first); });
  replace_word(lists.ids, lists, row, worst, static_cast<uint32_t>(id), from, nothing);
  if (lists.lses != nullptr) {
    replace_word(lists.lses, lists, row, worst, lse2_bits, from, nothing);
  }
}

}  // namespace msa::cuda
