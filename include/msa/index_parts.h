// The index branch over a part of the blocks, and the merge of such parts: context parallelism.
//
// Each rank scores the blocks that it holds and keeps the best as candidates; the lists of all
// ranks travel (8 bytes an entry) and are merged. The merge is exact: however the blocks are split,
// and in whatever order and grouping the parts are merged, the result has the same bits as one list
// over all blocks, and its ids are those of index_forward.
//
// A candidate list has K places for each row and group:
//   place 0        the local block if it lies in the part: its id and score +inf (it is always
//                  taken), else id -1 and score -inf
//   places 1...    the K - 1 best other visible blocks of the part, highest score first, on a tie
//                  the lower id; the rest id -1 and score -inf
//
// The index LSE over parts needs no op of its own. It is the lse of attention_forward with q_idx as
// q, k_idx as k and v (its one head seen Hkv times, by a head stride of 0) and the index's scale;
// each rank lists the merged ids that lie in its part (all of them for kVisible), and merge_states
// joins the parts.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "msa/context.h"
#include "msa/sequences.h"

namespace msa {

/// Blocks [begin, end) of every request.
struct BlockRange {
  int64_t begin = 0;
  int64_t end = std::numeric_limits<int64_t>::max();
};

struct IndexCandidatesArgs {
  Tensor q_idx;                ///< [Tq, Hkv, Di] float32, bfloat16 or float16
  Tensor k_idx;                ///< [Tk, Di], or with pages [num_pages, B, Di]
  Sequences sequences;         ///< whole lengths; entries of the page table outside `blocks` and
                               ///< keys outside `blocks` are never read
  int64_t block_size = 128;    ///< B, in tokens
  std::optional<float> scale;  ///< finite and > 0; default 1 / sqrt(Di)
  BlockRange blocks;           ///< 0 <= begin <= end; what lies past a request is passed over

  MutableTensor candidate_ids;     ///< output int32 [Hkv, Tq, K]
  MutableTensor candidate_scores;  ///< output float32 [Hkv, Tq, K]
};

size_t index_candidates_workspace_size(const Context& context, const IndexCandidatesArgs& args);
void index_candidates(const Context& context, const IndexCandidatesArgs& args, Workspace workspace);

/// P parts, as an all-gather lays them. A block that stands in several parts counts once.
struct MergeCandidatesArgs {
  Tensor candidate_ids;     ///< int32 [P, Hkv, Tq, K]
  Tensor candidate_scores;  ///< float32 [P, Hkv, Tq, K]

  MutableTensor merged_ids;     ///< output int32 [Hkv, Tq, K]: a candidate list again
  MutableTensor merged_scores;  ///< output float32 [Hkv, Tq, K]

  /// Optional output: int32 [Hkv, Tq, K] or [Tq, Hkv, K], what index_forward writes: ascending ids,
  /// then -1.
  MutableTensor block_ids;
  BlockIdLayout block_id_layout = BlockIdLayout::kHeadMajor;
};

/// Needs no workspace memory; of the workspace only the stream is used. Outputs overlap no input.
void merge_candidates(const Context& context, const MergeCandidatesArgs& args,
                      Workspace workspace = {});

}  // namespace msa
