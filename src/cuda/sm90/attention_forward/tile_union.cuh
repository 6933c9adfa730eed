// Does a tile of neighbouring queries share enough blocks to be computed together? One warp finds
// out, from the lists of the tile alone: lists of other requests, and where chunks or thread blocks
// begin, have no say, or results would depend on them.
//
// The lanes hold the tile's lists. A bitmap of id mod 1024 gives a lower bound of the two halves'
// unions, exact up to 1024 blocks; it turns random picks away after some 250 cycles. Then the union
// is drawn out in ascending order, one minimum of the warp after another, about 100 cycles a block.
#pragma once

#include "cuda/device/sequence.cuh"
#include "cuda/sm90/attention_forward/params.h"

namespace msa::cuda {

inline constexpr int kUnionBitmapWords = 2 * 32;  // of a warp, in shared memory
inline constexpr int kMostHeld = 16;              // ids of a lane: 16 lists of 32 on 32 lanes

/// The tile of `position` (>= 0) of a request; without its union.
__device__ __forceinline__ QueryTile tile_of(const AttentionKernelParams& p, const Request& request,
                                             int64_t request_index, int group, int64_t position) {
  const int64_t queries = p.tile_queries();
  const int64_t begin = position & -queries;  // a power of two
  const int64_t first_position = request.key_length - request.num_rows;
  const int64_t first = (first_position > 0 ? first_position : 0) - begin;
  const int64_t last = request.key_length - begin;
  QueryTile tile;
  tile.row = static_cast<int>(request.first_row + begin - first_position);
  tile.first = static_cast<int16_t>(first > 0 ? first : 0);
  tile.last = static_cast<int16_t>(last < queries ? last : queries);
  tile.position = static_cast<int>(begin);
  tile.request = static_cast<int>(request_index);
  tile.group = group;
  tile.num_entries = 0;
  tile.first_key = static_cast<int>(request.first_key);
  tile.key_length = static_cast<int>(request.key_length);
  return tile;
}

/// Called by whole warps. True when the tile pays; then lane n holds entries n and n + 32 of
/// tile.num_entries.
__device__ __forceinline__ bool find_union(const AttentionKernelParams& p, QueryTile& tile,
                                           uint32_t* bitmap, uint32_t (&entries)[2]) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int queries = p.tile_queries();
  const int lanes = 32 / queries;  // of a list
  const int query = lane / lanes;
  const int top_k = static_cast<int>(p.op.block_ids.top_k);
  const int held_count = (top_k + lanes - 1) / lanes;
  const int begin = lane % lanes * held_count;
  const int local = tile.position / static_cast<int>(p.op.block_size);
  if (local > 0xFFFF) return false;

  // 1. The valid ids of this lane's part of a list.
  const bool exists = query >= tile.first && query < tile.last;
  const int32_t* ids = p.op.block_ids.data + tile.group * p.op.block_ids.head_stride +
                       (tile.row + (exists ? query : tile.first)) * p.op.block_ids.token_stride;
  uint32_t held[kMostHeld];
  int end = top_k;
#pragma unroll
  for (int i = 0; i < kMostHeld; ++i) {
    const int at = begin + i;
    const bool mine = exists && i < held_count && at < top_k;
    held[i] = mine ? static_cast<uint32_t>(ids[at]) : ~0u;
  }
#pragma unroll
  for (int i = kMostHeld - 1; i >= 0; --i) {
    if (i < held_count && held[i] == ~0u && begin + i < end) end = begin + i;
  }
  for (int step = 1; step < lanes; step *= 2) {
    const int other = __shfl_xor_sync(~0u, end, step);
    if (other < end) end = other;
  }
  int valid = 0;
  bitmap[lane] = bitmap[lane + 32] = 0;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kMostHeld; ++i) {
    if (i >= held_count) break;
    if (begin + i >= end || held[i] > static_cast<uint32_t>(local)) held[i] = ~0u;
    if (held[i] == ~0u) continue;
    ++valid;
    atomicOr(bitmap + (query < queries / 2 ? 0 : 32) + held[i] / 32 % 32, 1u << held[i] % 32);
  }
  __syncwarp();

  // 2. Lower bound.
  const int least =
      static_cast<int>(__reduce_add_sync(~0u, __popc(bitmap[lane]) + __popc(bitmap[lane + 32])));
  const int most_visits = static_cast<int>(__reduce_add_sync(~0u, valid));
  __syncwarp();  // before the bitmap is cleared for the next tile
  if (least == 0 || !tile_pays(least, 0, most_visits, p.group_size())) return false;

  // 3. The union, ascending.
  const uint32_t half_picks = (1u << queries / 2) - 1;
  int blocks_a = 0;
  int blocks_b = 0;
  int visits = 0;
  int count = 0;
  while (true) {
    uint32_t lowest = ~0u;
#pragma unroll
    for (int i = 0; i < kMostHeld; ++i) {
      if (i >= held_count) break;
      lowest = held[i] < lowest ? held[i] : lowest;
    }
    lowest = __reduce_min_sync(~0u, lowest);
    if (lowest == ~0u) break;
    if (count == kTileEntries) return false;
    bool mine = false;
#pragma unroll
    for (int i = 0; i < kMostHeld; ++i) {
      if (i >= held_count) break;
      if (held[i] != lowest) continue;
      held[i] = ~0u;  // a repeat counts once
      mine = true;
    }
    const uint32_t picks = __reduce_or_sync(~0u, mine ? 1u << query : 0u);
    if (lane == count) entries[0] = pack_tile_entry(lowest, picks);
    if (lane + 32 == count) entries[1] = pack_tile_entry(lowest, picks);
    blocks_a += (picks & half_picks) != 0;
    blocks_b += (picks & ~half_picks) != 0;
    visits += __popc(picks);
    ++count;
  }
  if (!tile_pays(blocks_a, blocks_b, visits, p.group_size())) return false;
  tile.num_entries = count;
  return true;
}

}  // namespace msa::cuda
