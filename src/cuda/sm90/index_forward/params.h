// What the index kernels get: the op's params, the tiling and the workspace.
#pragma once

#include "core/params.h"
#include "cuda/device/layout.h"

namespace msa::cuda {

struct IndexKernelParams {
  core::IndexForwardParams op;
  int tile_queries = 0;  // queries of a thread block: 256 rows / Hkv
  int num_tiles = 0;     // upper bound; thread blocks past the real number return at once
  int splits = 1;        // thread blocks that share a tile's keys
  int slots = 0;         // K - 1 rounded up to a multiple of 4
  int num_kept = 0;      // K - 1
  int head_shift = 0;    // log2(Hkv)
  // Workspace, used only when splits > 1. Rows are t * Hkv + head.
  uint64_t* split_entries = nullptr;  // [splits, Tq * Hkv, slots]
  float* split_lses = nullptr;        // [splits, Tq * Hkv, slots], or null without lse_idx
  float* local_lses = nullptr;        // [Tq * Hkv]
  float* segment_lses = nullptr;      // [Tq * Hkv, kMaxSegments]

  MSA_HOST_DEVICE int64_t head(int64_t row) const { return row & ((1 << head_shift) - 1); }
  MSA_HOST_DEVICE int64_t token(int64_t row) const { return row >> head_shift; }
  MSA_HOST_DEVICE bool scores_local() const {
    return op.block_scores != nullptr || op.lse_idx != nullptr;
  }
};

}  // namespace msa::cuda
