// What the index kernels get: the op's params, the tiling and the workspace.
#pragma once

#include "core/params.h"
#include "cuda/device/layout.h"

namespace msa::cuda {

inline constexpr int kIndexRows = 256;          // of a thread block
inline constexpr int kIndexMaxStages = 4;       // of the ring of key blocks
inline constexpr int kMaxSharedBytes = 232448;  // that a thread block of sm_90 can have
inline constexpr int kMinPieceBlocks = 4;       // of a tile's blocks, for one thread block

/// Shared memory of the index kernel, all of it dynamic: barriers, maxima and LSEs of the rows of
/// each stage, ring of key blocks, lists of `slots` scores and ids; with an LSE, those of the lists
/// and three sums a row.
inline constexpr int kIndexMaximaOffset = 128;
inline constexpr int kIndexLsesOffset = kIndexMaximaOffset + kIndexMaxStages * kIndexRows * 4;
inline constexpr int kIndexRingOffset =
    (kIndexLsesOffset + kIndexMaxStages * kIndexRows * 4 + kSwizzleAtomBytes - 1) /
    kSwizzleAtomBytes * kSwizzleAtomBytes;
MSA_HOST_DEVICE int index_shared_bytes(int stages, int stage_bytes, int slots, bool with_lse) {
  return kIndexRingOffset + stages * stage_bytes + kIndexRows * slots * 8 +
         (with_lse ? kIndexRows * (slots + 3) * 4 : 0);
}
/// Four stages, or as many as the lists leave room for.
MSA_HOST_DEVICE int index_stages(int stage_bytes, int slots, bool with_lse) {
  int stages = kIndexMaxStages;
  while (index_shared_bytes(stages, stage_bytes, slots, with_lse) > kMaxSharedBytes) --stages;
  return stages;
}

/// Blocks of a piece when the `blocks` of a request are cut into at most `splits`. `grain` is a
/// segment of the LSE when one is asked for, else 1: results depend on no other cut.
MSA_HOST_DEVICE int piece_blocks(int blocks, int splits, int grain) {
  int size = (blocks + splits - 1) / splits;
  if (size < kMinPieceBlocks) size = kMinPieceBlocks;
  return (size + grain - 1) / grain * grain;
}

/// The same for requests of different lengths, `tiles` in all that see `work` blocks in all, and
/// the longest request `longest`: about `wanted` pieces, never more than those or `even_splits` a
/// tile, and never more than `splits` of one tile.
inline constexpr int kWholePiece = 1 << 20;  // more blocks than any request has
MSA_HOST_DEVICE int piece_size(int wanted, int even_splits, int splits, int tiles, int work,
                               int longest) {
  int size = (longest + even_splits - 1) / even_splits;
  if (wanted > tiles) {  // each tile's last piece may be a short one
    const int balanced = (work + wanted - tiles - 1) / (wanted - tiles);
    size = balanced < size ? balanced : size;
  }
  const int least = (longest + splits - 1) / splits;
  if (size < least) size = least;
  return size < kMinPieceBlocks ? kMinPieceBlocks : size;
}

struct IndexKernelParams {
  core::IndexForwardParams op;
  int tile_shift = 0;     // log2 of the queries of a thread block, 256 rows / Hkv
  int block_shift = 0;    // log2(B)
  int num_tiles = 0;      // upper bound; thread blocks past the real number return at once
  int splits = 1;         // at most so many thread blocks share a tile's keys
  int even_splits = 1;    // so many, when all requests are as long as the longest
  int wanted_blocks = 0;  // thread blocks that are to share all tiles, when splits > 1
  int slots = 0;          // of a list: list_slots(K - 1)
  int num_kept = 0;       // K - 1
  int head_shift = 0;     // log2(Hkv)
  // Workspace, used only when splits > 1. Rows are t * Hkv + head.
  int32_t* common_piece = nullptr;  // [1]: blocks of a piece, for the merge
  uint32_t* split_keys = nullptr;   // [splits, Tq * Hkv, slots]
  uint32_t* split_ids = nullptr;    // [splits, Tq * Hkv, slots]
  uint32_t* split_lses = nullptr;   // [splits, Tq * Hkv, slots], or null without lse_idx
  float* local_lses = nullptr;      // [Tq * Hkv]
  float* segment_lses = nullptr;    // [Tq * Hkv, kMaxSegments]

  /// Thread blocks of the index kernel; some of the last may have no work.
  MSA_HOST_DEVICE int num_blocks() const {
    const int even = num_tiles * even_splits;
    return wanted_blocks > even ? wanted_blocks : even;
  }
  MSA_HOST_DEVICE int64_t head(int64_t row) const { return row & ((1 << head_shift) - 1); }
  MSA_HOST_DEVICE int64_t token(int64_t row) const { return row >> head_shift; }
  // Shifts, because a division of 64-bit numbers takes some hundred cycles.
  MSA_HOST_DEVICE int blocks(int64_t tokens) const {
    return static_cast<int>((tokens + (int64_t{1} << block_shift) - 1) >> block_shift);
  }
  MSA_HOST_DEVICE int64_t tiles(int64_t queries) const {
    return (queries + (int64_t{1} << tile_shift) - 1) >> tile_shift;
  }
  MSA_HOST_DEVICE bool scores_local() const {
    return op.block_scores != nullptr || op.lse_idx != nullptr;
  }
};

}  // namespace msa::cuda
