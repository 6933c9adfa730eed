// Gradients of attention, and the KL loss that trains the index branch. Packed sequences only.
//
//   P = exp(scale q.k - lse) over S(i,g)       D_row = sum over dims of dout * out, minus dlse
//   dS = P * (dout . v - D_row)                dq = scale dS k
//   dk = scale sum over h in g of dS^T q       dv = sum over h in g of P^T dout
//
//   teacher p[i,g,j] = (1/G) sum over h in g of exp(scale q[i,h].k[j,g] - lse[i,h])   j in S(i,g)
//   student r[i,g,j] = exp(scale_idx q_idx[i,g].k_idx[j] - lse_idx[g,i])
//   loss = coefficient / normaliser * sum of p (log p - log r)                        0 log 0 = 0
//   dq_idx[i,g] = c sum_j (r - p) k_idx[j]     dk_idx[j] = c sum_{i,g} (r - p) q_idx[i,g]
//   c = scale_idx * coefficient / normaliser
//
// lse, out and lse_idx are what the forward ops returned over the same S; with lse and out merged
// over all parts of a context, a part's gradients are its share. Rows that see nothing have
// gradient 0. The selection has no derivative, and nothing of the KL loss reaches q, k or lse.
#pragma once

#include <optional>

#include "msa/context.h"
#include "msa/sequences.h"

namespace msa {

struct AttentionBackwardArgs {
  Tensor q;                    ///< [Tq, Hq, D] float32, bfloat16 or float16
  Tensor k;                    ///< [Tk, Hkv, D]
  Tensor v;                    ///< as k, with the same type
  Sequences sequences;         ///< packed
  int64_t block_size = 128;    ///< B, in tokens
  std::optional<float> scale;  ///< finite and > 0; default 1 / sqrt(D)
  Tensor block_ids;            ///< as attention_forward read them
  BlockIdLayout block_id_layout = BlockIdLayout::kHeadMajor;

  Tensor out;   ///< [Tq, Hq, D] of the forward, with q's type
  Tensor lse;   ///< float32 [Tq, Hq] of the forward
  Tensor dout;  ///< [Tq, Hq, D], with q's type
  Tensor dlse;  ///< optional, float32 [Tq, Hq]

  MutableTensor dq;  ///< output [Tq, Hq, D], with q's type
  MutableTensor dk;  ///< output [Tk, Hkv, D], with k's type; 0 where no row looked
  MutableTensor dv;  ///< as dk
};

size_t attention_backward_workspace_size(const Context& context, const AttentionBackwardArgs& args);
void attention_backward(const Context& context, const AttentionBackwardArgs& args,
                        Workspace workspace);

/// The same with S(i,g) = all j <= i.
struct DenseAttentionBackwardArgs {
  Tensor q;                    ///< [Tq, Hq, D] float32, bfloat16 or float16
  Tensor k;                    ///< [Tk, Hkv, D]
  Tensor v;                    ///< as k, with the same type
  Sequences sequences;         ///< packed
  std::optional<float> scale;  ///< finite and > 0; default 1 / sqrt(D)

  Tensor out;   ///< [Tq, Hq, D] of the forward, with q's type
  Tensor lse;   ///< float32 [Tq, Hq] of the forward
  Tensor dout;  ///< [Tq, Hq, D], with q's type
  Tensor dlse;  ///< optional, float32 [Tq, Hq]

  MutableTensor dq;  ///< output [Tq, Hq, D], with q's type
  MutableTensor dk;  ///< output [Tk, Hkv, D], with k's type
  MutableTensor dv;  ///< as dk
};

size_t dense_attention_backward_workspace_size(const Context& context,
                                               const DenseAttentionBackwardArgs& args);
void dense_attention_backward(const Context& context, const DenseAttentionBackwardArgs& args,
                              Workspace workspace);

/// Which tokens the KL loss runs over. It is said, never guessed from what is given.
enum class KlScope : int32_t {
  kSelected = 0,  ///< visible tokens of the listed blocks (sparse training)
  kVisible = 1,   ///< all tokens j <= i (warm-up); block_ids is absent
};

struct KlForwardBackwardArgs {
  Tensor q;                        ///< [Tq, Hq, D] float32, bfloat16 or float16
  Tensor k;                        ///< [Tk, Hkv, D]
  Tensor lse;                      ///< float32 [Tq, Hq], over exactly S
  Tensor q_idx;                    ///< [Tq, Hkv, Di] float32, bfloat16 or float16
  Tensor k_idx;                    ///< [Tk, Di]
  Tensor lse_idx;                  ///< float32 [Hkv, Tq], over exactly S
  Sequences sequences;             ///< packed
  int64_t block_size = 128;        ///< B, in tokens
  std::optional<float> scale;      ///< finite and > 0; default 1 / sqrt(D)
  std::optional<float> scale_idx;  ///< finite and > 0; default 1 / sqrt(Di)
  KlScope scope = KlScope::kSelected;
  Tensor block_ids;  ///< as attention_forward read them; absent with kVisible
  BlockIdLayout block_id_layout = BlockIdLayout::kHeadMajor;
  float coefficient = 1;  ///< finite
  double normaliser = 0;  ///< finite and > 0: Hkv * T, T the query tokens of the whole batch, of
                          ///< which this call may be one chunk or one rank's part

  MutableTensor loss;    ///< output float32 [1]
  MutableTensor dq_idx;  ///< output [Tq, Hkv, Di], with q_idx's type
  MutableTensor dk_idx;  ///< output [Tk, Di], with k_idx's type; 0 where no row looked
};

size_t kl_forward_backward_workspace_size(const Context& context,
                                          const KlForwardBackwardArgs& args);
void kl_forward_backward(const Context& context, const KlForwardBackwardArgs& args,
                         Workspace workspace);

}  // namespace msa
