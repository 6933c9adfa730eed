// sm90_index_forward: scores, block maxima and exact top-k in one pass over the index keys.
//
//   m[row, b] = scale * max over tokens j of block b of q_idx[row] . k_idx[j]
//   ids[row]  = the local block and the K-1 others with the highest m, lower id first on ties
//
// A thread block owns 256 rows (256 / Hkv queries of one request, all index heads). Warpgroup 0
// copies key blocks into a ring of four stages; warpgroups 1 and 2 own 128 rows each, as two tiles
// of 64 whose queries stay in registers, and work on them in turn: product, then maximum and list.
// While one warpgroup does the latter, the tensor cores have the product of the other; both of its
// tiles in flight at once would want 256 registers.
//
// The local block is always taken, so selection alone does not score it. With scores or LSE asked
// for, it is scored and masked. Bound: 2 * 256 * B * Di FLOP for 2 * B * Di bytes from L2, so the
// tensor cores; per 64-row tile of 128 keys 512 cycles of wgmma, 128 of the maximum.
#pragma once

#include <cuda.h>

#include "cuda/device/mbarrier.cuh"
#include "cuda/device/sequence.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/device/topk.cuh"
#include "cuda/device/wgmma.cuh"
#include "cuda/sm90/index_forward/params.h"

namespace msa::cuda {

template <typename Element_, int kDim_, int kBlock_>
struct IndexForwardTraits {
  using Element = Element_;
  static constexpr int kDim = kDim_;
  static constexpr int kBlock = kBlock_;
  static constexpr int kBlockLog2 = kBlock == 128 ? 7 : 6;
  static constexpr int kThreads = 3 * kWarpgroupThreads;
  static constexpr int kStageBytes = kBlock * kDim * 2;
};

/// The part of a request's blocks that one thread block works on.
struct BlockRange {
  int begin;
  int end;
  int segment;  // blocks of a segment; begin is a multiple of it
};

__device__ __forceinline__ BlockRange block_range(const IndexKernelParams& p,
                                                  const Request& request, int64_t last_position,
                                                  int split) {
  const int block_size = static_cast<int>(p.op.block_size);
  const int segment = static_cast<int>(segment_blocks(ceil_div(request.key_length, block_size)));
  if (last_position < 0) return {0, 0, segment};
  const int local = static_cast<int>(last_position) / block_size;
  const int end = p.scores_local() ? local + 1 : local;
  const int64_t num_segments = ceil_div(end, segment);
  const int begin = static_cast<int>(piece_begin(num_segments, p.splits, split)) * segment;
  const int stop = static_cast<int>(piece_begin(num_segments, p.splits, split + 1)) * segment;
  return {begin < end ? begin : end, stop < end ? stop : end, segment};
}

/// The scores of packed row t * Hkv + head.
__device__ __forceinline__ float* score_row(const IndexKernelParams& p, int64_t row) {
  return p.op.block_scores + p.head(row) * p.op.score_head_stride +
         p.token(row) * p.op.score_token_stride;
}

/// Base-two LSEs of the 256 rows, in shared memory; null when no LSE is asked for.
struct RowLses {
  float* local;    // of the local block
  float* segment;  // of the blocks of this segment so far
  float* visible;  // of the finished segments, when no other thread block shares the tile
};

// Shared memory after the ring: entries [kIndexRows * slots], then with LSE the floats of RowLses
// and the LSEs of the entries. Recomputed at each use, so that no register holds the pointers.
__device__ __forceinline__ RowLses row_lses(const IndexKernelParams& p, uint64_t* entries) {
  auto* floats = reinterpret_cast<float*>(entries + kIndexRows * p.slots);
  return {floats, floats + kIndexRows, floats + 2 * kIndexRows};
}
__device__ __forceinline__ CandidateLists candidate_lists(const IndexKernelParams& p,
                                                          uint64_t* entries, int first_row) {
  auto* lses = reinterpret_cast<float*>(entries + kIndexRows * p.slots) + 3 * kIndexRows;
  return {entries + first_row * p.slots,
          p.op.lse_idx != nullptr ? lses + first_row * p.slots : nullptr, p.slots};
}

/// One 64-row tile of a warpgroup: everything that happens to its scores of one block.
template <typename Traits>
struct IndexTile {
  static constexpr int kScores = Traits::kBlock / 2;  // registers of a thread

  uint32_t q[Traits::kDim / 16][4];
  RowState rows[2];  // rows lane / 4 and lane / 4 + 8 of the warp's 16

  __device__ __forceinline__ void multiply(float (&scores)[kScores], uint32_t keys) const {
    wgmma_pin(scores);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < Traits::kDim / 16; ++k) {
      Wgmma<typename Traits::Element, Traits::kBlock>::register_rows(
          scores, q[k], row_operand(keys, Traits::kBlock, k * 16), k > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(scores);
  }

  /// `base` is the first of the warp's 16 rows within the thread block, `first_row` the packed
  /// index t * Hkv + head of the block's row 0.
  __device__ __forceinline__ void process(float (&scores)[kScores], const IndexKernelParams& p,
                                          uint64_t* entries, int base, int first_row, int block) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (p.scores_local()) mask(scores, block, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = minus_infinity();
#pragma unroll
      for (int i = 0; i < kScores; i += 4) {
        largest = fmaxf(largest, fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
      const float score = __fmul_rn(p.op.scale, largest);
      const int local = rows[half].position >> Traits::kBlockLog2;
      float block_lse2 = 0.0f;
      if (p.op.lse_idx != nullptr) {
        block_lse2 = lse2(scores, largest, p.op.scale * kLog2E, half);
        if (lane % 4 == 0) {
          const int row = base + lane / 4 + 8 * half;
          const RowLses lses = row_lses(p, entries);
          lses.segment[row] = add_lse2(lses.segment[row], block_lse2);
          if (block == local) lses.local[row] = block_lse2;
        }
      }
      if (p.op.block_scores != nullptr && lane % 4 == 0 && block <= local &&
          block < p.op.max_blocks) {
        const int row = first_row + base + lane / 4 + 8 * half;
        score_row(p, row)[block] = score;
      }
      offer(candidate_lists(p, entries, base + 8 * half), rows[half], block < local, score, block,
            block_lse2);
    }
  }

 private:
  __device__ __forceinline__ void mask(float (&scores)[kScores], int block, int lane) const {
    const int first = block * Traits::kBlock + (lane % 4) * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (rows[half].position >= (block + 1) * Traits::kBlock - 1) continue;
#pragma unroll
      for (int i = 0; i < kScores; i += 4) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          if (first + i * 2 + c > rows[half].position) {
            scores[i + 2 * half + c] = minus_infinity();
          }
        }
      }
    }
  }

  static __device__ __forceinline__ float lse2(const float (&scores)[kScores], float largest,
                                               float scale_log2, int half) {
    const float shift = largest == minus_infinity() ? 0.0f : largest * scale_log2;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kScores; i += 4) {
      sum += exp2_fast(fmaf(scores[i + 2 * half], scale_log2, -shift));
      sum += exp2_fast(fmaf(scores[i + 2 * half + 1], scale_log2, -shift));
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    return shift + __log2f(sum);
  }
};

/// Closes a segment for the 8 rows from `row` of the thread block.
__device__ __forceinline__ void end_segment(const IndexKernelParams& p, const RowLses& lses,
                                            int row, int first_row, int num_rows, int segment) {
  if (threadIdx.x % 4 != 0) return;
  row += static_cast<int>(threadIdx.x % 32) / 4;
  if (p.splits == 1) {
    lses.visible[row] = add_lse2(lses.visible[row], lses.segment[row]);
  } else if (row < num_rows) {
    p.segment_lses[static_cast<int64_t>(first_row + row) * kMaxSegments + segment] =
        lses.segment[row];
  }
  lses.segment[row] = minus_infinity();
}

/// Final output of one row: ids ascending, the local block last, then -1; and its LSE.
__device__ __forceinline__ void write_row(const IndexKernelParams& p, const CandidateLists& lists,
                                          int64_t row, bool exists, int local, const RowLses& lses,
                                          int row_in_block) {
  const bool writes = exists && threadIdx.x % 4 == 0;
  float lse2 = minus_infinity();
  if (p.op.block_ids.data != nullptr) {
    int32_t* ids = p.op.block_ids.data + p.head(row) * p.op.block_ids.head_stride +
                   p.token(row) * p.op.block_ids.token_stride;
    int last = -1;
    int count = 0;
    for (int n = 0; n < p.num_kept; ++n) {
      float entry_lse2 = minus_infinity();
      const int id = next_id(lists, last, &entry_lse2);
      if (id == kNoId) continue;  // this row has no more; others of the warp may
      last = id;
      if (writes) ids[count] = id;
      lse2 = add_lse2(lse2, entry_lse2);
      ++count;
    }
    if (writes && local >= 0) ids[count++] = local;
    for (; writes && count < p.op.block_ids.top_k; ++count) ids[count] = -1;
  }
  if (p.op.lse_idx == nullptr || !writes) return;
  if (p.op.lse_scope == IndexLseScope::kVisible) {
    lse2 = lses.visible[row_in_block];
  } else if (local >= 0) {
    lse2 = add_lse2(lse2, lses.local[row_in_block]);
  }
  p.op.lse_idx[p.head(row) * p.op.lse_head_stride + p.token(row) * p.op.lse_token_stride] =
      lse2 * kLn2;
}

/// What one of several thread blocks that share a tile hands to the merge.
__device__ __forceinline__ void write_share(const IndexKernelParams& p, const CandidateLists& lists,
                                            int64_t row, bool exists, bool has_local,
                                            const RowLses& lses, int row_in_block) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (!exists) return;
  const int64_t num_rows = p.op.sequences.num_query_tokens << p.head_shift;
  const int64_t share = (blockIdx.y * num_rows + row) * p.slots;
  for (int slot = lane % 4; slot < p.slots; slot += 4) {
    const int place = list_place(slot, lane / 4);
    const uint64_t entry = lists.entries[place];
    p.split_entries[share + slot] = entry == kNeverReplaced ? kNoCandidate : entry;
    if (lists.lses != nullptr) p.split_lses[share + slot] = lists.lses[place];
  }
  if (lists.lses != nullptr && has_local && lane % 4 == 0)
    p.local_lses[row] = lses.local[row_in_block];
}

/// Minus infinity for the blocks past the local one, of 8 rows from `row`; `local` is that of the
/// quad's row.
__device__ __forceinline__ void fill_scores(const IndexKernelParams& p, int64_t row, int num_rows,
                                            int local) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int n = 0; n < 8; ++n) {
    const int first = __shfl_sync(~0u, local, n * 4) + 1;
    if (n >= num_rows) return;
    float* scores = score_row(p, row + n);
    for (int64_t block = first + lane; block < p.op.max_blocks; block += 32) {
      scores[block] = minus_infinity();
    }
  }
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1)
    sm90_index_forward(const __grid_constant__ CUtensorMap key_map,
                       const __grid_constant__ IndexKernelParams p) {
  // 1. Which rows and which blocks: the last tiles see most keys and start first.
  const core::SequenceParams& sequences = p.op.sequences;
  const int64_t tile_index = p.num_tiles - 1 - static_cast<int>(blockIdx.x);
  const TileLocation where = find_tile(tile_index, sequences.batch + 1, [&](int64_t r) {
    return ceil_div(load_request(sequences, p.op.k_idx.num_rows, r).num_rows, p.tile_queries);
  });
  if (where.request < 0) return;
  const Request request = load_request(sequences, p.op.k_idx.num_rows, where.request);
  const int first_query = static_cast<int>(request.first_row + where.tile * p.tile_queries);
  const int64_t queries_left = request.num_rows - where.tile * p.tile_queries;
  const int num_queries =
      static_cast<int>(queries_left < p.tile_queries ? queries_left : p.tile_queries);
  const BlockRange range = block_range(p, request, request.position(first_query + num_queries - 1),
                                       static_cast<int>(blockIdx.y));

  // 2. Shared memory: the ring first, where the swizzle wants 1024-byte alignment.
  extern __shared__ uint8_t shared_raw[];
  uint8_t* shared =
      shared_raw +
      (kSwizzleAtomBytes - shared_address(shared_raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
  uint8_t* ring = shared;
  const auto stages =
      static_cast<uint32_t>(index_stages(Traits::kStageBytes, p.slots, p.op.lse_idx != nullptr));
  auto* full = reinterpret_cast<uint64_t*>(ring + stages * Traits::kStageBytes);
  uint64_t* empty = full + kIndexMaxStages;
  uint64_t* entries = empty + kIndexMaxStages;
  if (threadIdx.x == 0) {
    tma_prefetch(&key_map);
    for (uint32_t stage = 0; stage < stages; ++stage) {
      mbarrier_init(&full[stage], 1);
      mbarrier_init(&empty[stage], 8);  // warps of the two consumers
    }
    fence_mbarrier_init();
  }
  __syncthreads();

  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroupThreads;
  if (warpgroup == 0) {
    // 3. Producer: one thread streams the blocks.
    lower_registers<24>();
    if (threadIdx.x != 0) return;
    RingPosition position;
    for (int block = range.begin; block < range.end; ++block) {
      const int2 place =
          block_coordinates(sequences, where.request, request.first_key, block, Traits::kBlock);
      mbarrier_wait(&empty[position.stage], position.parity ^ 1);
      mbarrier_arrive_expect(&full[position.stage], Traits::kStageBytes);
      uint8_t* stage = ring + position.stage * Traits::kStageBytes;
      for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
        tma_load_4d(stage + column * Traits::kBlock * 2, &key_map, &full[position.stage], column,
                    place.x, 0, place.y);
      }
      position.advance(stages);
    }
  } else {
    // 4. Consumers: 128 rows each.
    raise_registers<240>();
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
    const int lane = thread % 32;
    const int first_row = first_query << p.head_shift;
    const int num_rows = num_queries << p.head_shift;
    IndexTile<Traits> tiles[2];
    const int base = (warpgroup - 1) * 128 + thread / 32 * 16;
    const int bases[2] = {base, base + 64};
#pragma unroll
    for (int a = 0; a < 2; ++a) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = bases[a] + lane / 4 + 8 * half;
        const bool exists = row < num_rows;
        tiles[a].rows[half].position =
            exists ? static_cast<int>(request.position(first_query + (row >> p.head_shift))) : -1;
        tiles[a].rows[half].threshold = p.num_kept > 0 ? 0u : 0xFFFFFFFFu;
        tiles[a].rows[half].worst = list_place(0, lane / 4);
        if (p.op.lse_idx != nullptr && lane % 4 == 0) {
          row_lses(p, entries).segment[row] = minus_infinity();
          row_lses(p, entries).visible[row] = minus_infinity();
        }
        clear_lists(candidate_lists(p, entries, bases[a] + 8 * half), p.num_kept);
        const auto* q = static_cast<const uint16_t*>(p.op.q_idx) +
                        (first_query + (row >> p.head_shift)) * p.op.q_token_stride +
                        p.head(row) * p.op.q_head_stride + (lane % 4) * 2;
#pragma unroll
        for (int k = 0; k < Traits::kDim / 16; ++k) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            tiles[a].q[k][half + 2 * c] =
                exists ? __ldg(reinterpret_cast<const uint32_t*>(q + k * 16 + c * 8)) : 0u;
          }
        }
      }
    }
    __syncwarp();

    // 5. Scores and lists.
    const uint32_t ring_address = shared_address(ring);
    const auto work = [&](IndexTile<Traits>& tile, int tile_base, int block, uint32_t stage,
                          bool last) {
      const uint32_t keys = ring_address + stage * Traits::kStageBytes;
      float scores[IndexTile<Traits>::kScores];
      tile.multiply(scores, keys);
      if (last && lane == 0) mbarrier_arrive(&empty[stage]);
      tile.process(scores, p, entries, tile_base, first_row, block);
      if (p.op.lse_idx != nullptr && ((block + 1) % range.segment == 0 || block + 1 == range.end)) {
        end_segment(p, row_lses(p, entries), tile_base, first_row, num_rows, block / range.segment);
        end_segment(p, row_lses(p, entries), tile_base + 8, first_row, num_rows,
                    block / range.segment);
      }
    };
    RingPosition position;
    for (int block = range.begin; block < range.end; ++block) {
      mbarrier_wait(&full[position.stage], position.parity);
      work(tiles[0], bases[0], block, position.stage, false);
      work(tiles[1], bases[1], block, position.stage, true);
      position.advance(stages);
    }
    __syncwarp();

    // 6. Output: final rows, or this split's share for the merge.
#pragma unroll
    for (int a = 0; a < 2; ++a) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = bases[a] + lane / 4 + 8 * half;
        const bool exists = row < num_rows;
        const int local = tiles[a].rows[half].position >> Traits::kBlockLog2;
        const CandidateLists lists = candidate_lists(p, entries, bases[a] + 8 * half);
        if (p.splits > 1) {
          write_share(p, lists, first_row + row, exists, local >= range.begin && local < range.end,
                      row_lses(p, entries), row);
        } else {
          write_row(p, lists, first_row + row, exists, local, row_lses(p, entries), row);
        }
        if (p.op.block_scores != nullptr && blockIdx.y == 0) {
          fill_scores(p, first_row + bases[a] + 8 * half, num_rows - bases[a] - 8 * half, local);
        }
      }
    }
  }
}

}  // namespace msa::cuda
