// The index branch: scores key-value blocks and picks K of them for each query and GQA group.
//
//   s[g,i,j] = scale * (q_idx[i,g] . k_idx[j])            visible tokens j <= i
//   m[g,i,b] = max over visible j in block b of s[g,i,j]
//
// The local block floor(i / B) is always taken and uses one of the K places; the others are the K-1
// visible blocks with the highest m, exactly; on a tie the lower id wins. Source: MiniMax Sparse
// Attention, arXiv 2606.13392, section on the index branch; docs/maths.md has it in full.
#pragma once

#include <optional>

#include "msa/context.h"
#include "msa/sequences.h"

namespace msa {

/// Which tokens the index LSE runs over.
enum class IndexLseScope : int32_t {
  kSelected = 0,  ///< visible tokens of the selected blocks (sparse training)
  kVisible = 1,   ///< all tokens j <= i (warm-up)
};

struct IndexForwardArgs {
  Tensor q_idx;         ///< [Tq, Hkv, Di] float32, bfloat16 or float16
  Tensor k_idx;         ///< [Tk, Di], or with pages [num_pages, B, Di]
  Sequences sequences;  ///< requests, positions, pages
  /// Most query rows of a request, when the caller knows it; 0: not known. It lets the cuda backend
  /// choose its decode kernels (up to 16) without looking at device arrays. A request with more is
  /// refused where lengths can be read; on the GPU its rows are left as they were.
  int64_t max_query_length = 0;
  int64_t block_size = 128;    ///< B, in tokens
  std::optional<float> scale;  ///< finite and > 0; default 1 / sqrt(Di)

  /// Output: int32 [Hkv, Tq, K] or [Tq, Hkv, K]; ascending ids within the sequence, then -1.
  /// K is its last extent. May be absent when only scores are wanted.
  MutableTensor block_ids;
  BlockIdLayout block_id_layout = BlockIdLayout::kHeadMajor;
  /// Optional output: float32 [Hkv, Tq, max_blocks]; the local block is scored too, -inf where
  /// nothing is visible. max_blocks must cover the longest request.
  MutableTensor block_scores;
  /// Optional output: float32 [Hkv, Tq]; natural log of the sum of exp(s).
  MutableTensor lse_idx;
  IndexLseScope lse_scope = IndexLseScope::kSelected;
};

/// Bytes of workspace that index_forward needs for arguments of these shapes. Contents of the
/// tensors are not read, so maxima can be passed to size one workspace for many calls.
size_t index_forward_workspace_size(const Context& context, const IndexForwardArgs& args);

/// Throws Error on any argument outside the contract, before anything is written.
void index_forward(const Context& context, const IndexForwardArgs& args, Workspace workspace);

}  // namespace msa
