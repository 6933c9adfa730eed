// sm90_index_forward: scores, block maxima and exact top-k in one pass over the index keys.
//
//   m[row, b] = scale * max over tokens j of block b of q_idx[row] . k_idx[j]
//   ids[row]  = the local block and the K-1 others with the highest m, lower id first on ties
//
// A thread block owns 256 rows (256 / Hkv queries of one request, all index heads) and a piece of
// their blocks. Warpgroups 1 and 2 score: products, and one maximum a row and block (score.cuh).
// Warpgroup 0 selects: it streams the keys through a ring of four stages and keeps the lists
// (select.cuh). With one piece it writes the result, else merge.cu makes it from the shares.
//
// The local block is always taken, so selection alone does not score it. With scores or LSE asked
// for, it is scored and masked. Bound: 2 * 256 * B * Di FLOP for 2 * B * Di bytes from L2, so the
// tensor cores: 512 cycles of wgmma for a 64-row tile and 128 keys.
#pragma once

#include <cuda.h>

#include "cuda/device/overlap.cuh"
#include "cuda/sm90/index_forward/score.cuh"
#include "cuda/sm90/index_forward/select.cuh"

namespace msa::cuda {

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1)
    sm90_index_forward(const __grid_constant__ CUtensorMap key_map,
                       const __grid_constant__ IndexKernelParams p) {
  using Shared = IndexShared<Traits>;

  // 1. Work and barriers.
  allow_next_kernel();
  if (threadIdx.x < 32) {
    const IndexWork found = find_work(p);
    if (threadIdx.x == 0) {
      *Shared::work() = found;
      tma_prefetch(&key_map);
      for (uint32_t stage = 0; stage < kIndexMaxStages; ++stage) {
        mbarrier_init(Shared::full(stage), kSelectingWarps);
        mbarrier_init(Shared::done(stage), kScoringWarps);
      }
      fence_mbarrier_init();
    }
  }
  __syncthreads();
  const IndexWork work = *Shared::work();
  if (work.num_rows == 0) return;

  // 2. Two halves.
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroupThreads;
  if (warpgroup == 0) {
    lower_registers<kSelectRegisters>();
    select_blocks<Traits>(key_map, p, work);
  } else {
    raise_registers<kScoreRegisters>();
    const TileRows rows = {work.first_position, work.num_rows, p.head_shift};
    score_blocks<Traits>(p, work.first_row, rows, warpgroup - 1, work.begin, work.end);
  }
}

}  // namespace msa::cuda
