// What the index kernels get: the op's params, the tiling and the workspace.
#pragma once

#include "core/params.h"
#include "cuda/device/layout.h"

namespace msa::cuda {

inline constexpr int kIndexRows = 256;          // of a thread block
inline constexpr int kIndexMaxStages = 4;       // of the ring of key blocks
inline constexpr int kMaxSharedBytes = 232448;  // that a thread block of sm_90 can have

/// Dynamic shared memory of the index kernel: slack for alignment, ring, barriers, lists, LSEs.
MSA_HOST_DEVICE int index_shared_bytes(int stages, int stage_bytes, int slots, bool with_lse) {
  return kSwizzleAtomBytes + stages * stage_bytes + 2 * kIndexMaxStages * 8 +
         kIndexRows * slots * (with_lse ? 12 : 8) + (with_lse ? kIndexRows * 12 : 0);
}
/// Four stages, or as many as the lists leave room for.
MSA_HOST_DEVICE int index_stages(int stage_bytes, int slots, bool with_lse) {
  int stages = kIndexMaxStages;
  while (index_shared_bytes(stages, stage_bytes, slots, with_lse) > kMaxSharedBytes) --stages;
  return stages;
}

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
