// The reverse index: for each block, which rows visit it. Built on the device from the block ids.
//
//   reset    zero the counts of all bins; a bin is (pass, local or not, group, request, block)
//   count    each row: which of its ids are visits (mask), one count in the bin of each; tiles of
//            neighbouring rows that share blocks are listed apart (tile_union.cuh), not counted
//   scan     one thread block a pass: bins to offsets; cut bins into items of few visits
//   scatter  each row again: its visits into the bins' lists
//
// Order inside a list follows the atomics and changes between runs; results do not, because every
// visit is computed alone and written to a place of its own. Ids: a repeat counts once, an id below
// 0 or past the row's local block is ignored, the first -1 ends the list. Rows that visit their own
// block go to bins apart, the first of all: they need a mask, and their lists are long. Bound: 4 K
// bytes of ids a row and group, read twice.
#include "cuda/device/overlap.cuh"
#include "cuda/device/sequence.cuh"
#include "cuda/sm90/attention_forward/launch.h"
#include "cuda/sm90/attention_forward/tile_union.cuh"

namespace msa::cuda {
namespace {

constexpr int kRowThreads = 128;
constexpr int kScanThreads = 1024;
constexpr int kScanBins = 4;  // of a thread, when there are many
constexpr int kResetThreads = 256;

__device__ __forceinline__ int64_t request_blocks(const AttentionKernelParams& p, int64_t r) {
  return ceil_div(load_request(p.op.sequences, p.op.k.num_rows, r).key_length, p.op.block_size);
}

__device__ __forceinline__ int64_t pass_count(const AttentionKernelParams& p) {
  const auto rows = static_cast<uint32_t>(p.plan_end - p.plan_begin);
  const auto chunk = static_cast<uint32_t>(p.chunk_rows);
  return int64_t{(rows + chunk - 1) / chunk} * p.num_ranges;
}

/// Bins of a pass that exist: this many for local visits, and as many for the others. Offsets that
/// overlap can claim more blocks than the tensors have.
__device__ __forceinline__ int64_t used_bins(const AttentionKernelParams& p, int64_t total_blocks) {
  const int64_t wanted = total_blocks * p.groups_per_pass;
  return wanted < p.bins_per_pass / 2 ? wanted : p.bins_per_pass / 2;
}

__global__ void __launch_bounds__(kResetThreads)
    attention_plan_reset(const __grid_constant__ AttentionKernelParams p) {
  const int64_t batch = p.op.sequences.batch;
  __shared__ int64_t total_blocks;
  allow_next_kernel();
  wait_for_previous_kernel();
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x);
    int64_t before = 0;
    for (int64_t base = 0; base < batch; base += 32) {
      const int mine = base + lane < batch ? static_cast<int>(request_blocks(p, base + lane)) : 0;
      int sum = mine;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int below = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += below;
      }
      if (blockIdx.x == 0 && base + lane < batch) {
        p.block_base[base + lane] = static_cast<int32_t>(before + sum - mine);
      }
      before += __shfl_sync(~0u, sum, 31);
    }
    if (lane == 0) total_blocks = before;
    if (lane == 0 && blockIdx.x == 0) p.block_base[batch] = static_cast<int32_t>(before);
  }
  __syncthreads();
  const auto used = static_cast<uint32_t>(2 * used_bins(p, total_blocks));
  const uint32_t total = static_cast<uint32_t>(pass_count(p)) * used;  // kPlanBytes bounds it
  const uint32_t step = gridDim.x * kResetThreads;
  for (uint32_t i = blockIdx.x * kResetThreads + threadIdx.x; i < total; i += step) {
    p.bins[i / used * p.bins_per_pass + i % used] = 0;
  }
  if (blockIdx.x > 0) return;
  for (int64_t pass = threadIdx.x; pass < pass_count(p); pass += kResetThreads) {
    p.gathers[pass] = 0;
    p.num_items[pass] = p.tickets[pass] = 0;
  }
  if (p.tile_capacity == 0) return;
  if (threadIdx.x == 0) *p.num_tiles = *p.tile_ticket = 0;
  // Rows past the plan that its last tile may reach.
  const int64_t past = (p.plan_end - p.plan_begin) * p.op.num_kv_heads;
  for (int64_t i = threadIdx.x; i < p.tile_queries() * p.op.num_kv_heads; i += kResetThreads) {
    p.masks[past + i] = 0;
  }
}

/// The request of lane `from`, for all lanes.
__device__ __forceinline__ Request broadcast(const Request& request, int from) {
  return {__shfl_sync(~0u, request.first_row, from), __shfl_sync(~0u, request.num_rows, from),
          __shfl_sync(~0u, request.first_key, from), __shfl_sync(~0u, request.key_length, from)};
}

/// Tiles that a thread block lists: all at once, so that neighbours follow each other. They are
/// then computed at the same time and find each other's blocks in L2.
struct ListedTiles {
  static constexpr int kRoom = 24;  // 16 begin in the rows of a thread block, as a rule
  int count;
  int first;  // where they begin in the list of all
  QueryTile tiles[kRoom];
  uint32_t entries[kRoom][kTileEntries];
};

/// Lists the tiles that begin in the warp's rows and pay. True for lanes whose row is in a tile
/// that pays, wherever that begins. `placed`: the row has a position.
__device__ __forceinline__ bool list_tiles(const AttentionKernelParams& p, const Request& request,
                                           int64_t request_index, int group, int64_t row,
                                           bool placed, uint32_t* bitmap, ListedTiles& listed) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t position = placed ? request.position(row) : 0;
  const bool begins =
      placed && (lane == 0 || (position & (p.tile_queries() - 1)) == 0 || row == request.first_row);
  bool tiled = false;
  for (uint32_t heads = __ballot_sync(~0u, begins); heads != 0; heads &= heads - 1) {
    const int head = __ffs(static_cast<int>(heads)) - 1;
    const int64_t head_row = __shfl_sync(~0u, row, head);
    QueryTile tile = tile_of(p, broadcast(request, head), __shfl_sync(~0u, request_index, head),
                             group, __shfl_sync(~0u, position, head));
    uint32_t entries[2] = {};
    if (!find_union(p, tile, bitmap, entries)) continue;
    tiled = tiled || (placed && row >= tile.row + tile.first && row < tile.row + tile.last);
    if (tile.row + tile.first != head_row) continue;  // the rows before list it
    int slot = 0;
    if (lane == 0) slot = atomicAdd(&listed.count, 1);
    slot = __shfl_sync(~0u, slot, 0);
    QueryTile* to = listed.tiles + slot;
    uint32_t* to_entries = listed.entries[slot];
    if (slot >= ListedTiles::kRoom) {
      if (lane == 0) slot = atomicAdd(p.num_tiles, 1);
      slot = __shfl_sync(~0u, slot, 0);
      to = p.tiles + slot;
      to_entries = p.tile_entries + int64_t{slot} * kTileEntries;
    }
    if (lane == 0) *to = tile;
    if (lane < tile.num_entries) to_entries[lane] = entries[0];
    if (lane + 32 < tile.num_entries) to_entries[lane + 32] = entries[1];
    const int64_t reached = int64_t{tile.row} + lane;
    if (lane >= tile.first && lane < tile.last && reached >= p.plan_end) {
      const int32_t* ids = p.op.block_ids.data + group * p.op.block_ids.head_stride +
                           reached * p.op.block_ids.token_stride;
      p.masks[(reached - p.plan_begin) * p.op.num_kv_heads + group] =
          kTileBit | classify(ids, static_cast<int>(p.op.block_ids.top_k),
                              tile.position / static_cast<int>(p.op.block_size));
    }
  }
  return tiled;
}

/// The thread block's tiles to their places in the list of all.
__device__ __forceinline__ void write_tiles(const AttentionKernelParams& p, ListedTiles& listed) {
  __syncthreads();
  const int count = listed.count < ListedTiles::kRoom ? listed.count : ListedTiles::kRoom;
  if (count == 0) return;
  if (threadIdx.x == 0) listed.first = atomicAdd(p.num_tiles, count);
  __syncthreads();
  for (int n = static_cast<int>(threadIdx.x); n < count; n += kRowThreads) {
    p.tiles[listed.first + n] = listed.tiles[n];
  }
  for (int i = static_cast<int>(threadIdx.x); i < count * kTileEntries; i += kRowThreads) {
    const int n = i / kTileEntries;
    const int entry = i % kTileEntries;
    if (entry >= listed.tiles[n].num_entries) continue;
    p.tile_entries[int64_t{listed.first + n} * kTileEntries + entry] = listed.entries[n][entry];
  }
}

/// What the rows do at their bins.
enum class Step {
  kCount,    // count their visits
  kScatter,  // put them into lists one behind the other, whose begins are known by then
  kList      // put them into lists of their bins' own, and make items: the whole plan at once
};

/// Item of a bin's list from `first_visit` on. Its visits are counted when it is taken: others may
/// yet come.
__device__ __forceinline__ Item open_item(const AttentionKernelParams& p, const Request& request,
                                          int64_t request_index, int group, int64_t block,
                                          bool local, uint32_t first_visit) {
  const int2 place =
      block_coordinates(p.op.sequences, request_index, request.first_key, block, p.op.block_size);
  const int64_t begin = block * p.op.block_size;
  const int64_t left = request.key_length - begin;
  return {p.op.sequences.page_table != nullptr ? place.y : place.x,
          static_cast<int32_t>(request.position(p.plan_begin) - begin),
          static_cast<int32_t>(first_visit),
          pack_item(static_cast<uint32_t>(p.item_visits), static_cast<uint32_t>(group),
                    static_cast<uint32_t>(left < p.op.block_size ? left : p.op.block_size), local)};
}

template <Step kStep>
__global__ void __launch_bounds__(kRowThreads, 5)
    attention_plan_rows(const __grid_constant__ AttentionKernelParams p) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int group = static_cast<int>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int top_k = static_cast<int>(p.op.block_ids.top_k);
  const int warp = static_cast<int>(blockIdx.x * (kRowThreads / 32) + threadIdx.x / 32);
  const int64_t row = p.plan_begin + int64_t{warp} * p.warp_rows + lane;
  const bool exists = lane < p.warp_rows && row < p.plan_end;
  const int32_t* ids = p.op.block_ids.data + group * p.op.block_ids.head_stride +
                       (exists ? row : p.plan_begin) * p.op.block_ids.token_stride;

  // Where the row stands, and which of its ids count.
  const int64_t total_blocks = p.block_base[p.op.sequences.batch];
  const int64_t half = used_bins(p, total_blocks);
  int64_t bin_in_pass = group % p.groups_per_pass * total_blocks;
  const auto in_plan = static_cast<int>(row - p.plan_begin);
  const int64_t pass = in_plan / p.chunk_rows * p.num_ranges + group / p.groups_per_pass;
  uint64_t mask = 0;
  uint64_t* stored = p.masks + (exists ? in_plan : 0) * p.op.num_kv_heads + group;
  const int64_t request_index = exists ? find_request(p.op.sequences, row) : 0;
  if (exists && request_index < p.op.sequences.batch) bin_in_pass += p.block_base[request_index];
  Request request = {};
  if constexpr (kStep == Step::kScatter) {
    if (exists) mask = *stored;
    if ((mask & kTileBit) != 0) mask = 0;
  } else {
    bool placed = false;
    if (exists) {
      request = load_request(p.op.sequences, p.op.k.num_rows, request_index);
      const int64_t position = request.position(row);
      placed = position >= 0 && position < request.key_length;
      if (placed) {
        const int local = static_cast<int>(position) / static_cast<int>(p.op.block_size);
        mask = classify(ids, top_k, local);
        if (bin_in_pass + local >= half) mask = 0;
      }
    }
    bool tiled = false;
    if (p.tile_capacity > 0) {
      __shared__ uint32_t bitmaps[kRowThreads / 32][kUnionBitmapWords];
      __shared__ ListedTiles listed;
      if (threadIdx.x == 0) listed.count = 0;
      __syncthreads();
      tiled = list_tiles(p, request, request_index, group, row, placed, bitmaps[threadIdx.x / 32],
                         listed);
      write_tiles(p, listed);
    }
    if (exists) *stored = mask | (tiled ? kTileBit : 0);
    if (tiled) mask = 0;
    if (__any_sync(~0u, exists && !tiled) && lane == 0) p.gathers[pass] = 1;
  }

  // One bin for each visit; lanes of a warp that share a bin make one atomic.
  const int64_t first_bin = pass * p.bins_per_pass + bin_in_pass;
  const int own = local_place(mask);
  // Last places first: the local block, the most visited, is there, and its items come early.
  for (int base = (top_k - 1) / kIdsAtOnce * kIdsAtOnce; base >= 0; base -= kIdsAtOnce) {
    // The atomics of several places are in flight before the first result is needed.
    uint32_t peers[kIdsAtOnce];
    uint32_t at[kIdsAtOnce] = {};
#pragma unroll
    for (int i = 0; i < kIdsAtOnce; ++i) {
      const int n = base + i;
      const bool visits = n < top_k && (mask >> n & 1) != 0;
      const int64_t bin = visits ? first_bin + ids[n] + (n == own ? 0 : half) : -1;
      peers[i] = __match_any_sync(~0u, static_cast<unsigned long long>(bin));
      if (visits && lane == __ffs(static_cast<int>(peers[i])) - 1) {
        at[i] = atomicAdd(&p.bins[bin], static_cast<uint32_t>(__popc(peers[i])));
      }
    }
    if constexpr (kStep != Step::kCount) {
      uint32_t opened = 0;  // places of this lane that begin an item
      int slot = 0;
#pragma unroll
      for (int i = 0; i < kIdsAtOnce; ++i) {
        const int n = base + i;
        const bool visits = n < top_k && (mask >> n & 1) != 0;
        at[i] = __shfl_sync(~0u, at[i], __ffs(static_cast<int>(peers[i])) - 1) +
                static_cast<uint32_t>(__popc(peers[i] & ((1u << lane) - 1)));
        if constexpr (kStep == Step::kList) {
          if (visits && (at[i] & (static_cast<uint32_t>(p.item_visits) - 1)) == 0)
            opened |= 1u << i;
          const auto bin =
              static_cast<uint32_t>(first_bin + (visits ? ids[n] : 0) + (n == own ? 0 : half));
          at[i] += bin << p.list_shift;
        }
        if (visits) {
          p.visits[pass * p.visits_per_pass + at[i]] =
              pack_visit(static_cast<uint32_t>(in_plan % p.chunk_rows), static_cast<uint32_t>(n));
        }
      }
      if constexpr (kStep == Step::kList) {
        int before = __popc(opened);
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
          const int below = __shfl_up_sync(~0u, before, step);
          if (lane >= step) before += below;
        }
        if (lane == 31 && before > 0) slot = atomicAdd(p.num_items, before);
        slot = __shfl_sync(~0u, slot, 31) + before - __popc(opened);
#pragma unroll
        for (int i = 0; i < kIdsAtOnce; ++i) {
          if ((opened >> i & 1) == 0) continue;
          p.items[slot++] = open_item(p, request, request_index, group % p.groups_per_pass,
                                      ids[base + i], base + i == own, at[i]);
        }
      }
    }
  }
}

/// Exclusive sum over the thread block of (visits << 32 | items); `total` gets the sum of all.
__device__ __forceinline__ uint64_t block_scan(uint64_t value, uint64_t* warp_sums,
                                               uint64_t* total) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  uint64_t sum = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint64_t below = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += below;
  }
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    uint64_t all = warp_sums[lane];
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const uint64_t below = __shfl_up_sync(~0u, all, step);
      if (lane >= step) all += below;
    }
    warp_sums[lane] = all;
  }
  __syncthreads();
  const uint64_t before = warp > 0 ? warp_sums[warp - 1] : 0;
  *total = warp_sums[31];
  __syncthreads();
  return before + sum - value;
}

/// Into how many items `count` visits are cut. 32 bits: a 64-bit division is a call.
__device__ __forceinline__ uint32_t items_of(const AttentionKernelParams& p, uint32_t count) {
  const auto most = static_cast<uint32_t>(p.item_visits);
  return (count + most - 1) / most;
}

/// The items of `bin`; the first `half` bins are those of local visits.
__device__ __forceinline__ void write_items(const AttentionKernelParams& p, int64_t pass,
                                            int64_t bin, int64_t half, int64_t total_blocks,
                                            uint32_t count, uint32_t first_visit,
                                            uint32_t first_item) {
  // The request that owns the block: the last whose blocks begin at or before it. Requests without
  // keys share their begin with the next one, which is then the later.
  const int64_t batch = p.op.sequences.batch;
  const bool local = bin < half;
  const auto in_half = static_cast<uint32_t>(local ? bin : bin - half);
  const auto blocks = static_cast<uint32_t>(total_blocks);
  const int64_t block = in_half % blocks;
  const uint32_t group = in_half / blocks;
  int64_t low = 0;
  int64_t high = batch - 1;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (p.block_base[middle] <= block) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const Request request = load_request(p.op.sequences, p.op.k.num_rows, low);
  const int64_t block_of_request = block - p.block_base[low];
  const int2 place =
      block_coordinates(p.op.sequences, low, request.first_key, block_of_request, p.op.block_size);
  const int64_t begin_position = block_of_request * p.op.block_size;
  const int64_t left = request.key_length - begin_position;
  const int64_t chunk_begin =
      p.plan_begin + int64_t{static_cast<int>(pass) / p.num_ranges} * p.chunk_rows;
  const auto shift = static_cast<int32_t>(request.position(chunk_begin) - begin_position);
  const auto tokens = static_cast<uint32_t>(left < p.op.block_size ? left : p.op.block_size);
  const uint32_t pieces = items_of(p, count);
  Item* items = p.items + pass * p.items_per_pass + first_item;
  for (uint32_t piece = 0; piece < pieces; ++piece) {
    const uint32_t begin = piece_begin(count, pieces, piece);
    const uint32_t end = piece_begin(count, pieces, piece + 1);
    items[piece] = {p.op.sequences.page_table != nullptr ? place.y : place.x, shift,
                    static_cast<int32_t>(first_visit + begin),
                    pack_item(end - begin, group, tokens, local)};
  }
}

__global__ void __launch_bounds__(kScanThreads)
    attention_plan_scan(const __grid_constant__ AttentionKernelParams p) {
  __shared__ uint64_t warp_sums[32];
  allow_next_kernel();
  wait_for_previous_kernel();
  const int64_t pass = blockIdx.x;
  const int64_t total_blocks = p.block_base[p.op.sequences.batch];
  const int64_t half = used_bins(p, total_blocks);
  const int64_t num_bins = 2 * half;
  uint32_t* bins = p.bins + pass * p.bins_per_pass;
  uint64_t carry = 0;  // visits << 32 | items
  const int own_bins = num_bins <= kScanThreads ? 1 : kScanBins;
  for (int64_t base = 0; base < num_bins; base += kScanThreads * own_bins) {
    const int64_t first = base + static_cast<int64_t>(threadIdx.x) * own_bins;
    uint32_t counts[kScanBins];
    uint64_t mine = 0;
#pragma unroll
    for (int i = 0; i < kScanBins; ++i) {
      counts[i] = i < own_bins && first + i < num_bins ? bins[first + i] : 0;
      mine += static_cast<uint64_t>(counts[i]) << 32 | items_of(p, counts[i]);
    }
    uint64_t total = 0;
    uint64_t at = carry + block_scan(mine, warp_sums, &total);
    carry += total;
#pragma unroll
    for (int i = 0; i < kScanBins; ++i) {
      if (i < own_bins && first + i < num_bins) bins[first + i] = static_cast<uint32_t>(at >> 32);
      if (counts[i] == 0) continue;
      write_items(p, pass, first + i, half, total_blocks, counts[i],
                  static_cast<uint32_t>(at >> 32), static_cast<uint32_t>(at));
      at += static_cast<uint64_t>(counts[i]) << 32 | items_of(p, counts[i]);
    }
  }
  if (threadIdx.x == 0) {
    p.num_items[pass] = static_cast<int32_t>(carry & 0xFFFFFFFFu);
    p.tickets[pass] = 0;
  }
}

}  // namespace

cudaError_t launch_attention_plan(const AttentionKernelParams& params, cudaStream_t stream) {
  const int64_t rows = params.plan_end - params.plan_begin;
  const auto passes = static_cast<unsigned>(ceil_div(rows, params.chunk_rows) * params.num_ranges);
  const int64_t bins = passes * params.bins_per_pass;
  const int64_t wanted = ceil_div(bins, kResetThreads * 4);
  const auto reset_blocks = static_cast<unsigned>(wanted < 264 ? wanted : 264);
  const dim3 row_grid(static_cast<unsigned>(ceil_div(rows, params.warp_rows * (kRowThreads / 32))),
                      static_cast<unsigned>(params.op.num_kv_heads));
  cudaError_t error =
      launch_overlapped(attention_plan_reset, reset_blocks, kResetThreads, 0, stream, params);
  if (error != cudaSuccess) return error;
  if (params.list_shift > 0) {
    return launch_overlapped(attention_plan_rows<Step::kList>, row_grid, kRowThreads, 0, stream,
                             params);
  }
  error = launch_overlapped(attention_plan_rows<Step::kCount>, row_grid, kRowThreads, 0, stream,
                            params);
  if (error != cudaSuccess) return error;
  error = launch_overlapped(attention_plan_scan, passes, kScanThreads, 0, stream, params);
  if (error != cudaSuccess) return error;
  return launch_overlapped(attention_plan_rows<Step::kScatter>, row_grid, kRowThreads, 0, stream,
                           params);
}

}  // namespace msa::cuda
