// How much of dense attention a selection finds: block recall and score recall.
//
//   P_b  = mass of block b under dense attention over all j <= i, mean over the heads of the group
//   I*   = the K blocks of largest P_b, on a tie the lower id        I = the blocks of block_ids
//
//   block recall = |I* and I| / K        score recall = sum of P over (I* and I) / sum of P over I*
//
// Both also without the local block, which every selection has: it is then taken out of I* and I
// before they are counted (K becomes K - 1 where I* had it). A quotient of nothing by nothing is 1.
// Rows with at most K visible blocks choose nothing and do not count. K is the last extent of
// block_ids. Source: MiniMax Sparse Attention, arXiv 2606.13392; docs/maths.md has it in full.
#pragma once

#include <optional>

#include "msa/context.h"
#include "msa/sequences.h"

namespace msa {

/// The four recalls, as rows or as means.
struct RecallViews {
  MutableTensor block_recall;
  MutableTensor score_recall;
  MutableTensor block_recall_without_local;
  MutableTensor score_recall_without_local;
};

struct RecallArgs {
  Tensor q;                    ///< [Tq, Hq, D] float32, bfloat16 or float16
  Tensor k;                    ///< [Tk, Hkv, D], or with pages [num_pages, B, Hkv, D]
  Sequences sequences;         ///< requests, positions, pages
  int64_t block_size = 128;    ///< B, in tokens
  std::optional<float> scale;  ///< finite and > 0; default 1 / sqrt(D)
  Tensor block_ids;            ///< as attention_forward reads them
  BlockIdLayout block_id_layout = BlockIdLayout::kHeadMajor;

  RecallViews rows;   ///< optional outputs, float32 [Hkv, Tq]; NaN where a row does not count
  RecallViews means;  ///< optional outputs, float32 [1], over rows and groups; NaN when none counts
};

/// One row costs what dense attention of its scores costs: to measure a long prompt, pass some of
/// its rows, each as a request of one query.
size_t recall_workspace_size(const Context& context, const RecallArgs& args);
void recall(const Context& context, const RecallArgs& args, Workspace workspace);

}  // namespace msa
