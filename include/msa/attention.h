// The main branch: exact softmax attention over the tokens of the selected blocks, and the same
// over all visible tokens (dense).
//
//   S(i,g)   = { j <= i : block of j is selected for (i,g) }        dense: { j <= i }
//   out[i,h] = softmax_j(scale * q[i,h] . k[j,g]) . v[j,g]          g = floor(h / G)
//   lse[i,h] = log sum_j exp(scale * q[i,h] . k[j,g])               natural log
//
// A row that sees nothing gives out = 0 and lse = -inf, never NaN. Logits of +-1e4 do not overflow.
// Values of invisible tokens are never multiplied. Source: MiniMax Sparse Attention,
// arXiv 2606.13392; docs/maths.md has it in full.
#pragma once

#include <optional>

#include "msa/context.h"
#include "msa/sequences.h"

namespace msa {

struct AttentionForwardArgs {
  Tensor q;             ///< [Tq, Hq, D] float32, bfloat16 or float16
  Tensor k;             ///< [Tk, Hkv, D], or with pages [num_pages, B, Hkv, D] (any strides)
  Tensor v;             ///< as k, with the same type and shape; strides are its own
  Sequences sequences;  ///< requests, positions, pages
  /// Most query rows of a request, when the caller knows it; 0: not known. See IndexForwardArgs.
  int64_t max_query_length = 0;
  int64_t block_size = 128;    ///< B, in tokens
  std::optional<float> scale;  ///< finite and > 0; default 1 / sqrt(D)

  /// int32 [Hkv, Tq, K] or [Tq, Hkv, K]: a set for each row, in any order, ended by the first -1.
  /// A repeat counts once; an id without a visible token is ignored; nothing is added.
  Tensor block_ids;
  BlockIdLayout block_id_layout = BlockIdLayout::kHeadMajor;

  MutableTensor out;  ///< output [Tq, Hq, D], with q's type
  MutableTensor lse;  ///< optional output, float32 [Tq, Hq]
};

size_t attention_forward_workspace_size(const Context& context, const AttentionForwardArgs& args);
void attention_forward(const Context& context, const AttentionForwardArgs& args,
                       Workspace workspace);

struct DenseAttentionForwardArgs {
  Tensor q;             ///< [Tq, Hq, D] float32, bfloat16 or float16
  Tensor k;             ///< [Tk, Hkv, D], or with pages [num_pages, page_size, Hkv, D]
  Tensor v;             ///< as k
  Sequences sequences;  ///< requests, positions, pages
  /// Most query rows of a request, when the caller knows it; 0: not known. See IndexForwardArgs.
  int64_t max_query_length = 0;
  std::optional<float> scale;  ///< finite and > 0; default 1 / sqrt(D)
  MutableTensor out;           ///< output [Tq, Hq, D], with q's type
  MutableTensor lse;           ///< optional output, float32 [Tq, Hq]
};

size_t dense_attention_forward_workspace_size(const Context& context,
                                              const DenseAttentionForwardArgs& args);
void dense_attention_forward(const Context& context, const DenseAttentionForwardArgs& args,
                             Workspace workspace);

}  // namespace msa
