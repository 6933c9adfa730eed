// sm90_attention_query_tile: attention of neighbouring queries over the union of their blocks
// (queries outer), or over all blocks up to their own (dense attention).
//
// A thread block takes a tile, 128 / G adjacent positions of one request and group: 128 rows, half
// of them for each of two math warpgroups. Their queries stay in shared memory, warp 0 streams K
// and V of the tile's blocks through two rings. A warpgroup works on the blocks that any of its
// queries picked and passes over the others; within it a row that did not pick a block gets -inf
// for all its scores, a warp none of whose rows did computes no exponential. Softmax is online:
//
//   m' = max(m, max s)   o = o 2^((m - m') c) + 2^((s - m') c) v   l likewise   c = scale log2(e)
//
// The scores of the next block are computed while the values of this one are multiplied, so
// exponentials run beside products. No partial rows: out and lse are written here.
// Blocks come in ascending order and a block that a row did not pick adds exact zeros, so the bits
// of a row depend on its own list. 0 * NaN is not zero: a row whose result is not finite is marked
// for exact_rows.cu, which looks only at what the row may see.
// Bound: 4 * 64 * B * D FLOP for each warpgroup and block that it takes; 4 * B * D bytes from L2
// for each block of the union.
#pragma once

#include "cuda/device/mbarrier.cuh"
#include "cuda/device/overlap.cuh"
#include "cuda/device/sequence.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/sm90/attention_forward/tile.cuh"

namespace msa::cuda {

template <typename Traits>
struct QueryTileLayout {
  static constexpr int kWarpgroups = 2;
  static constexpr int kThreads = (1 + kWarpgroups) * kWarpgroupThreads;
  static constexpr int kStages = 3;
  static constexpr int kValues = kStages * Traits::kKeyBytes;  // keys are first
  static constexpr int kQueries = kValues + kStages * Traits::kKeyBytes;
  static constexpr int kEntries = kQueries + kWarpgroups * Traits::kQueryBytes;
  static constexpr int kTile = kEntries + kTileEntries * 4;
  static constexpr int kBarriers = kTile + static_cast<int>(sizeof(QueryTile));
  static constexpr int kBytes = kBarriers + (4 * kStages + 2) * 8;
  static constexpr int kDynamicBytes = kBytes + kSwizzleAtomBytes;
  static_assert(kBarriers % 16 == 0 && kDynamicBytes <= 232448);
};

/// Tile `index` of the dense op: groups apart, the longest tiles of a request first.
__device__ __forceinline__ QueryTile dense_tile(const AttentionKernelParams& p, int64_t per_group,
                                                int64_t index, int block_size) {
  const core::SequenceParams& s = p.op.sequences;
  const int queries = p.tile_queries();
  const auto first_position = [&](const Request& request) {
    const int64_t position = request.key_length - request.num_rows;
    return position > 0 ? position : 0;
  };
  const auto count = [&](int64_t r) {
    const Request request = load_request(s, p.op.k.num_rows, r);
    if (request.num_rows == 0 || request.key_length == 0) return int64_t{0};
    return (request.key_length - 1) / queries - first_position(request) / queries + 1;
  };
  QueryTile tile = {};
  const TileLocation at = find_tile(index % per_group, s.batch, count);
  if (at.request < 0) return tile;
  const Request request = load_request(s, p.op.k.num_rows, at.request);
  const int64_t begin = ((request.key_length - 1) / queries - at.tile) * queries;
  const int64_t first = first_position(request) - begin;
  const int64_t last = request.key_length - begin;
  tile.row = static_cast<int>(request.first_row + begin - request.position(request.first_row));
  tile.first = static_cast<int16_t>(first > 0 ? first : 0);
  tile.last = static_cast<int16_t>(last < queries ? last : queries);
  tile.position = static_cast<int>(begin);
  tile.request = static_cast<int>(at.request);
  tile.group = static_cast<int>(index / per_group);
  tile.num_entries = (tile.position + tile.last - 1) / block_size + 1;
  tile.first_key = static_cast<int>(request.first_key);
  tile.key_length = static_cast<int>(request.key_length);
  return tile;
}

/// One block's scores into the running softmax; they become weights, in place. A row that did not
/// pick the block gets 2^-inf for each: no score of it is looked at, but 0 * inf is NaN. `shrink`
/// is what the output so far is to be multiplied by.
template <typename Traits>
__device__ __forceinline__ void online_softmax(float (&scores)[Traits::kBlock / 2],
                                               const bool (&picked)[2], float scale_log2,
                                               float (&largest2)[2], float (&sum)[2],
                                               float (&shrink)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float highest = minus_infinity();
#pragma unroll
    for (int i = 0; i < Traits::kBlock / 2; i += 4) {
      highest = fmaxf(highest, fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
    }
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
    const float highest2 =
        picked[half] ? fmaxf(largest2[half], highest * scale_log2) : largest2[half];
    const float shift = highest2 == minus_infinity() ? 0.0f : highest2;
    shrink[half] = exp2_fast(largest2[half] - shift);  // exactly 1 when the maximum stays
    largest2[half] = highest2;
    const float scale = picked[half] ? scale_log2 : 0.0f;
    const float lower = picked[half] ? -shift : minus_infinity();
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < Traits::kBlock / 2; i += 4) {
      float& low = scores[i + 2 * half];
      float& high = scores[i + 2 * half + 1];
      low = exp2_fast(fmaf(low, scale, lower));
      high = exp2_fast(fmaf(high, scale, lower));
      total += low + high;
    }
    sum[half] = fmaf(sum[half], shrink[half], total);
  }
}

/// Weights as operand A.
template <typename Traits>
__device__ __forceinline__ void pack_weights(const float (&scores)[Traits::kBlock / 2],
                                             uint32_t (&weights)[Traits::kBlock / 16][4]) {
#pragma unroll
  for (int i = 0; i < Traits::kBlock / 2; i += 2) {
    weights[i / 8][i / 4 % 2 * 2 + i / 2 % 2] =
        ElementTraits<typename Traits::Element>::pack(scores[i], scores[i + 1]);
  }
}

template <typename Traits>
__device__ __forceinline__ void shrink_rows(float (&out)[Traits::kDim / 2],
                                            const float (&shrink)[2]) {
  if (__all_sync(~0u, shrink[0] == 1.0f && shrink[1] == 1.0f)) return;
#pragma unroll
  for (int i = 0; i < Traits::kDim / 2; ++i) out[i] *= shrink[i / 2 % 2];
}

/// Zeroes the rows of V from `num_tokens` on: they lie past the end of the request. Both
/// warpgroups may do so at once; each does before it multiplies.
template <typename Traits>
__device__ __forceinline__ void zero_values(uint8_t* values, int num_tokens, int thread,
                                            int barrier) {
  constexpr int kPanelChunks = Traits::kBlock * kSwizzleBytes / 16;
  for (int i = thread; i < Traits::kDim / kPanelColumns * kPanelChunks; i += kWarpgroupThreads) {
    if (i % kPanelChunks * 16 / kSwizzleBytes < num_tokens) continue;
    *reinterpret_cast<uint4*>(values + i * 16) = make_uint4(0, 0, 0, 0);
  }
  fence_async_proxy();
  __syncwarp();
  named_barrier<kWarpgroupThreads>(barrier);
}

template <typename Traits>
__global__ void __launch_bounds__(QueryTileLayout<Traits>::kThreads, 1)
    sm90_attention_query_tile(const __grid_constant__ CUtensorMap q_map,
                              const __grid_constant__ CUtensorMap k_map,
                              const __grid_constant__ CUtensorMap v_map,
                              const __grid_constant__ AttentionKernelParams p) {
  using Layout = QueryTileLayout<Traits>;
  using Type = ElementTraits<typename Traits::Element>;
  constexpr uint32_t kStages = Layout::kStages;

  // 1. Shared memory and barriers.
  allow_next_kernel();
  extern __shared__ uint8_t shared_raw[];
  uint8_t* shared =
      shared_raw +
      (kSwizzleAtomBytes - shared_address(shared_raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
  auto* keys_full = reinterpret_cast<uint64_t*>(shared + Layout::kBarriers);
  uint64_t* keys_empty = keys_full + kStages;
  uint64_t* values_full = keys_empty + kStages;
  uint64_t* values_empty = values_full + kStages;
  uint64_t* tile_full = values_empty + kStages;
  uint64_t* tile_empty = tile_full + 1;
  auto* shared_entries = reinterpret_cast<uint32_t*>(shared + Layout::kEntries);
  auto* shared_tile = reinterpret_cast<QueryTile*>(shared + Layout::kTile);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool dense = p.op.block_ids.data == nullptr;
  if (threadIdx.x == 0) {
    tma_prefetch(&q_map);
    tma_prefetch(&k_map);
    tma_prefetch(&v_map);
    for (uint32_t stage = 0; stage < kStages; ++stage) {
      mbarrier_init(&keys_full[stage], 1);
      mbarrier_init(&values_full[stage], 1);
      mbarrier_init(&keys_empty[stage], Layout::kWarpgroups * 4);  // every math warp
      mbarrier_init(&values_empty[stage], Layout::kWarpgroups * 4);
    }
    mbarrier_init(tile_full, 1);
    mbarrier_init(tile_empty, Layout::kWarpgroups * 4);
    fence_mbarrier_init();
  }
  __syncthreads();
  wait_for_previous_kernel();

  if (warp < 4) {
    // 2. Producer. Tiles by ticket; the lanes find where 32 blocks lie, lane 0 has them copied.
    lower_registers<56>();
    if (warp > 0) return;
    const auto take_ticket = [&] { return lane == 0 ? atomicAdd(p.tile_ticket, 1) : 0; };
    int64_t per_group = 0;
    int64_t num_tiles = 0;
    if (dense) {
      for (int64_t r = lane; r < p.op.sequences.batch; r += 32) {
        const Request request = load_request(p.op.sequences, p.op.k.num_rows, r);
        if (request.num_rows == 0 || request.key_length == 0) continue;
        const int64_t first = request.key_length - request.num_rows;
        per_group += (request.key_length - 1) / p.tile_queries() -
                     (first > 0 ? first : 0) / p.tile_queries() + 1;
      }
      per_group = __reduce_add_sync(~0u, static_cast<int>(per_group));
      num_tiles = per_group * p.op.num_kv_heads;
    } else {
      num_tiles = *p.num_tiles < p.tile_capacity ? *p.num_tiles : p.tile_capacity;
    }
    RingPosition at;
    uint32_t tile_parity = 0;
    int ticket = __shfl_sync(~0u, take_ticket(), 0);
    int next_ticket = take_ticket();
    while (true) {
      QueryTile tile = {};
      if (ticket < num_tiles) {
        tile = dense ? dense_tile(p, per_group, ticket, Traits::kBlock) : p.tiles[ticket];
      }
      const uint32_t* entries = p.tile_entries + int64_t{ticket} * kTileEntries;
      const bool end = ticket >= num_tiles;
      ticket = __shfl_sync(~0u, next_ticket, 0);
      if (!end) next_ticket = take_ticket();
      if (!end && tile.num_entries == 0) continue;  // given up after it had its number
      mbarrier_wait(tile_empty, tile_parity ^ 1);
      tile_parity ^= 1;
      __syncwarp();
      if (lane == 0) *shared_tile = tile;
      if (!dense) {
        for (int n = lane; n < tile.num_entries; n += 32) shared_entries[n] = entries[n];
      }
      __syncwarp();
      if (lane == 0) {
        mbarrier_arrive_expect(tile_full, static_cast<uint32_t>(tile.last - tile.first)
                                              << p.group_shift << (Traits::kDim == 128 ? 8 : 7));
      }
      __syncwarp();
      if (end) return;
      for (int query = tile.first + lane; query < tile.last; query += 32) {
        const int row = query << p.group_shift;
        uint8_t* place = shared + Layout::kQueries + row / kTileRows * Traits::kQueryBytes +
                         row % kTileRows * kSwizzleBytes;
        for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
          tma_load_3d(place + column * kTileRows * 2, &q_map, tile_full, column,
                      tile.group << p.group_shift, tile.row + query);
        }
      }
      for (int base = 0; base < tile.num_entries; base += 32) {
        const int n = base + lane;
        int2 place = make_int2(0, 0);
        if (n < tile.num_entries) {
          const int block = dense ? n : tile_entry_block(entries[n]);
          place = block_coordinates(p.op.sequences, tile.request, tile.first_key, block,
                                    Traits::kBlock);
        }
        const int left = tile.num_entries - base;
        for (int i = 0; i < 32 && i < left; ++i) {
          const int token = __shfl_sync(~0u, place.x, i);
          const int page = __shfl_sync(~0u, place.y, i);
          if (lane == 0) {
            mbarrier_wait(&keys_empty[at.stage], at.parity ^ 1);
            mbarrier_arrive_expect(&keys_full[at.stage], Traits::kKeyBytes);
            uint8_t* keys = shared + at.stage * Traits::kKeyBytes;
            for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
              tma_load_4d(keys + column * Traits::kBlock * 2, &k_map, &keys_full[at.stage], column,
                          token, tile.group, page);
            }
            mbarrier_wait(&values_empty[at.stage], at.parity ^ 1);
            mbarrier_arrive_expect(&values_full[at.stage], Traits::kKeyBytes);
            uint8_t* values = keys + Layout::kValues;
            for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
              tma_load_4d(values + column * Traits::kBlock * 2, &v_map, &values_full[at.stage],
                          column, token, tile.group, page);
            }
          }
          __syncwarp();
          at.advance(kStages);
        }
      }
    }
  } else {
    // 3. Math: rows 64 w to 64 w + 63 of the tile belong to warpgroup w.
    raise_registers<224>();
    const int warpgroup = warp / 4 - 1;
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
    const int own_queries = kTileRows >> p.group_shift;
    const auto own_picks = static_cast<uint32_t>(((uint64_t{1} << own_queries % 32) - 1)
                                                 << warpgroup * own_queries % 32);  // G >= 8
    const float scale_log2 = p.op.scale * kLog2E;
    uint32_t queries = shared_address(shared + Layout::kQueries) + warpgroup * Traits::kQueryBytes;
    const uint32_t all_keys = shared_address(shared);
    int query[2];  // of the thread's two rows, within the tile
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      query[half] = (warpgroup * kTileRows + accumulator_row(thread, 2 * half)) >> p.group_shift;
    }
    uint32_t first_number = 0;  // of the tile's blocks, counted through all tiles
    uint32_t tile_parity = 0;
    while (true) {
      mbarrier_wait(tile_full, tile_parity);
      tile_parity ^= 1;
      const QueryTile tile = *shared_tile;
      const int count = tile.num_entries;
      if (count == 0) break;

      // 3a. Which blocks are wanted, and the rings.
      const int own_first = warpgroup * own_queries;
      const bool rows_exist = tile.last > own_first && tile.first < own_first + own_queries;
      const int local = (tile.position + own_first) / Traits::kBlock;
      const auto next_wanted = [&](int n) {
        if (dense) return rows_exist && n <= local && n < count ? n : count;
        while (n < count && (tile_entry_picks(shared_entries[n]) & own_picks) == 0) ++n;
        return n;
      };
      const auto stage_of = [&](int n) {
        return (first_number + static_cast<uint32_t>(n)) % kStages;
      };
      const auto parity_of = [&](int n) {
        return (first_number + static_cast<uint32_t>(n)) / kStages & 1;
      };
      const auto release = [&](uint64_t* barrier) {
        __syncwarp();
        if (lane == 0) mbarrier_arrive(barrier);
      };
      const auto pass_over = [&](uint64_t* full, uint64_t* empty, int n) {
        mbarrier_wait(&full[stage_of(n)], parity_of(n));
        release(&empty[stage_of(n)]);
      };
      const auto pass_over_blocks = [&](int from, int to) {
        for (int n = from; n < to; ++n) {
          pass_over(keys_full, keys_empty, n);
          pass_over(values_full, values_empty, n);
        }
      };
      // Whether the thread's rows picked a block. Returns the tokens that the request has of it,
      // and in `own` whether the warpgroup's queries stand in it.
      const auto look_at = [&](int n, bool (&picked)[2], bool& own) {
        const uint32_t entry = dense ? 0 : shared_entries[n];
        const int block = dense ? n : tile_entry_block(entry);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          picked[half] = dense || (tile_entry_picks(entry) >> query[half] & 1) != 0;
        }
        own = block == local;
        return tile.key_length - block * Traits::kBlock;
      };
      const auto mask_own = [&](float (&scores)[Traits::kBlock / 2]) {
        const int last_visible[2] = {(tile.position + query[0]) % Traits::kBlock,
                                     (tile.position + query[1]) % Traits::kBlock};
        mask_tile<Traits>(scores, last_visible);
      };
      const auto wait_values = [&](int n, int tokens) {
        mbarrier_wait(&values_full[stage_of(n)], parity_of(n));
        if (tokens < Traits::kBlock) {
          zero_values<Traits>(shared + Layout::kValues + stage_of(n) * Traits::kKeyBytes, tokens,
                              thread, 1 + warpgroup);
        }
      };

      // 3b. Runs of blocks: scores of the first, then scores of the next beside values of this
      //     one, then values of the last. A run ends where the next wanted block is farther than
      //     the ring is long.
      float out[Traits::kDim / 2];
#pragma unroll
      for (int i = 0; i < Traits::kDim / 2; ++i) out[i] = 0.0f;
      float largest2[2] = {minus_infinity(), minus_infinity()};
      float sum[2] = {};
      int done = 0;  // blocks that this warp has released
      int n = next_wanted(0);
      if (n == count) release(tile_empty);
      while (n < count) {
        float scores[Traits::kBlock / 2];
        uint32_t weights[Traits::kBlock / 16][4];
        float shrink[2];
        bool picked[2];
        bool own;
        pass_over_blocks(done, n);
        int tokens = look_at(n, picked, own);
        int next = next_wanted(n + 1);
        mbarrier_wait(&keys_full[stage_of(n)], parity_of(n));
        multiply_keys<Traits>(scores, queries, all_keys + stage_of(n) * Traits::kKeyBytes);
        release(&keys_empty[stage_of(n)]);
        if (next == count) release(tile_empty);  // neither queries nor entries are read again
        if (own) mask_own(scores);
        online_softmax<Traits>(scores, picked, scale_log2, largest2, sum, shrink);
        shrink_rows<Traits>(out, shrink);
        pack_weights<Traits>(scores, weights);
        while (next < count && next - n <= static_cast<int>(kStages)) {
          for (int over = n + 1; over < next; ++over) pass_over(keys_full, keys_empty, over);
          const int next_tokens = look_at(next, picked, own);
          const int after = next_wanted(next + 1);
          mbarrier_wait(&keys_full[stage_of(next)], parity_of(next));
          wait_values(n, tokens);
          wgmma_pin(scores);
          wgmma_pin(out);
          wgmma_fence();
          asm volatile("" : "+r"(queries));  // eight descriptors held in registers would spill
          issue_keys<Traits>(scores, queries, all_keys + stage_of(next) * Traits::kKeyBytes);
          wgmma_commit();
          issue_values<Traits>(out, weights,
                               all_keys + Layout::kValues + stage_of(n) * Traits::kKeyBytes, true);
          wgmma_commit();
          wgmma_wait<1>();
          wgmma_pin(scores);
          release(&keys_empty[stage_of(next)]);
          if (after == count) release(tile_empty);
          if (own) mask_own(scores);
          online_softmax<Traits>(scores, picked, scale_log2, largest2, sum, shrink);
          wgmma_pin(scores);  // the exponentials belong here, packing belongs behind the wait
          wgmma_wait<0>();
          wgmma_pin(out);
          wgmma_pin(scores);
          release(&values_empty[stage_of(n)]);
          for (int over = n + 1; over < next; ++over) pass_over(values_full, values_empty, over);
          shrink_rows<Traits>(out, shrink);
          pack_weights<Traits>(scores, weights);
          n = next;
          tokens = next_tokens;
          next = after;
        }
        wait_values(n, tokens);
        wgmma_pin(out);
        wgmma_fence();
        issue_values<Traits>(out, weights,
                             all_keys + Layout::kValues + stage_of(n) * Traits::kKeyBytes, true);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_pin(out);
        release(&values_empty[stage_of(n)]);
        done = n + 1;
        n = next;
      }
      pass_over_blocks(done, count);
      first_number += static_cast<uint32_t>(count);

      // 3c. Out and lse.
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float total = sum[half];
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        const float inverse = total == 0.0f ? 0.0f : reciprocal_fast(total);
        float zero = total * 0.0f;  // NaN when anything is infinite or NaN
#pragma unroll
        for (int i = 2 * half; i < Traits::kDim / 2; i += 4) {
          zero = fmaf(out[i], 0.0f, fmaf(out[i + 1], 0.0f, zero));
        }
        zero += __shfl_xor_sync(~0u, zero, 1);
        zero += __shfl_xor_sync(~0u, zero, 2);
        const int64_t row = tile.row + query[half];
        const int head = (tile.group << p.group_shift) +
                         (accumulator_row(thread, 2 * half) & (p.group_size() - 1));
        const bool exists = query[half] >= tile.first && query[half] < tile.last;
        auto* to = static_cast<uint16_t*>(p.op.out) + row * p.op.out_token_stride +
                   head * p.op.out_head_stride + lane % 4 * 8;
#pragma unroll
        for (int s = 0; s < Traits::kDim / 32; ++s) {
          uint32_t words[4];
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const int i = (s * 4 + j) * 4 + 2 * half;
            words[j] = Type::pack_output(out[i] * inverse, out[i + 1] * inverse);
          }
          transpose_quad(words);
          if (exists) store_columns(to + s * 32, words, p.wide_out);
        }
        if (exists && lane % 4 == 0) {
          if (p.op.lse != nullptr) {
            p.op.lse[row * p.op.lse_token_stride + head * p.op.lse_head_stride] =
                total == 0.0f ? minus_infinity() : (largest2[half] + __log2f(total)) * kLn2;
          }
          if (zero != 0.0f) {
            atomicOr(reinterpret_cast<unsigned long long*>(
                         p.masks + (row - p.plan_begin) * p.op.num_kv_heads + tile.group),
                     static_cast<unsigned long long>(kExactBit));
          }
        }
      }
    }
  }
}

}  // namespace msa::cuda
