// What the attention kernels get: the op's params, how the work is cut, and the workspace.
//
// Query rows are cut into chunks and groups into ranges; a pass is one chunk of one range, and a
// plan covers a few chunks. A visit is one (row, group, place in the id list); it is local when its
// block is the row's own, else its block lies wholly before that. An item is up to kItemVisits
// visits of one block, all local or none.
#pragma once

#include "core/params.h"
#include "cuda/device/layout.h"

namespace msa::cuda {

inline constexpr int kItemVisits = 64;
inline constexpr int kVisitSlotBits = 5;  // K is at most 32
inline constexpr int kTileEntries = 64;   // most blocks of a query tile
inline constexpr int kTileRows = 64;      // rows of one wgmma tile: 64 / G queries of G heads
inline constexpr int kPartShift = 2;
inline constexpr int kPartHeads = 1 << kPartShift;  // most heads whose partial rows lie together

/// One unit of gathered work; 16 bytes.
struct Item {
  int32_t begin;        // where the block begins for the copy engine: token, or page
  int32_t shift;        // local visits: position in the block is row in chunk + shift
  int32_t first_visit;  // within the pass
  uint32_t packed;      // see pack_item()
};

/// Where each bin has a list of its own, an item says how many visits it may have at most; how many
/// it has is known when all are counted.
MSA_HOST_DEVICE int visits_in_list(int most, uint32_t first_visit, int list_shift,
                                   uint32_t bin_count) {
  const int left = static_cast<int>(bin_count - (first_visit & ((1u << list_shift) - 1)));
  return left < most ? left : most;
}

/// Visits (at most kItemVisits) | group in range << 8 | tokens that the request has of the block
/// << 16 | whether the visits are local << 31.
MSA_HOST_DEVICE uint32_t pack_item(uint32_t visits, uint32_t group, uint32_t tokens, bool local) {
  return visits | group << 8 | tokens << 16 | static_cast<uint32_t>(local) << 31;
}
MSA_HOST_DEVICE int item_visits(uint32_t packed) { return static_cast<int>(packed & 0xFFu); }
MSA_HOST_DEVICE int item_group(uint32_t packed) { return static_cast<int>(packed >> 8 & 0xFFu); }
MSA_HOST_DEVICE int item_tokens(uint32_t packed) { return static_cast<int>(packed >> 16 & 0xFFu); }
MSA_HOST_DEVICE bool item_is_local(uint32_t packed) { return packed >> 31 != 0; }

/// Adjacent positions of one request and group, computed together; 32 bytes.
struct QueryTile {
  int32_t row;    // of q where query 0 of the tile would stand; may lie before the request
  int16_t first;  // queries [first, last) exist
  int16_t last;
  int32_t position;  // of query 0; a multiple of the tile's queries
  int32_t request;
  int32_t group;
  int32_t num_entries;  // blocks that any query picked; 0: not a tile after all
  int32_t first_key;
  int32_t key_length;
};

/// A block of a query tile: id below 65536 (N / B is), and a bit for each query that picked it.
inline constexpr int kTilePickBits = 16;
MSA_HOST_DEVICE uint32_t pack_tile_entry(uint32_t block, uint32_t picks) {
  return block | picks << kTilePickBits;
}
MSA_HOST_DEVICE int tile_entry_block(uint32_t entry) { return static_cast<int>(entry & 0xFFFFu); }
MSA_HOST_DEVICE uint32_t tile_entry_picks(uint32_t entry) { return entry >> kTilePickBits; }

/// Whether a query tile is taken: its two halves work on `blocks_a` and `blocks_b` blocks, where
/// `visits` lists name a block. A tile and block of gathered rows costs 1.75 of these.
MSA_HOST_DEVICE bool tile_pays(int blocks_a, int blocks_b, int visits, int group_size) {
  return (blocks_a + blocks_b) * kTileRows * 4 <= visits * group_size * 7;
}

struct AttentionKernelParams {
  core::AttentionForwardParams op;
  int group_shift = 0;  // log2(G)
  int chunk_rows = 0;   // query rows of a chunk; a multiple of 32
  int groups_per_pass = 0;
  int num_ranges = 0;         // Hkv / groups_per_pass
  int warp_rows = 32;         // of a plan: few rows are spread over many warps
  int item_visits = 0;        // most visits of an item: kItemVisits or fewer
  int list_shift = 0;         // > 0: each bin has a list of 2^list_shift places of its own
  int merge_blocks = 0;       // thread blocks that merge a pass while the others gather the next
  int partial_buffers = 0;    // passes whose partial rows are kept at once: 1 or 2
  bool queries_stay = false;  // gathered queries are to stay in L2
  bool wide_out = false;      // rows of out can be written 16 bytes at a time
  int64_t plan_begin = 0;     // rows [plan_begin, plan_end) of the current plan
  int64_t plan_end = 0;
  int64_t bins_per_pass = 0;    // capacity: 2 * groups_per_pass * (upper bound of blocks)
  int64_t visits_per_pass = 0;  // capacity
  int64_t items_per_pass = 0;   // capacity
  // Workspace. `passes` are those of one plan.
  int32_t* block_base = nullptr;  // [batch + 1]: blocks of the requests before; last: all blocks
  uint32_t* bins = nullptr;       // [passes, bins_per_pass]: visits of a block, then write cursors
  // [passes, visits_per_pass], or [bins_per_pass, 2^list_shift]: row in chunk << 5 | place in list
  uint32_t* visits = nullptr;
  Item* items = nullptr;         // [passes, items_per_pass]
  int32_t* num_items = nullptr;  // [passes]
  int32_t* tickets = nullptr;    // [passes]
  // [plan rows and as many as a tile can reach past them, Hkv]: bit n: place n is a visit, and
  // see below
  uint64_t* masks = nullptr;
  int32_t* gathers = nullptr;        // [passes]: whether any row is gathered, not tiled
  int32_t* num_tiles = nullptr;      // [1]
  int32_t* tile_ticket = nullptr;    // [1]
  QueryTile* tiles = nullptr;        // [tile_capacity]
  uint32_t* tile_entries = nullptr;  // [tile_capacity, kTileEntries], ascending ids
  int64_t tile_capacity = 0;         // 0: no query tiles
  // Of two passes, when there are more than one: one is written while the other is merged.
  void* partial = nullptr;        // [buffers, rows, groups, G / P, K, P, D], element type; P below
  float* partial_lse2 = nullptr;  // the same without D

  MSA_HOST_DEVICE int group_size() const { return 1 << group_shift; }
  MSA_HOST_DEVICE int tile_queries() const { return 2 * kTileRows >> group_shift; }
  /// log2 of P, the heads whose partial rows of one place lie together. Shifts throughout: a
  /// division here cost the gather kernel 6 % of its time.
  MSA_HOST_DEVICE int part_shift() const {
    return group_shift < kPartShift ? group_shift : kPartShift;
  }
  MSA_HOST_DEVICE int part_heads() const { return 1 << part_shift(); }
  /// Row of partial where a part of a (row, group) begins: K * P rows.
  MSA_HOST_DEVICE int64_t partial_part(int pass, int64_t row_in_chunk, int group_in_range,
                                       int part) const {
    const int64_t list = row_in_chunk * groups_per_pass + group_in_range;
    return (pass & (partial_buffers - 1)) * (visits_per_pass << group_shift) +
           ((((list << (group_shift - part_shift())) + part) * op.block_ids.top_k) << part_shift());
  }
  MSA_HOST_DEVICE int64_t partial_row(int pass, int64_t row_in_chunk, int group_in_range, int place,
                                      int head) const {
    return partial_part(pass, row_in_chunk, group_in_range, head >> part_shift()) +
           (place << part_shift()) + (head & (part_heads() - 1));
  }
};

// Bits of a mask above the 32 places of the id list.
inline constexpr int kLocalShift = 32;                    // 6 bits: 1 + place of the local block
inline constexpr uint64_t kExactBit = uint64_t{1} << 40;  // to be computed by exact_rows.cu
inline constexpr uint64_t kTileBit = uint64_t{1} << 41;   // computed in a query tile, not gathered

/// Visits that are gathered: none for a row of a query tile, whose bit stays.
MSA_HOST_DEVICE uint64_t gathered_visits(uint64_t mask) {
  return (mask & kTileBit) != 0 ? kTileBit : mask & 0xFFFFFFFFu;
}

/// The place of the local block in the list of a mask, or -1.
MSA_HOST_DEVICE int local_place(uint64_t mask) {
  return static_cast<int>(mask >> kLocalShift & 63) - 1;
}

inline constexpr int kIdsAtOnce = 8;

/// Which entries of an id list are visits: bits 0..31, and the place of the local block. The first
/// -1 ends the list; a repeat counts once; other ids below 0 or past the local block are ignored.
MSA_HOST_DEVICE uint64_t classify(const int32_t* ids, int top_k, int local) {
  uint64_t mask = 0;
  int largest = -1;
  bool ended = false;
  for (int base = 0; base < top_k; base += kIdsAtOnce) {
    int32_t held[kIdsAtOnce];  // all loads first: they take long
    for (int i = 0; i < kIdsAtOnce; ++i) held[i] = base + i < top_k ? ids[base + i] : -1;
    for (int i = 0; i < kIdsAtOnce; ++i) {
      const int id = held[i];
      const int n = base + i;
      ended = ended || id == -1;
      if (ended || id < 0 || id > local) continue;
      bool repeated = false;
      if (id <= largest) {  // lists ascend, as a rule
        for (int earlier = 0; earlier < n; ++earlier) repeated = repeated || ids[earlier] == id;
      } else {
        largest = id;
      }
      if (repeated) continue;
      mask |= uint64_t{1} << n;
      if (id == local) mask |= static_cast<uint64_t>(n + 1) << kLocalShift;
    }
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

}  // namespace msa::cuda
