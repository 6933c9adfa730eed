// The training ops of the C API: structs into arguments, then the C++ op.
#include "msa/training.h"

#include "c_api/guard.h"
#include "c_api/views.h"

namespace msa::c_api {
namespace {

constexpr const char* kSparse = "attention_backward";
constexpr const char* kDense = "dense_attention_backward";
constexpr const char* kKl = "kl_forward_backward";

static_assert(MSA_KL_SELECTED == static_cast<int>(KlScope::kSelected));
static_assert(MSA_KL_VISIBLE == static_cast<int>(KlScope::kVisible));

AttentionBackwardArgs convert_sparse(const msa_attention_backward_args& given) {
  return {.q = input(given.q),
          .k = input(given.k),
          .v = input(given.v),
          .sequences = sequences_of(given.sequences),
          .block_size = given.block_size,
          .scale = scale_of(given.scale),
          .block_ids = input(given.block_ids),
          .block_id_layout = static_cast<BlockIdLayout>(given.block_id_layout),
          .out = input(given.out),
          .lse = input(given.lse),
          .dout = input(given.dout),
          .dlse = input(given.dlse),
          .dq = output(given.dq),
          .dk = output(given.dk),
          .dv = output(given.dv)};
}

DenseAttentionBackwardArgs convert_dense(const msa_attention_backward_args& given) {
  core::check(
      given.block_size == 0 && given.block_id_layout == MSA_HEAD_MAJOR && given.block_ids.rank == 0,
      kDense, "blocks are given: got block_size, block_id_layout or block_ids, allowed none");
  return {.q = input(given.q),
          .k = input(given.k),
          .v = input(given.v),
          .sequences = sequences_of(given.sequences),
          .scale = scale_of(given.scale),
          .out = input(given.out),
          .lse = input(given.lse),
          .dout = input(given.dout),
          .dlse = input(given.dlse),
          .dq = output(given.dq),
          .dk = output(given.dk),
          .dv = output(given.dv)};
}

KlForwardBackwardArgs convert_kl(const msa_kl_forward_backward_args& given) {
  check_reserved(kKl, given.reserved);
  return {.q = input(given.q),
          .k = input(given.k),
          .lse = input(given.lse),
          .q_idx = input(given.q_idx),
          .k_idx = input(given.k_idx),
          .lse_idx = input(given.lse_idx),
          .sequences = sequences_of(given.sequences),
          .block_size = given.block_size,
          .scale = scale_of(given.scale),
          .scale_idx = scale_of(given.scale_idx),
          .scope = static_cast<KlScope>(given.scope),
          .block_ids = input(given.block_ids),
          .block_id_layout = static_cast<BlockIdLayout>(given.block_id_layout),
          .coefficient = given.coefficient,
          .normaliser = given.normaliser,
          .loss = output(given.loss),
          .dq_idx = output(given.dq_idx),
          .dk_idx = output(given.dk_idx)};
}

}  // namespace
}  // namespace msa::c_api

using namespace msa::c_api;  // NOLINT(google-build-using-namespace): the door's own parts

msa_status msa_attention_backward_workspace_size(const msa_context* context,
                                                 const msa_attention_backward_args* args,
                                                 size_t* bytes) {
  return measure_op(kSparse, context, args, bytes, convert_sparse,
                    msa::attention_backward_workspace_size);
}
msa_status msa_attention_backward(const msa_context* context,
                                  const msa_attention_backward_args* args,
                                  const msa_workspace* workspace) {
  return call_op(kSparse, context, args, workspace, convert_sparse, msa::attention_backward);
}

msa_status msa_dense_attention_backward_workspace_size(const msa_context* context,
                                                       const msa_attention_backward_args* args,
                                                       size_t* bytes) {
  return measure_op(kDense, context, args, bytes, convert_dense,
                    msa::dense_attention_backward_workspace_size);
}
msa_status msa_dense_attention_backward(const msa_context* context,
                                        const msa_attention_backward_args* args,
                                        const msa_workspace* workspace) {
  return call_op(kDense, context, args, workspace, convert_dense, msa::dense_attention_backward);
}

msa_status msa_kl_forward_backward_workspace_size(const msa_context* context,
                                                  const msa_kl_forward_backward_args* args,
                                                  size_t* bytes) {
  return measure_op(kKl, context, args, bytes, convert_kl, msa::kl_forward_backward_workspace_size);
}
msa_status msa_kl_forward_backward(const msa_context* context,
                                   const msa_kl_forward_backward_args* args,
                                   const msa_workspace* workspace) {
  return call_op(kKl, context, args, workspace, convert_kl, msa::kl_forward_backward);
}
