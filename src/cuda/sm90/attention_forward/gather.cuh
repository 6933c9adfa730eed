// sm90_attention_gather: partial attention of every visit, one key block at a time (KV outer).
//
//   s = q k^T over the block      m = max s      p = 2^((s - m) scale log2(e))      l = sum p
//   partial = p v / l (16 bits)   partial_lse2 = m scale log2(e) + log2(l)
//
// All tokens of a visited block lie before the row's position, so nothing is masked. A thread block
// takes items (a block and up to 128 visits) by ticket. Warpgroup 0 loads K and V of the next item
// and gathers the G heads of each visiting query, 64 rows a tile, into a ring of six; warpgroups 1
// to 3 take the tiles in turn, so the exponentials of two hide behind the products of the third.
// Bound: per visit 4 * G * B * D FLOP for 2 * G * D bytes of Q from L2, 2 * G * D bytes of partial
// output to memory, and 4 * B * D / visits-in-item bytes of K and V.
#pragma once

#include "cuda/device/mbarrier.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/device/wgmma.cuh"
#include "cuda/sm90/attention_forward/params.h"

namespace msa::cuda {

template <typename Element_, int kDim_, int kBlock_>
struct AttentionTraits {
  using Element = Element_;
  static constexpr int kDim = kDim_;
  static constexpr int kBlock = kBlock_;
  static constexpr int kKeyBytes = kBlock * kDim * 2;  // K of a block; V has the same size
  static constexpr int kQueryBytes = kTileRows * kDim * 2;
};

template <typename Traits>
struct GatherLayout {
  static constexpr int kMathWarpgroups = 3;
  static constexpr int kThreads = (1 + kMathWarpgroups) * kWarpgroupThreads;
  static constexpr int kItemStages = 2;
  static constexpr int kQueryStages = 6;
  static constexpr int kQueries = kItemStages * 2 * Traits::kKeyBytes;
  static constexpr int kBarriers = kQueries + kQueryStages * Traits::kQueryBytes;
  static constexpr int kItems = kBarriers + 2 * (kItemStages + kQueryStages) * 8;
  static constexpr int kBytes = kItems + kItemStages * static_cast<int>(sizeof(Item));
  static constexpr int kDynamicBytes = kBytes + kSwizzleAtomBytes;
};

/// Softmax of one 64-row tile without mask, in registers: scores become weights in the layout of
/// operand A. largest2 is the maximum in base-two units, sum the sum of the weights.
template <typename Element, int kCount>
__device__ __forceinline__ void softmax_tile(const float (&scores)[kCount], float scale_log2,
                                             uint32_t (&weights)[kCount / 8][4],
                                             float (&largest2)[2], float (&sum)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = minus_infinity();
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      largest = fmaxf(largest, fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    largest2[half] = largest * scale_log2;
    const float shift = largest == minus_infinity() ? 0.0f : largest2[half];
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float low = exp2_fast(fmaf(scores[i + 2 * half], scale_log2, -shift));
      const float high = exp2_fast(fmaf(scores[i + 2 * half + 1], scale_log2, -shift));
      total += low + high;
      weights[i / 8][i / 4 % 2 * 2 + half] = ElementTraits<Element>::pack(low, high);
    }
    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    sum[half] = total;
  }
}

/// q k^T of a 64-row tile and a block, both in shared memory; waits for the result.
template <typename Traits>
__device__ __forceinline__ void multiply_keys(float (&scores)[Traits::kBlock / 2], uint32_t queries,
                                              uint32_t keys) {
  wgmma_pin(scores);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < Traits::kDim / 16; ++k) {
    Wgmma<typename Traits::Element, Traits::kBlock>::shared_rows(
        scores, row_operand(queries, kTileRows, k * 16), row_operand(keys, Traits::kBlock, k * 16),
        k > 0);
  }
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_pin(scores);
}

/// weights v; waits for the result.
template <typename Traits>
__device__ __forceinline__ void multiply_values(float (&out)[Traits::kDim / 2],
                                                const uint32_t (&weights)[Traits::kBlock / 16][4],
                                                uint32_t values) {
  wgmma_pin(out);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < Traits::kBlock / 16; ++k) {
    Wgmma<typename Traits::Element, Traits::kDim>::register_columns(
        out, weights[k], column_operand(values, Traits::kBlock, k * 16), k > 0);
  }
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_pin(out);
}

/// Writes one row's share of a thread: 16 bytes for every 32 columns; see partial_place().
template <typename Traits>
__device__ __forceinline__ void store_partial(const float (&out)[Traits::kDim / 2], int half,
                                              float factor, void* partial, int64_t row) {
  using Type = ElementTraits<typename Traits::Element>;
  auto* to = static_cast<uint16_t*>(partial) + row * Traits::kDim + threadIdx.x % 4 * 8;
#pragma unroll
  for (int s = 0; s < Traits::kDim / 32; ++s) {
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int i = (s * 4 + j) * 4 + 2 * half;
      words[j] = Type::pack_output(out[i] * factor, out[i + 1] * factor);
    }
    __stcs(reinterpret_cast<uint4*>(to + s * 32),
           make_uint4(words[0], words[1], words[2], words[3]));
  }
}

template <typename Traits>
__global__ void __launch_bounds__(GatherLayout<Traits>::kThreads, 1)
    sm90_attention_gather(const __grid_constant__ CUtensorMap q_map,
                          const __grid_constant__ CUtensorMap k_map,
                          const __grid_constant__ CUtensorMap v_map,
                          const __grid_constant__ AttentionKernelParams p, int pass) {
  using Layout = GatherLayout<Traits>;

  // 1. Shared memory and barriers.
  extern __shared__ uint8_t shared_raw[];
  uint8_t* shared =
      shared_raw +
      (kSwizzleAtomBytes - shared_address(shared_raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
  auto* item_full = reinterpret_cast<uint64_t*>(shared + Layout::kBarriers);
  uint64_t* item_empty = item_full + Layout::kItemStages;
  uint64_t* query_full = item_empty + Layout::kItemStages;
  uint64_t* query_empty = query_full + Layout::kQueryStages;
  auto* stage_items = reinterpret_cast<Item*>(shared + Layout::kItems);
  if (threadIdx.x == 0) {
    tma_prefetch(&q_map);
    tma_prefetch(&k_map);
    tma_prefetch(&v_map);
    for (int stage = 0; stage < Layout::kItemStages; ++stage) {
      mbarrier_init(&item_full[stage], 1);
      mbarrier_init(&item_empty[stage], Layout::kMathWarpgroups * 4);  // every math warp
    }
    for (int stage = 0; stage < Layout::kQueryStages; ++stage) {
      mbarrier_init(&query_full[stage], 1);
      mbarrier_init(&query_empty[stage], 4);  // the warps of the one warpgroup that takes the tile
    }
    fence_mbarrier_init();
  }
  __syncthreads();

  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroupThreads;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int tile_visits = kTileRows >> p.group_shift;
  const int range = pass % p.num_ranges;
  const uint32_t* visits = p.visits + pass * p.visits_per_pass;
  if (warpgroup == 0) {
    // 2. Producer: one warp; lane 0 copies the blocks, each lane gathers the visits it holds.
    lower_registers<56>();
    if (threadIdx.x >= 32) return;
    const int num_items = p.num_items[pass];
    const int64_t chunk_begin =
        p.plan_begin + static_cast<int64_t>(pass / p.num_ranges) * p.chunk_rows;
    RingPosition item_at;
    RingPosition query_at;
    int ticket = 0;
    if (lane == 0) ticket = atomicAdd(&p.tickets[pass], 1);
    ticket = __shfl_sync(~0u, ticket, 0);
    while (true) {
      Item item = {0, 0, 0, 0};  // no visits: the end
      if (ticket < num_items) item = p.items[pass * p.items_per_pass + ticket];
      int next_ticket = 0;
      if (lane == 0 && ticket < num_items) next_ticket = atomicAdd(&p.tickets[pass], 1);
      const int count = static_cast<int>(item.count & 0xFFFFu);
      const int group = range * p.groups_per_pass + static_cast<int>(item.count >> 16);
      mbarrier_wait(&item_empty[item_at.stage], item_at.parity ^ 1);
      if (lane == 0) {
        stage_items[item_at.stage] = item;
        uint64_t* barrier = &item_full[item_at.stage];
        if (count == 0) {
          mbarrier_arrive(barrier);
        } else {
          mbarrier_arrive_expect(barrier, 2 * Traits::kKeyBytes);
          uint8_t* keys = shared + item_at.stage * 2 * Traits::kKeyBytes;
          uint8_t* values = keys + Traits::kKeyBytes;
          for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
            const int panel = column * Traits::kBlock * 2;
            tma_load_4d(keys + panel, &k_map, barrier, column, item.token, group, item.page);
            tma_load_4d(values + panel, &v_map, barrier, column, item.token, group, item.page);
          }
        }
      }
      __syncwarp();
      if (count == 0) return;
      item_at.advance(Layout::kItemStages);

      const uint32_t* list = visits + item.first_visit;
      const int batch = tile_visits > 32 ? tile_visits : 32;  // visits that the lanes hold at once
      for (int base = 0; base < count; base += batch) {
        uint32_t held[2];
        held[0] = base + lane < count ? __ldg(list + base + lane) : 0;
        held[1] = batch > 32 && base + 32 + lane < count ? __ldg(list + base + 32 + lane) : 0;
        for (int begin = base; begin < base + batch && begin < count; begin += tile_visits) {
          const int end = begin + tile_visits < count ? begin + tile_visits : count;
          uint64_t* barrier = &query_full[query_at.stage];
          mbarrier_wait(&query_empty[query_at.stage], query_at.parity ^ 1);
          if (lane == 0) {
            mbarrier_arrive_expect(barrier, static_cast<uint32_t>(end - begin)
                                                << p.group_shift << (Traits::kDim == 128 ? 8 : 7));
          }
          __syncwarp();
          uint8_t* tile = shared + Layout::kQueries + query_at.stage * Traits::kQueryBytes;
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const int visit = base + i * 32 + lane;
            if (visit < begin || visit >= end) continue;
            const int row = (visit - begin) << p.group_shift;
            const int token = static_cast<int>(chunk_begin + visit_row(held[i]));
            for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
              tma_load_3d(tile + column * kTileRows * 2 + row * kSwizzleBytes, &q_map, barrier,
                          column, group << p.group_shift, token);
            }
          }
          query_at.advance(Layout::kQueryStages);
        }
      }
      ticket = __shfl_sync(~0u, next_ticket, 0);
    }
  } else {
    // 3. Math: tile n of the thread block goes to warpgroup n mod 3 and lies in stage n mod 6.
    raise_registers<152>();
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
    const uint32_t mine = static_cast<uint32_t>(warpgroup - 1);
    const float scale_log2 = p.op.scale * kLog2E;
    RingPosition item_at;
    uint32_t first_tile = 0;  // number of the item's first tile
    while (true) {
      mbarrier_wait(&item_full[item_at.stage], item_at.parity);
      const Item item = stage_items[item_at.stage];
      const int count = static_cast<int>(item.count & 0xFFFFu);
      if (count == 0) return;
      const int group = static_cast<int>(item.count >> 16);
      const auto num_tiles = static_cast<uint32_t>((count + tile_visits - 1) / tile_visits);
      const uint32_t keys = shared_address(shared + item_at.stage * 2 * Traits::kKeyBytes);
      for (uint32_t tile = (mine + 3 - first_tile % 3) % 3; tile < num_tiles; tile += 3) {
        // 3a. Which visits the two rows of this thread belong to.
        uint32_t visit[2];
        bool exists[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = accumulator_row(thread, 2 * half);
          const int index = static_cast<int>(tile) * tile_visits + (row >> p.group_shift);
          exists[half] = index < count;
          visit[half] = exists[half] ? __ldg(visits + item.first_visit + index) : 0;
        }

        // 3b. Scores, weights, weighted values.
        const uint32_t number = first_tile + tile;
        const uint32_t stage = number % Layout::kQueryStages;
        const uint32_t queries =
            shared_address(shared + Layout::kQueries) + stage * Traits::kQueryBytes;
        float out[Traits::kDim / 2];
        float largest2[2];
        float sum[2];
        {
          uint32_t weights[Traits::kBlock / 16][4];
          {
            float scores[Traits::kBlock / 2];
            mbarrier_wait(&query_full[stage], number / Layout::kQueryStages & 1);
            multiply_keys<Traits>(scores, queries, keys);
            if (lane == 0) mbarrier_arrive(&query_empty[stage]);
            softmax_tile<typename Traits::Element>(scores, scale_log2, weights, largest2, sum);
          }
          multiply_values<Traits>(out, weights, keys + Traits::kKeyBytes);
        }

        // 3c. Out to the visit's own place.
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (!exists[half]) continue;
          const int head = accumulator_row(thread, 2 * half) & (p.group_size() - 1);
          const int64_t row = p.partial_row(visit_row(visit[half]), group,
                                            static_cast<int>(visit_place(visit[half]))) +
                              head;
          store_partial<Traits>(out, half, 1.0f / sum[half], p.partial, row);
          if (lane % 4 == 0) p.partial_lse2[row] = largest2[half] + __log2f(sum[half]);
        }
      }
      first_tile += num_tiles;
      if (lane == 0) mbarrier_arrive(&item_empty[item_at.stage]);
      item_at.advance(Layout::kItemStages);
    }
  }
}

}  // namespace msa::cuda
