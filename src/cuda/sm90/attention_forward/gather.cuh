// sm90_attention_gather: partial attention of every visit of a pass, one key block at a time (KV
// outer), and beside it the merge of the pass before.
//
// A thread block takes items (a block and up to 64 visits) by ticket. Warp 0 loads K and V of the
// next item and gathers the G heads of each visiting query, 64 rows a tile; warpgroups 1 to 3 take
// the tiles in turn, so the exponentials of two hide behind the products of the third. Each has a
// place for the queries of its next tile and one for the partial rows of its last, which the copy
// engine takes to memory. Some thread blocks first merge the pass before, with all their warps,
// while the others are at the products: those leave half of the memory bandwidth, and the merge
// needs no tensor core.
// A block that lies before its visitors needs no mask. In a local item row i sees tokens 0 to i;
// values past the end of the request are zeroed, and rows before an infinite or NaN value are
// marked for exact_rows.cu: the product made 0 * NaN of it.
// Bound: per visit 4 * G * B * D FLOP for 2 * G * D bytes of Q from L2, 2 * G * D bytes of partial
// output to memory and as many back, and 4 * B * D / visits-in-item bytes of K and V.
#pragma once

#include "cuda/device/mbarrier.cuh"
#include "cuda/device/overlap.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/sm90/attention_forward/merge.cuh"
#include "cuda/sm90/attention_forward/tile.cuh"

namespace msa::cuda {

template <typename Traits>
struct GatherLayout {
  static constexpr int kMathWarpgroups = 3;
  static constexpr int kMathThreads = kMathWarpgroups * kWarpgroupThreads;
  static constexpr int kThreads = kWarpgroupThreads + kMathThreads;
  static constexpr int kItemStages = 2;
  static constexpr int kQueryStages = kMathWarpgroups;
  static constexpr int kQueries = kItemStages * 2 * Traits::kKeyBytes;
  static constexpr int kRings = kThreads / 32 * MergeRing<Traits>::kBytes;  // before the items
  static constexpr int kOutputs = kQueries + kQueryStages * Traits::kQueryBytes;
  static constexpr int kTiles = kOutputs + kMathWarpgroups * Traits::kQueryBytes;
  static constexpr int kBarriers = kTiles > kRings ? kTiles : kRings;
  static constexpr int kItems = kBarriers + (3 * kItemStages + 2 * kQueryStages) * 8;
  static constexpr int kLastBad = kItems + kItemStages * static_cast<int>(sizeof(Item));
  static constexpr int kBytes = kLastBad + kItemStages * 4;
  static constexpr int kDynamicBytes = kBytes + kSwizzleAtomBytes;
  static_assert(kItems % 16 == 0 && kDynamicBytes <= 232448);
};

template <typename Traits>
__global__ void __launch_bounds__(GatherLayout<Traits>::kThreads, 1)
    sm90_attention_gather(const __grid_constant__ CUtensorMap q_map,
                          const __grid_constant__ CUtensorMap k_map,
                          const __grid_constant__ CUtensorMap v_map,
                          const __grid_constant__ AttentionKernelParams p, int pass) {
  using Layout = GatherLayout<Traits>;

  // 1. Shared memory and barriers.
  allow_next_kernel();
  extern __shared__ uint8_t shared_raw[];
  uint8_t* shared =
      shared_raw +
      (kSwizzleAtomBytes - shared_address(shared_raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
  auto* item_full = reinterpret_cast<uint64_t*>(shared + Layout::kBarriers);
  uint64_t* block_full = item_full + Layout::kItemStages;
  uint64_t* item_empty = block_full + Layout::kItemStages;
  uint64_t* query_full = item_empty + Layout::kItemStages;
  uint64_t* query_empty = query_full + Layout::kQueryStages;
  auto* stage_items = reinterpret_cast<Item*>(shared + Layout::kItems);
  auto* last_bad = reinterpret_cast<int*>(shared + Layout::kLastBad);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    tma_prefetch(&q_map);
    tma_prefetch(&k_map);
    tma_prefetch(&v_map);
    for (int stage = 0; stage < Layout::kItemStages; ++stage) {
      mbarrier_init(&item_full[stage], 1);
      mbarrier_init(&block_full[stage], 1);
      mbarrier_init(&item_empty[stage], Layout::kMathWarpgroups * 4);  // every math warp
    }
    for (int stage = 0; stage < Layout::kQueryStages; ++stage) {
      mbarrier_init(&query_full[stage], 1);
      mbarrier_init(&query_empty[stage], 4);  // the warps of the one warpgroup that takes the tile
    }
    fence_mbarrier_init();
  }
  __syncthreads();
  wait_for_previous_kernel();

  // 2. Merge of the pass before.
  if (pass > 0 && static_cast<int>(blockIdx.x) < p.merge_blocks) {
    if (p.gathers[pass - 1] != 0) {
      constexpr int kWarps = Layout::kThreads / 32;
      merge_lists<Traits>(p, pass - 1, shared + warp * MergeRing<Traits>::kBytes,
                          static_cast<int>(blockIdx.x) * kWarps + warp, p.merge_blocks * kWarps);
    }
    fence_async_proxy();
    __syncthreads();
  }

  if (warp < 4) {
    // 3. Producer: lane 0 copies the blocks, each lane gathers the visits it holds. The next ticket
    //    and the next item are on their way while this one's queries are gathered.
    lower_registers<56>();
    if (warp > 0) return;
    const int tile_visits = kTileRows >> p.group_shift;
    const bool paged = p.op.sequences.page_table != nullptr;
    const uint64_t query_policy = p.queries_stay ? evict_last_policy() : evict_normal_policy();
    const Item none = {0, 0, 0, 0};  // no visits
    RingPosition item_at;
    RingPosition query_at;
    const int num_items = p.num_items[pass];
    const int first_group = pass % p.num_ranges * p.groups_per_pass;
    const int first_token = static_cast<int>(p.plan_begin) + pass / p.num_ranges * p.chunk_rows;
    const Item* items = p.items + pass * p.items_per_pass;
    const auto take_ticket = [&] { return lane == 0 ? atomicAdd(&p.tickets[pass], 1) : 0; };
    int ticket = __shfl_sync(~0u, take_ticket(), 0);
    int next_ticket = take_ticket();
    Item item = ticket < num_items ? items[ticket] : none;
    while (true) {
      int count = item_visits(item.packed);
      const int group = first_group + item_group(item.packed);
      const uint32_t* list = p.visits + pass * p.visits_per_pass + item.first_visit;
      const bool last = ticket >= num_items;  // an item without visits says so
      mbarrier_wait(&item_empty[item_at.stage], item_at.parity ^ 1);
      __syncwarp();
      if (lane == 0) {
        uint64_t* barrier = &block_full[item_at.stage];
        if (count > 0) {
          mbarrier_arrive_expect(barrier, 2 * Traits::kKeyBytes);
          uint8_t* keys = shared + item_at.stage * 2 * Traits::kKeyBytes;
          uint8_t* values = keys + Traits::kKeyBytes;
          const int token = paged ? 0 : item.begin;
          const int page = paged ? item.begin : 0;
          for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
            tma_load_4d(keys + column * Traits::kBlock * 2, &k_map, barrier, column, token, group,
                        page);
          }
          for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
            tma_load_4d(values + column * Traits::kBlock * 2, &v_map, barrier, column, token, group,
                        page);
          }
        } else {
          mbarrier_arrive(barrier);
        }
      }
      if (p.list_shift > 0 && count > 0) {  // the list may have ended before
        const auto first = static_cast<uint32_t>(item.first_visit);
        count = visits_in_list(count, first, p.list_shift, p.bins[first >> p.list_shift]);
        item.packed = (item.packed & ~0xFFu) | static_cast<uint32_t>(count);
      }
      uint32_t held[2];
      held[0] = lane < count ? __ldg(list + lane) : 0;
      held[1] = lane + 32 < count ? __ldg(list + lane + 32) : 0;
      if (lane == 0) {
        stage_items[item_at.stage] = item;
        last_bad[item_at.stage] = -1;
        mbarrier_arrive(&item_full[item_at.stage]);
      }
      __syncwarp();
      if (last) return;
      item_at.advance(Layout::kItemStages);
      ticket = __shfl_sync(~0u, next_ticket, 0);
      if (ticket < num_items) next_ticket = take_ticket();
      item = ticket < num_items ? items[ticket] : none;

      for (int begin = 0; begin < count; begin += tile_visits) {
        const int end = begin + tile_visits < count ? begin + tile_visits : count;
        uint64_t* barrier = &query_full[query_at.stage];
        mbarrier_wait(&query_empty[query_at.stage], query_at.parity ^ 1);
        __syncwarp();
        if (lane == 0) {
          mbarrier_arrive_expect(barrier, static_cast<uint32_t>(end - begin)
                                              << p.group_shift << (Traits::kDim == 128 ? 8 : 7));
        }
        __syncwarp();
        uint8_t* tile = shared + Layout::kQueries + query_at.stage * Traits::kQueryBytes;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int visit = i * 32 + lane;
          if (visit < begin || visit >= end) continue;
          const int row = (visit - begin) << p.group_shift;
          const int token = first_token + static_cast<int>(visit_row(held[i]));
          for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
            tma_load_3d(tile + column * kTileRows * 2 + row * kSwizzleBytes, &q_map, barrier,
                        column, group << p.group_shift, token, query_policy);
          }
        }
        query_at.advance(Layout::kQueryStages);
      }
    }
  } else {
    // 4. Math: tile n of the thread block goes to warpgroup n mod 3 and lies in its stage.
    raise_registers<152>();
    const int tile_visits = kTileRows >> p.group_shift;
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
    const auto mine = static_cast<uint32_t>(warp / 4 - 1);
    const int own_row = thread / 32 * 16 + lane % 16;
    const float scale_log2 = p.op.scale * kLog2E;
    const uint64_t evict_first = evict_first_policy();
    const uint32_t queries = shared_address(shared + Layout::kQueries) + mine * Traits::kQueryBytes;
    auto* outputs =
        reinterpret_cast<uint16_t*>(shared + Layout::kOutputs + mine * Traits::kQueryBytes);
    RingPosition item_at;
    const uint32_t* visits = p.visits + pass * p.visits_per_pass;
    uint32_t first_tile = 0;  // number of the item's first tile
    while (true) {
      mbarrier_wait(&item_full[item_at.stage], item_at.parity);
      const Item item = stage_items[item_at.stage];
      const int count = item_visits(item.packed);
      if (count == 0) break;
      mbarrier_wait(&block_full[item_at.stage], item_at.parity);
      const int group = item_group(item.packed);
      const bool local = item_is_local(item.packed);
      const auto num_tiles = static_cast<uint32_t>((count + tile_visits - 1) / tile_visits);
      const uint32_t keys = shared_address(shared + item_at.stage * 2 * Traits::kKeyBytes);
      int bad = -1;
      if (local) {
        clean_values<Traits>(shared + (item_at.stage * 2 + 1) * Traits::kKeyBytes,
                             &last_bad[item_at.stage], item_tokens(item.packed),
                             static_cast<int>(threadIdx.x) - kWarpgroupThreads,
                             Layout::kMathThreads);
        __syncwarp();
        named_barrier<Layout::kMathThreads>(1);
        bad = last_bad[item_at.stage];
      }
      for (uint32_t tile = (mine + 3 - first_tile % 3) % 3; tile < num_tiles; tile += 3) {
        // 4a. The warp's 16 rows: lane l and lane l + 16 look after row l.
        const int index = static_cast<int>(tile) * tile_visits + (own_row >> p.group_shift);
        const bool exists = index < count;
        const uint32_t visit = exists ? __ldg(visits + item.first_visit + index) : 0;
        const int row_in_chunk = static_cast<int>(visit_row(visit));

        // 4b. Scores, weights, weighted values.
        float out[Traits::kDim / 2];
        float largest2[2];
        float sum[2];
        {
          uint32_t weights[Traits::kBlock / 16][4];
          {
            float scores[Traits::kBlock / 2];
            mbarrier_wait(&query_full[mine], (first_tile + tile) / Layout::kQueryStages & 1);
            multiply_keys<Traits>(scores, queries, keys);
            __syncwarp();
            if (lane == 0) mbarrier_arrive(&query_empty[mine]);
            if (local) {
              const int in_block = row_in_chunk + item.shift;
              const int last_visible[2] = {__shfl_sync(~0u, in_block, lane / 4),
                                           __shfl_sync(~0u, in_block, lane / 4 + 8)};
              mask_tile<Traits>(scores, last_visible);
            }
            softmax_tile<typename Traits::Element>(scores, scale_log2, weights, largest2, sum);
          }
          multiply_values<Traits>(out, weights, keys + Traits::kKeyBytes);
        }

        // 4c. Partial rows: through shared memory, each part of a visit to its own place.
        bulk_store_wait_read();  // of the tile before
        __syncwarp();
        float lse2[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float factor = sum[half] == 0.0f ? 0.0f : reciprocal_fast(sum[half]);
          store_partial<Traits>(out, half, factor,
                                outputs + accumulator_row(thread, 2 * half) * Traits::kDim);
          const float own = largest2[half] + __log2f(sum[half]);
          lse2[half] = __shfl_sync(~0u, own, lane % 8 * 4);
        }
        fence_async_proxy();
        __syncwarp();
        if (exists && lane < 16) {
          const int head = own_row & (p.group_size() - 1);
          const int64_t row =
              p.partial_row(pass, row_in_chunk, group, static_cast<int>(visit_place(visit)), head);
          p.partial_lse2[row] = lane < 8 ? lse2[0] : lse2[1];
          if ((head & (p.part_heads() - 1)) == 0) {
            bulk_store(static_cast<uint16_t*>(p.partial) + row * Traits::kDim,
                       outputs + own_row * Traits::kDim,
                       static_cast<uint32_t>(p.part_heads() * Traits::kDim * 2), evict_first);
          }
          if (bad > row_in_chunk + item.shift && head == 0) {
            const int64_t row_in_plan = pass / p.num_ranges * p.chunk_rows + row_in_chunk;
            p.masks[row_in_plan * p.op.num_kv_heads + pass % p.num_ranges * p.groups_per_pass +
                    group] |= kExactBit;
          }
        }
        bulk_store_commit();
      }
      first_tile += num_tiles;
      __syncwarp();
      if (lane == 0) mbarrier_arrive(&item_empty[item_at.stage]);
      item_at.advance(Layout::kItemStages);
    }
    bulk_store_wait_read();
  }
}

}  // namespace msa::cuda
