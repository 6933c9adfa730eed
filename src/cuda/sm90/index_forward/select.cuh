// The selecting half of the index kernel: one warpgroup streams the key blocks and turns the maxima
// that the scoring warpgroups leave into lists, LSEs and score rows. A thread owns two rows, 128
// apart, and shares nothing with other threads until the output.
//
// A row meets a better block (K-1) ln(n / K) times in n blocks; at the start, or when scores rise
// with the position, every time. Then a list costs more than the 2048 cycles of wgmma for a block
// (docs/cuda-index.md), so a row holds one better block back, and a warp updates its 32 lists
// together when one of them has to take a second.
#pragma once

#include <cuda.h>

#include "cuda/device/lse.cuh"
#include "cuda/device/mbarrier.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/sm90/index_forward/pieces.cuh"
#include "cuda/sm90/index_forward/shared.cuh"

namespace msa::cuda {

/// What a thread knows of one of its rows.
struct SelectedRow {
  int local;  // local block; below 0: the row sees nothing or does not exist
  ListState list;
  uint32_t held_key;  // a better block that is not in the list yet; kNoCandidate: none
  int held_id;
  float held_lse2;
};

/// The same number, but what is computed from it stays behind this point: for addresses that are
/// rarely wanted and would otherwise hold registers throughout a loop.
__device__ __forceinline__ int late(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

/// The scores of packed row t * Hkv + head.
__device__ __forceinline__ float* score_row(const IndexKernelParams& p, int64_t row) {
  return p.op.block_scores + p.head(row) * p.op.score_head_stride +
         p.token(row) * p.op.score_token_stride;
}

/// Copies one key block to its stage and hands the stage to the scoring warps.
template <typename Traits>
__device__ __forceinline__ void fill_stage(const CUtensorMap& key_map, uint32_t stage, int2 place) {
  uint64_t* full = IndexShared<Traits>::full(stage);
  mbarrier_arrive_expect(full, Traits::kStageBytes);
  for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
    tma_load_4d(IndexShared<Traits>::keys(stage) + column * Traits::kBlock * 2, &key_map, full,
                column, place.x, 0, place.y);
  }
}

/// The block that the row holds back goes into its list.
__device__ __forceinline__ void put_held(const IndexLists& lists, int row, SelectedRow& own) {
  if (own.held_key == kNoCandidate) return;
  replace_worst(lists, row, own.list, own.held_key, own.held_id, __float_as_uint(own.held_lse2));
  own.held_key = kNoCandidate;
}

/// Adds the LSE of a block to those of the row.
__device__ __forceinline__ void take_lse(const IndexKernelParams& p, const IndexWork& work,
                                         const RowLses& lses, int row, int local, int block,
                                         bool ends_segment, float block_lse2) {
  if (block == local) lses.local[row] = block_lse2;
  float sum = add_lse2(lses.segment[row], block_lse2);
  if (ends_segment) {
    if (work.alone != 0) {
      lses.visible[row] = add_lse2(lses.visible[row], sum);
    } else if (row < work.num_rows) {
      const int64_t packed = late(work.first_row + row);
      p.segment_lses[packed * kMaxSegments + block / work.segment] = sum;
    }
    sum = minus_infinity();
  }
  lses.segment[row] = sum;
}

/// Final output of the warp's 32 rows: ids ascending, the local block last, then -1; and LSEs.
__device__ __forceinline__ void write_rows(const IndexKernelParams& p, const IndexWork& work,
                                           const IndexLists& lists, const RowLses& lses,
                                           const SelectedRow& own, int own_row) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int own_count = list_count(lists, own.list);
  if (p.op.block_ids.data != nullptr) {
    // Lanes side by side write the places of one row: two rows at once when they fit.
    const int top_k = static_cast<int>(p.op.block_ids.top_k);
    const int lanes = top_k <= 16 ? 16 : 32;
#pragma unroll 1
    for (int n = 0; n < 32; n += 32 / lanes) {
      const int owner = n + lane / lanes;
      const int k = lane % lanes;
      const int local = __shfl_sync(~0u, own.local, owner);
      const int count = __shfl_sync(~0u, own_count, owner);
      const int row = own_row - lane + owner;
      if (row >= work.num_rows || k >= top_k) continue;
      int id = k == count && local >= 0 ? local : -1;
      if (k < count) id = static_cast<int>(lists.ids[lists.place(lists.first_slot() + k, row)]);
      const int packed = work.first_row + row;
      p.op.block_ids.data[p.head(packed) * p.op.block_ids.head_stride +
                          p.token(packed) * p.op.block_ids.token_stride + k] = id;
    }
  }
  if (p.op.lse_idx == nullptr || own_row >= work.num_rows) return;
  float lse2 = minus_infinity();
  if (p.op.lse_scope == IndexLseScope::kVisible) {
    lse2 = lses.visible[own_row];
  } else {
#pragma unroll 1
    for (int n = 0; n < own_count; ++n) {
      const int place = lists.place(lists.first_slot() + n, own_row);
      lse2 = add_lse2(lse2, __uint_as_float(lists.lses[place]));
    }
    if (own.local >= 0) lse2 = add_lse2(lse2, lses.local[own_row]);
  }
  const int packed = work.first_row + own_row;
  p.op.lse_idx[p.head(packed) * p.op.lse_head_stride + p.token(packed) * p.op.lse_token_stride] =
      lse2 * kLn2;
}

/// What one of several thread blocks that share a tile hands to the merge, for the warp's rows.
__device__ __forceinline__ void write_shares(const IndexKernelParams& p, const IndexWork& work,
                                             const IndexLists& lists, const RowLses& lses,
                                             const SelectedRow& own, int own_row, int64_t piece) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t num_rows = p.op.sequences.num_query_tokens << p.head_shift;
  const int fours = lists.slots / 4;
  const auto copy = [&](uint32_t* to, const uint32_t* from) {
    if (to == nullptr) return;
    auto* rows = reinterpret_cast<uint4*>(to) + (piece * num_rows + work.first_row) * fours;
#pragma unroll 1
    for (int n = lane; n < 32 * fours; n += 32) {
      const int row = own_row - lane + n / fours;
      if (row < work.num_rows) {
        rows[row * fours + n % fours] =
            reinterpret_cast<const uint4*>(from)[n % fours * kIndexRows + row];
      }
    }
  };
  copy(p.split_keys, lists.keys);
  copy(p.split_ids, lists.ids);
  copy(p.split_lses, lists.lses);
  if (p.op.lse_idx != nullptr && own_row < work.num_rows && own.local >= work.begin &&
      own.local < work.end) {
    p.local_lses[work.first_row + own_row] = lses.local[own_row];
  }
}

/// Minus infinity for the blocks past the local one of the warp's 32 rows.
__device__ __forceinline__ void fill_scores(const IndexKernelParams& p, const IndexWork& work,
                                            const SelectedRow& own, int own_row) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll 1
  for (int n = 0; n < 32; ++n) {
    const int first = __shfl_sync(~0u, own.local, n) + 1;
    const int row = own_row - lane + n;
    if (row >= work.num_rows) return;
    float* scores = score_row(p, work.first_row + row);
#pragma unroll 1
    for (int64_t block = (first > 0 ? first : 0) + lane; block < p.op.max_blocks; block += 32) {
      scores[block] = minus_infinity();
    }
  }
}

/// Everything that the selecting warpgroup does; its threads are the first 128.
template <typename Traits>
__device__ __forceinline__ void select_blocks(const CUtensorMap& key_map,
                                              const IndexKernelParams& p, const IndexWork& work) {
  using Shared = IndexShared<Traits>;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int stages = index_stages(Traits::kStageBytes, p.slots, p.op.lse_idx != nullptr);
  const auto place_of = [&](int block) {
    return block_coordinates(p.op.sequences, work.request, work.first_key, block, Traits::kBlock);
  };

  // 1. The ring is filled once.
#pragma unroll 1
  for (int n = 0; n < stages && work.begin + n < work.end; ++n) {
    const auto stage = static_cast<uint32_t>(n);
    if (thread == 0) {
      fill_stage<Traits>(key_map, stage, place_of(work.begin + n));
    } else if (lane == 0) {
      mbarrier_arrive(Shared::full(stage));
    }
  }

  // 2. Two empty rows.
  const IndexLists lists = Shared::lists(p);
  const RowLses lses = Shared::row_lses(p);
  SelectedRow rows[2];
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    const int row = thread + n * 128;
    const int position = row < work.num_rows ? work.first_position + (row >> p.head_shift) : -1;
    rows[n] = {position >> Traits::kBlockLog2, clear_list(lists, row), kNoCandidate, 0, 0.0f};
    if (p.op.lse_idx != nullptr) {
      lses.local[row] = lses.segment[row] = lses.visible[row] = minus_infinity();
    }
  }

  // 3. A block's maxima come, its stage goes back; where the next block lies is looked up early.
  RingPosition ring;
  int segment_end = work.begin + work.segment;
  int2 next_place = make_int2(0, 0);
  if (thread == 0 && work.begin + stages < work.end) next_place = place_of(work.begin + stages);
  for (int block = work.begin; block < work.end; ++block) {
    mbarrier_wait(Shared::done(ring.stage), ring.parity);
    float largest[2];
    float block_lse2[2] = {};
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      largest[n] = Shared::maxima(ring.stage)[thread + n * 128];
      if (p.op.lse_idx != nullptr) {
        block_lse2[n] = Shared::block_lses(ring.stage)[thread + n * 128];
      }
    }
    __syncwarp();
    if (block + stages < work.end) {
      if (thread == 0) {
        fill_stage<Traits>(key_map, ring.stage, next_place);
        if (block + stages + 1 < work.end) next_place = place_of(block + stages + 1);
      } else if (lane == 0) {
        mbarrier_arrive(Shared::full(ring.stage));
      }
    }
    ring.advance(static_cast<uint32_t>(stages));
    const bool ends_segment = block + 1 == segment_end || block + 1 == work.end;
    if (ends_segment) segment_end += work.segment;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int row = thread + n * 128;
      SelectedRow& own = rows[n];
      const float score = __fmul_rn(p.op.scale, largest[n]);
      if (p.op.block_scores != nullptr && block <= own.local && block < p.op.max_blocks) {
        score_row(p, late(work.first_row + row))[block] = score;
      }
      if (p.op.lse_idx != nullptr) {
        take_lse(p, work, lses, row, own.local, block, ends_segment, block_lse2[n]);
      }
      const uint32_t key = ordered_score(__float_as_uint(score));
      bool enters = block < own.local && key > own.list.threshold;
      if (enters && own.list.threshold == kNoCandidate) {
        append_entry(lists, row, own.list, key, block, __float_as_uint(block_lse2[n]));
        enters = false;
      }
      if (__any_sync(~0u, enters && own.held_key != kNoCandidate)) {
        put_held(lists, row, own);
        enters = enters && key > own.list.threshold;
      }
      if (enters) {
        own.held_key = key;
        own.held_id = block;
        own.held_lse2 = block_lse2[n];
      }
    }
  }
#pragma unroll
  for (int n = 0; n < 2; ++n) put_held(lists, thread + n * 128, rows[n]);
  __syncwarp();

  // 4. Output.
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    const int row = thread + n * 128;
    if (work.alone != 0) {
      write_rows(p, work, lists, lses, rows[n], row);
    } else {
      write_shares(p, work, lists, lses, rows[n], row, work.piece);
    }
    if (p.op.block_scores != nullptr && work.piece == 0) fill_scores(p, work, rows[n], row);
  }
}

}  // namespace msa::cuda
