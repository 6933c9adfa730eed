// The selection alone, over block scores that the caller has: the K best of every row, exactly.
//
// The scores may come from index_forward (score-only mode) or from anywhere else. With
// `local_blocks` the rule is that of index_forward: row t may take the blocks 0 to local_blocks[t],
// the last of these is always taken and uses one of the K places, scores of others are not looked
// at. Without, every block of a row competes and none is taken for being local.
//
// Ties go to the lower id; -0 equals +0; a NaN counts as minus infinity. No score is rounded.
#pragma once

#include "msa/context.h"
#include "msa/sequences.h"

namespace msa {

struct SelectBlocksArgs {
  Tensor block_scores;  ///< float32 [Hkv, Tq, max_blocks]; max_blocks below 2^31
  /// Optional: int32 [Tq], the local block of each row; below 0: the row is empty, all its ids -1.
  /// Scores past max_blocks are those of no block; the local block itself needs no score.
  Tensor local_blocks;

  /// Output: int32 [Hkv, Tq, K] or [Tq, Hkv, K]; ascending ids, then -1. K is 1 to 64 on cuda.
  MutableTensor block_ids;
  BlockIdLayout block_id_layout = BlockIdLayout::kHeadMajor;
};

/// Needs no workspace memory; of the workspace only the stream is used. The output overlaps no
/// input.
void select_blocks(const Context& context, const SelectBlocksArgs& args, Workspace workspace = {});

}  // namespace msa
