// What the attention kernels get: the op's params, how the work is cut, and the workspace.
//
// Query rows are cut into chunks and groups into ranges; a pass is one chunk of one range, and a
// plan covers a few chunks. A visit is one (row, group, place in the id list) whose block lies
// wholly before the row's local block; an item is up to kItemVisits visits of one block.
#pragma once

#include "core/params.h"
#include "cuda/device/layout.h"

namespace msa::cuda {

inline constexpr int kItemVisits = 128;
inline constexpr int kVisitSlotBits = 5;  // K is at most 32
inline constexpr int kTileRows = 64;      // rows of one wgmma tile: 64 / G queries of G heads

/// One unit of gathered work; 16 bytes.
struct Item {
  int32_t token;  // where the block begins for the copy engine
  int32_t page;
  int32_t first_visit;  // within the pass
  uint32_t count;       // visits | group within the range << 16
};

struct AttentionKernelParams {
  core::AttentionForwardParams op;
  int group_shift = 0;  // log2(G)
  int chunk_rows = 0;   // query rows of a chunk; a multiple of 32
  int groups_per_pass = 0;
  int num_ranges = 0;      // Hkv / groups_per_pass
  int tile_queries = 0;    // positions of a combine tile; divides B
  int64_t plan_begin = 0;  // rows [plan_begin, plan_end) of the current plan
  int64_t plan_end = 0;
  int64_t bins_per_pass = 0;    // capacity: groups_per_pass * (upper bound of blocks), times 8
  int64_t visits_per_pass = 0;  // capacity
  int64_t items_per_pass = 0;   // capacity
  // Workspace. `passes` are those of one plan.
  int32_t* block_base = nullptr;  // [batch + 1]: blocks of the requests before; last: all blocks
  uint32_t* bins = nullptr;       // [passes, bins_per_pass]: visits of a block, then write cursors
  uint32_t* visits = nullptr;     // [passes, visits_per_pass]: row in chunk << 5 | place in list
  Item* items = nullptr;          // [passes, items_per_pass]
  int32_t* num_items = nullptr;   // [passes]
  int32_t* tickets = nullptr;     // [passes]
  uint64_t* masks = nullptr;      // [plan rows, Hkv]: bit n: place n is a visit; see below
  void* partial = nullptr;        // [chunk_rows, groups_per_pass, K, G, D], element type
  float* partial_lse2 = nullptr;  // [chunk_rows, groups_per_pass, K, G]

  MSA_HOST_DEVICE int group_size() const { return 1 << group_shift; }
  /// Row of partial, in heads 0 of a group: add the head and multiply by D.
  MSA_HOST_DEVICE int64_t partial_row(int64_t row_in_chunk, int group_in_range, int place) const {
    return ((row_in_chunk * groups_per_pass + group_in_range) * op.block_ids.top_k + place)
           << group_shift;
  }
};

// Bits of a mask above the 32 places of the id list.
inline constexpr uint64_t kLocalBit = uint64_t{1} << 32;  // the local block is listed
inline constexpr uint64_t kExactBit = uint64_t{1} << 33;  // to be computed by exact_rows.cu

/// Which entries of an id list are visits: bits 0..31, and kLocalBit. The first -1 ends the list; a
/// repeat counts once; other ids below 0 or past the local block are ignored.
MSA_HOST_DEVICE uint64_t classify(const int32_t* ids, int top_k, int local) {
  uint64_t mask = 0;
  int largest = -1;
  for (int n = 0; n < top_k; ++n) {
    const int id = ids[n];
    if (id == -1) break;
    if (id < 0 || id > local) continue;
    bool repeated = false;
    if (id <= largest) {  // lists ascend, as a rule
      for (int earlier = 0; earlier < n; ++earlier) repeated = repeated || ids[earlier] == id;
    } else {
      largest = id;
    }
    if (repeated) continue;
    mask |= id == local ? kLocalBit : uint64_t{1} << n;
  }
  return mask;
}

/// A visit as it is stored: the row within its chunk and the place in its id list.
MSA_HOST_DEVICE uint32_t pack_visit(uint32_t row_in_chunk, uint32_t place) {
  return row_in_chunk << kVisitSlotBits | place;
}
MSA_HOST_DEVICE uint32_t visit_row(uint32_t visit) { return visit >> kVisitSlotBits; }
MSA_HOST_DEVICE uint32_t visit_place(uint32_t visit) {
  return visit & ((1u << kVisitSlotBits) - 1);
}

/// Aligned runs of `length` positions that [first, last] touches; positions may be negative.
MSA_HOST_DEVICE int64_t num_runs(int64_t first, int64_t last, int64_t length) {
  return floor_div(last, length) - floor_div(first, length) + 1;
}
/// First position of run `index` of those.
MSA_HOST_DEVICE int64_t run_begin(int64_t first, int64_t index, int64_t length) {
  return (floor_div(first, length) + index) * length;
}

}  // namespace msa::cuda
