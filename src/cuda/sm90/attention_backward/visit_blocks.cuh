// sm90_attention_backward: gradients of every visit of a plan, one key block at a time (KV outer).
//
//   S^T = K Q^T             P^T = 2^(S^T scale log2(e) - lse2)      dV += P^T dO
//   dP^T = V dO^T           dS^T = P^T (dP^T - delta)               dK += dS^T Q      dQ += dS K
//
// A thread block takes items (a block and up to 255 visits) by ticket, over all passes of the plan.
// Four warps copy: 0 the blocks, 1 queries and dO of the visiting rows, 64 rows a tile, 2 and 3
// their statistics. A math warpgroup owns 64 keys of the block: scores come transposed, keys are
// the rows of its accumulators, so P^T is the register operand of dV; dV and dK stay in registers
// for a whole item. dS^T goes through shared memory, rows contiguous: its warpgroup reads it as
// operand A of dK, all read it transposed as operand A of dQ, 64 columns each of all 64 rows. Sums
// leave by float32 reductions of 16 bytes a thread; finish.cu scales and rounds them.
// A row that does not exist comes as zeros and sees no key; keys past the end of the request are
// zeroed; P and dS of what a row does not see are set to 0, not multiplied by it.
// Bound: 10 * G * B * D FLOP a visit for 4 * G * D bytes of Q and dO from L2 and 4 * G * D bytes of
// reductions into it; 4 * B * D bytes of K and V, 8 * B * D of dK and dV an item.
#pragma once

#include "cuda/device/mbarrier.cuh"
#include "cuda/device/overlap.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/shared.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/device/wgmma.cuh"
#include "cuda/sm90/attention_backward/params.h"

namespace msa::cuda {

template <typename Element_, int kDim_, int kBlock_>
struct BackwardTraits {
  using Element = Element_;
  static constexpr int kDim = kDim_;
  static constexpr int kBlock = kBlock_;
  static constexpr int kKeyBytes = kBlock * kDim * 2;       // K of a block; V has the same size
  static constexpr int kQueryBytes = kTileRows * kDim * 2;  // Q of a tile; dO has the same size
};

/// What the math warps need of the rows of a tile.
struct TileRows {
  struct Limit {
    float lse2;
    int32_t last;  // key of the block that the row sees last; -1: none
  };
  Limit limits[kTileRows];
  float deltas[kTileRows];
  int32_t lists[kTileRows];  // of dq_sums; -1: no such row
};

template <typename Traits>
struct BackwardLayout {
  static constexpr int kMathWarpgroups = Traits::kBlock / 64;
  static constexpr int kMathThreads = kMathWarpgroups * kWarpgroupThreads;
  static constexpr int kMathWarps = kMathThreads / 32;
  static constexpr int kThreads = kWarpgroupThreads + kMathThreads;
  static constexpr int kItemStages = 2;
  static constexpr int kTileStages = 3;
  static constexpr int kTileBytes = 2 * Traits::kQueryBytes;          // Q, then dO
  static constexpr int kLogitBytes = Traits::kBlock * kSwizzleBytes;  // dS^T: [B, 64 rows]
  static constexpr int kTiles = 2 * Traits::kKeyBytes;                // behind K and V
  static constexpr int kLogits = kTiles + kTileStages * kTileBytes;
  static constexpr int kRows = kLogits + 2 * kLogitBytes;
  static constexpr int kItems = kRows + kTileStages * static_cast<int>(sizeof(TileRows));
  static constexpr int kBarriers = kItems + kItemStages * static_cast<int>(sizeof(BackwardItem));
  static constexpr int kBytes = kBarriers + (2 * kItemStages + 2 + 2 * kTileStages) * 8;
  static constexpr int kDynamicBytes = kBytes + kSwizzleAtomBytes;
  static_assert(kRows % 16 == 0 && kItems % 16 == 0 && kDynamicBytes <= 232448);
};

/// The barriers of a thread block, in shared memory.
template <typename Layout>
struct BackwardBarriers {
  uint64_t item_full[Layout::kItemStages];   // the item can be read
  uint64_t item_empty[Layout::kItemStages];  // by three copying warps and all math warps
  uint64_t keys_full;
  uint64_t keys_empty;
  uint64_t tile_full[Layout::kTileStages];  // queries and dO, and their statistics
  uint64_t tile_empty[Layout::kTileStages];

  __device__ __forceinline__ void init() {
    for (int stage = 0; stage < Layout::kItemStages; ++stage) {
      mbarrier_init(&item_full[stage], 1);
      mbarrier_init(&item_empty[stage], 3 + Layout::kMathWarps);
    }
    mbarrier_init(&keys_full, 1);
    mbarrier_init(&keys_empty, Layout::kMathWarps);
    for (int stage = 0; stage < Layout::kTileStages; ++stage) {
      mbarrier_init(&tile_full[stage], 3);
      mbarrier_init(&tile_empty[stage], Layout::kMathWarps);
    }
    fence_mbarrier_init();
  }
};

/// The item of the next ticket; `pass` and `pass_begin`, the ticket of its first item, move on. An
/// item without visits: there is none.
__device__ __forceinline__ BackwardItem take_item(const BackwardKernelParams& p, int& pass,
                                                  int& pass_begin) {
  const AttentionKernelParams& plan = p.plan;
  const int ticket = atomicAdd(&plan.tickets[0], 1);
  while (pass < p.num_passes && ticket - pass_begin >= plan.num_items[pass]) {
    pass_begin += plan.num_items[pass++];
  }
  BackwardItem work = {};
  if (pass == p.num_passes) return work;
  const Item item = plan.items[pass * plan.items_per_pass + (ticket - pass_begin)];
  work.first_visit = pass * plan.visits_per_pass + item.first_visit;
  work.begin = item.begin;
  work.shift = item.shift;
  work.first_row = pass / plan.num_ranges * plan.chunk_rows;
  work.group = pass % plan.num_ranges * plan.groups_per_pass + item_group(item.packed);
  work.packed = item.packed;
  return work;
}

/// A descriptor `bytes` further on: an addition, where making it anew would take registers.
__device__ __forceinline__ uint64_t advance(uint64_t descriptor, int bytes) {
  return descriptor + static_cast<uint64_t>(bytes >> 4);
}
/// How far row_operand() moves over `column` columns of a tile of `rows` rows.
MSA_HOST_DEVICE int column_bytes(int rows, int column) {
  return column / kPanelColumns * rows * kSwizzleBytes + column % kPanelColumns * 2;
}

/// Adds a thread's accumulators of one row: kSteps times 16 columns, from step `first` on.
template <int kSteps, size_t kCount>
__device__ __forceinline__ void add_row(float* list, int heads, int head, int first,
                                        const float (&sums)[kCount], int half) {
  float* to = list + ((first * heads + head) * 4 + static_cast<int>(threadIdx.x % 4)) * 4;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int i = step * 8 + 2 * half;
    reduce_add(to + step * heads * 16, sums[i], sums[i + 1], sums[i + 4], sums[i + 5]);
  }
}

/// Warp 0, one lane: items and their blocks. The next item is told while the block of this one is
/// in use, so that its first tiles are copied meanwhile.
template <typename Traits>
__device__ __forceinline__ void copy_blocks(const BackwardKernelParams& p, const CUtensorMap* k_map,
                                            const CUtensorMap* v_map, uint8_t* shared,
                                            BackwardItem* items,
                                            BackwardBarriers<BackwardLayout<Traits>>& barriers) {
  using Layout = BackwardLayout<Traits>;
  RingPosition item_at;
  uint32_t keys_parity = 1;
  int pass = 0;
  int pass_begin = 0;
  while (true) {
    const BackwardItem work = take_item(p, pass, pass_begin);
    mbarrier_wait(&barriers.item_empty[item_at.stage], item_at.parity ^ 1);
    items[item_at.stage] = work;
    mbarrier_arrive(&barriers.item_full[item_at.stage]);
    item_at.advance(Layout::kItemStages);
    if (item_visits(work.packed) == 0) return;
    mbarrier_wait(&barriers.keys_empty, keys_parity);
    keys_parity ^= 1;
    mbarrier_arrive_expect(&barriers.keys_full, 2 * Traits::kKeyBytes);
#pragma unroll 1
    for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
      uint8_t* panel = shared + column * Traits::kBlock * 2;
      tma_load_4d(panel, k_map, &barriers.keys_full, column, work.begin, work.group, 0);
      tma_load_4d(panel + Traits::kKeyBytes, v_map, &barriers.keys_full, column, work.begin,
                  work.group, 0);
    }
  }
}

/// Calls tile(item, begin, visits of the item, place in the ring) for every tile of every item.
template <typename Layout, typename Tile>
__device__ __forceinline__ void for_each_tile(const BackwardItem* items, int tile_visits,
                                              BackwardBarriers<Layout>& barriers,
                                              const Tile& tile) {
  RingPosition item_at;
  RingPosition tile_at;
  while (true) {
    mbarrier_wait(&barriers.item_full[item_at.stage], item_at.parity);
    const BackwardItem& work = items[item_at.stage];
    const int count = item_visits(work.packed);
    if (count == 0) return;
    for (int begin = 0; begin < count; begin += tile_visits) {
      tile(work, begin, count, tile_at);
      tile_at.advance(Layout::kTileStages);
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(&barriers.item_empty[item_at.stage]);
    item_at.advance(Layout::kItemStages);
  }
}

/// Warp 1: queries and dO. Rows past the end of the tensors come as zeros.
template <typename Traits>
__device__ __forceinline__ void copy_queries(const BackwardKernelParams& p,
                                             const CUtensorMap* q_map, const CUtensorMap* dout_map,
                                             uint8_t* tiles, const BackwardItem* items,
                                             BackwardBarriers<BackwardLayout<Traits>>& barriers) {
  using Layout = BackwardLayout<Traits>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int group_shift = p.plan.group_shift;
  const int tile_visits = kTileRows >> group_shift;
  for_each_tile(items, tile_visits, barriers,
                [&](const BackwardItem& work, int begin, int count, const RingPosition& at) {
                  mbarrier_wait(&barriers.tile_empty[at.stage], at.parity ^ 1);
                  __syncwarp();
                  uint64_t* full = &barriers.tile_full[at.stage];
                  if (lane == 0) mbarrier_arrive_expect(full, Layout::kTileBytes);
                  __syncwarp();
#pragma unroll 1
                  for (int slot = lane; slot < tile_visits; slot += 32) {
                    const int visit = begin + slot;
                    auto token = static_cast<int>(p.plan.op.sequences.num_query_tokens);
                    if (visit < count) {
                      token = static_cast<int>(p.plan.plan_begin) + work.first_row +
                              static_cast<int>(visit_row(p.plan.visits[work.first_visit + visit]));
                    }
                    uint8_t* to = tiles + at.stage * Layout::kTileBytes +
                                  (slot << group_shift) * kSwizzleBytes;
#pragma unroll 1
                    for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
                      uint8_t* panel = to + column * kTileRows * 2;
                      const int head = work.group << group_shift;
                      tma_load_3d(panel, q_map, full, column, head, token);
                      tma_load_3d(panel + Traits::kQueryBytes, dout_map, full, column, head, token);
                    }
                  }
                });
}

/// Warps 2 and 3: statistics, a row a lane, loaded before there is room for them.
template <typename Traits>
__device__ __forceinline__ void copy_statistics(
    const BackwardKernelParams& p, TileRows* rows, const BackwardItem* items,
    BackwardBarriers<BackwardLayout<Traits>>& barriers) {
  const int row = static_cast<int>(threadIdx.x) - 64;
  const int group_shift = p.plan.group_shift;
  for_each_tile(items, kTileRows >> group_shift, barriers,
                [&](const BackwardItem& work, int begin, int count, const RingPosition& at) {
                  const int visit = begin + (row >> group_shift);
                  TileRows::Limit limit = {0.0f, -1};
                  float delta = 0.0f;
                  int sums = -1;
                  if (visit < count) {
                    const auto in_chunk =
                        static_cast<int>(visit_row(p.plan.visits[work.first_visit + visit]));
                    const int in_plan = work.first_row + in_chunk;
                    const int head =
                        (work.group << group_shift) + (row & (p.plan.group_size() - 1));
                    const RowStatistics statistics =
                        p.statistics[int64_t{in_plan} * p.plan.op.num_q_heads + head];
                    delta = statistics.delta;
                    limit = {statistics.lse2, item_is_local(work.packed) ? in_chunk + work.shift
                                                                         : Traits::kBlock - 1};
                    sums = in_plan * static_cast<int>(p.plan.op.num_kv_heads) + work.group;
                  }
                  mbarrier_wait(&barriers.tile_empty[at.stage], at.parity ^ 1);
                  TileRows& to = rows[at.stage];
                  to.limits[row] = limit;
                  to.deltas[row] = delta;
                  to.lists[row] = sums;
                  __syncwarp();
                  if (row % 32 == 0) mbarrier_arrive(&barriers.tile_full[at.stage]);
                });
}

template <typename Traits>
__global__ void __launch_bounds__(BackwardLayout<Traits>::kThreads, 1)
    sm90_attention_backward(const __grid_constant__ CUtensorMap q_map,
                            const __grid_constant__ CUtensorMap dout_map,
                            const __grid_constant__ CUtensorMap k_map,
                            const __grid_constant__ CUtensorMap v_map,
                            const __grid_constant__ BackwardKernelParams p) {
  using Layout = BackwardLayout<Traits>;
  using Element = typename Traits::Element;

  // 1. Shared memory and barriers.
  allow_next_kernel();
  uint8_t* shared = aligned_shared();
  auto* rows = reinterpret_cast<TileRows*>(shared + Layout::kRows);
  auto* items = reinterpret_cast<BackwardItem*>(shared + Layout::kItems);
  auto& barriers = *reinterpret_cast<BackwardBarriers<Layout>*>(shared + Layout::kBarriers);
  // The same for all lanes, which the compiler cannot know: descriptors stay in uniform registers.
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    tma_prefetch(&q_map);
    tma_prefetch(&dout_map);
    tma_prefetch(&k_map);
    tma_prefetch(&v_map);
    barriers.init();
  }
  __syncthreads();
  wait_for_previous_kernel();
  const int group_shift = p.plan.group_shift;
  const int group_mask = p.plan.group_size() - 1;
  const int tile_visits = kTileRows >> group_shift;
  RingPosition item_at;
  RingPosition tile_at;

  if (warp < 4) {
    // 2. Copies.
    if constexpr (Layout::kMathWarpgroups > 1) lower_registers<40>();
    if (warp == 0 && lane == 0) copy_blocks<Traits>(p, &k_map, &v_map, shared, items, barriers);
    if (warp == 1) {
      copy_queries<Traits>(p, &q_map, &dout_map, shared + Layout::kTiles, items, barriers);
    }
    if (warp > 1) copy_statistics<Traits>(p, rows, items, barriers);
  } else {
    // 3. Math. Thread holds keys key and key + 8 of the block, rows 8 n + column and the next.
    if constexpr (Layout::kMathWarpgroups > 1) raise_registers<232>();
    const int mine = warp / 4 - 1;
    const int key = mine * 64 + warp % 4 * 16 + lane / 4;
    const int column = lane % 4 * 2;
    const int own_logits = swizzled_offset(Traits::kBlock, key, column);  // of columns 8 n: ^ 16 n
    const float scale_log2 = p.plan.op.scale * kLog2E;
    const uint32_t keys = shared_address(shared);
    const uint64_t own_keys =
        row_operand(keys + static_cast<uint32_t>(mine * 64 * kSwizzleBytes), Traits::kBlock, 0);
    const uint32_t tiles = shared_address(shared + Layout::kTiles);
    uint32_t keys_parity = 0;
    uint32_t tile_number = 0;
    float dk[Traits::kDim / 2];
    float dv[Traits::kDim / 2];
    while (true) {
      mbarrier_wait(&barriers.item_full[item_at.stage], item_at.parity);
      const BackwardItem& work = items[item_at.stage];
      const int count = item_visits(work.packed);
      if (count == 0) break;
      const int tokens = item_tokens(work.packed);
      mbarrier_wait(&barriers.keys_full, keys_parity);
      keys_parity ^= 1;
      if (tokens < Traits::kBlock) {  // dS is 0 there, but 0 * NaN is not
        constexpr int kChunks = Traits::kDim / 8;
        for (int i = static_cast<int>(threadIdx.x) - kWarpgroupThreads;
             i < (Traits::kBlock - tokens) * kChunks; i += Layout::kMathThreads) {
          const int offset = swizzled_offset(Traits::kBlock, tokens + i / kChunks, i % kChunks * 8);
          *reinterpret_cast<uint4*>(shared + offset) = make_uint4(0, 0, 0, 0);
        }
        fence_async_proxy();
        __syncwarp();
        named_barrier<Layout::kMathThreads>(1);
      }
#pragma unroll
      for (int i = 0; i < Traits::kDim / 2; ++i) dk[i] = dv[i] = 0.0f;
      for (int begin = 0; begin < count; begin += tile_visits) {
        const uint32_t queries = tiles + tile_at.stage * Layout::kTileBytes;
        const uint64_t query_rows = row_operand(queries, kTileRows, 0);
        const uint64_t query_columns = column_operand(queries, kTileRows, 0);
        const TileRows& at = rows[tile_at.stage];
        uint8_t* logits = shared + Layout::kLogits + tile_number++ % 2 * Layout::kLogitBytes;
        mbarrier_wait(&barriers.tile_full[tile_at.stage], tile_at.parity);
        {
          float scores[kTileRows / 2];
          float dweights[kTileRows / 2];
          uint32_t weights[kTileRows / 16][4];

          // 3a. S^T, and dP^T behind it.
          wgmma_pin(scores);
          wgmma_pin(dweights);
          wgmma_fence();
#pragma unroll
          for (int k = 0; k < Traits::kDim; k += 16) {
            Wgmma<Element, kTileRows>::shared_rows(
                scores, advance(own_keys, column_bytes(Traits::kBlock, k)),
                advance(query_rows, column_bytes(kTileRows, k)), k > 0);
          }
          wgmma_commit();
#pragma unroll
          for (int k = 0; k < Traits::kDim; k += 16) {
            Wgmma<Element, kTileRows>::shared_rows(
                dweights, advance(own_keys, Traits::kKeyBytes + column_bytes(Traits::kBlock, k)),
                advance(query_rows, Traits::kQueryBytes + column_bytes(kTileRows, k)), k > 0);
          }
          wgmma_commit();
          wgmma_wait<1>();
          wgmma_pin(scores);

          // 3b. P^T, while dP^T is computed.
#pragma unroll
          for (int n = 0; n < kTileRows / 8; ++n) {
            const TileRows::Limit a = at.limits[n * 8 + column];
            const TileRows::Limit b = at.limits[n * 8 + column + 1];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              float& low = scores[n * 4 + 2 * half];
              float& high = scores[n * 4 + 2 * half + 1];
              low = key + 8 * half <= a.last ? exp2_fast(fmaf(low, scale_log2, -a.lse2)) : 0.0f;
              high = key + 8 * half <= b.last ? exp2_fast(fmaf(high, scale_log2, -b.lse2)) : 0.0f;
            }
          }

          // 3c. dS^T, to shared memory. P^T becomes an operand here, not before: registers.
          wgmma_wait<0>();
          wgmma_pin(dweights);
#pragma unroll
          for (int n = 0; n < kTileRows / 8; ++n) {
            const float2 deltas = *reinterpret_cast<const float2*>(&at.deltas[n * 8 + column]);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              const int i = n * 4 + 2 * half;
              const float low = scores[i] == 0.0f ? 0.0f : scores[i] * (dweights[i] - deltas.x);
              const float high =
                  scores[i + 1] == 0.0f ? 0.0f : scores[i + 1] * (dweights[i + 1] - deltas.y);
              weights[n / 2][n % 2 * 2 + half] =
                  ElementTraits<Element>::pack(scores[i], scores[i + 1]);
              *reinterpret_cast<uint32_t*>(logits + (own_logits ^ n * 16) +
                                           half * kSwizzleAtomBytes) =
                  ElementTraits<Element>::pack(low, high);
            }
          }
          fence_async_proxy();

          // 3d. dV, on its way while the warpgroups meet.
          wgmma_pin(dv);
          wgmma_fence();
#pragma unroll
          for (int k = 0; k < kTileRows / 16; ++k) {
            Wgmma<Element, Traits::kDim>::register_columns(
                dv, weights[k],
                advance(query_columns, Traits::kQueryBytes + k * 16 * kSwizzleBytes), 1);
          }
          wgmma_commit();
          __syncwarp();
          named_barrier<Layout::kMathThreads>(1);  // dS^T of all keys is there
        }
        const uint64_t own_logit_rows =
            row_operand(shared_address(logits) + static_cast<uint32_t>(mine * 64 * kSwizzleBytes),
                        Traits::kBlock, 0);
        wgmma_pin(dk);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kTileRows; k += 16) {
          Wgmma<Element, Traits::kDim>::shared_mixed(dk, advance(own_logit_rows, k * 2),
                                                     advance(query_columns, k * kSwizzleBytes), 1);
        }
        wgmma_commit();

        // 3e. dQ: a warpgroup computes panels of 64 columns.
#pragma unroll
        for (int panel = 0; panel < Traits::kDim / kPanelColumns;
             panel += Layout::kMathWarpgroups) {
          const int own = panel + mine;
          if (own >= Traits::kDim / kPanelColumns) break;
          float dq[kPanelColumns / 2];
          const uint64_t logit_rows = column_operand(shared_address(logits), Traits::kBlock, 0);
          const uint64_t own_panel = column_operand(keys, Traits::kBlock, own * Traits::kBlock);
          wgmma_pin(dq);
          wgmma_fence();
#pragma unroll
          for (int k = 0; k < Traits::kBlock; k += 16) {
            Wgmma<Element, kPanelColumns>::shared_columns(
                dq, advance(logit_rows, k * kSwizzleBytes), advance(own_panel, k * kSwizzleBytes),
                k > 0);
          }
          wgmma_commit();
          wgmma_wait<0>();
          wgmma_pin(dq);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int row = warp % 4 * 16 + lane / 4 + 8 * half;
            const int list = at.lists[row];
            if (list < 0) continue;
            add_row<kPanelColumns / 16>(p.dq_sums + (int64_t{list} << group_shift) * Traits::kDim,
                                        p.plan.group_size(), row & group_mask,
                                        own * (kPanelColumns / 16), dq, half);
          }
        }
        wgmma_wait<0>();
        wgmma_pin(dv);
        wgmma_pin(dk);
        __syncwarp();
        if (lane == 0) mbarrier_arrive(&barriers.tile_empty[tile_at.stage]);
        tile_at.advance(Layout::kTileStages);
      }
      if (lane == 0) mbarrier_arrive(&barriers.keys_empty);

      // 3f. dK and dV of the item.
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (key + 8 * half >= tokens) continue;
        const int64_t list =
            (int64_t{work.begin} + key + 8 * half) * p.plan.op.num_kv_heads + work.group;
        add_row<Traits::kDim / 16>(p.dk_sums + list * Traits::kDim, 1, 0, 0, dk, half);
        add_row<Traits::kDim / 16>(p.dv_sums + list * Traits::kDim, 1, 0, 0, dv, half);
      }
      __syncwarp();
      if (lane == 0) mbarrier_arrive(&barriers.item_empty[item_at.stage]);
      item_at.advance(Layout::kItemStages);
    }
  }
}

}  // namespace msa::cuda
