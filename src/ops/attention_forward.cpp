// attention_forward and dense_attention_forward: check -> fill params -> call the backend table.
#include "msa/attention.h"

#include "ops/attention_args.h"

namespace msa {
namespace {

constexpr const char* kSparse = "attention_forward";
constexpr const char* kDense = "dense_attention_forward";

template <typename Args>
void fill_outputs(const char* op, const Args& args, core::AttentionForwardParams& p) {
  core::check_tensor(op, "out", args.out, 3, {args.q.dtype});
  core::check_shape(op, "out", args.out, {args.q.shape[0], p.num_q_heads, p.head_dim});
  p.out = args.out.data;
  p.out_token_stride = args.out.stride[0];
  p.out_head_stride = args.out.stride[1];
  if (!args.lse.present()) return;
  core::check_tensor(op, "lse", args.lse, 2, {DType::kFloat32});
  core::check_shape(op, "lse", args.lse, {args.q.shape[0], p.num_q_heads});
  p.lse = static_cast<float*>(args.lse.data);
  p.lse_token_stride = args.lse.stride[0];
  p.lse_head_stride = args.lse.stride[1];
}

core::AttentionForwardParams fill_params(const Context& context, const AttentionForwardArgs& args) {
  core::AttentionForwardParams p = ops::fill_attention_inputs(kSparse, args);
  core::check_max_query_length(kSparse, args.max_query_length);
  p.sequences.max_query_length = args.max_query_length;
  fill_outputs(kSparse, args, p);
  ops::fill_block_ids(kSparse, args, p);
  core::check_supported(context, Op::kAttentionForward, ops::geometry_of(p), p.q_dtype);
  return p;
}

core::AttentionForwardParams fill_params(const Context& context,
                                         const DenseAttentionForwardArgs& args) {
  core::AttentionForwardParams p = ops::fill_attention_inputs(kDense, args);
  core::check_max_query_length(kDense, args.max_query_length);
  p.sequences.max_query_length = args.max_query_length;
  fill_outputs(kDense, args, p);
  core::check_supported(context, Op::kDenseAttentionForward, ops::geometry_of(p), p.q_dtype);
  return p;
}

}  // namespace

size_t attention_forward_workspace_size(const Context& context, const AttentionForwardArgs& args) {
  return context.table().attention_forward_workspace(fill_params(context, args),
                                                     context.num_threads());
}

void attention_forward(const Context& context, const AttentionForwardArgs& args,
                       Workspace workspace) {
  const core::AttentionForwardParams p = fill_params(context, args);
  core::check_workspace(kSparse, workspace,
                        context.table().attention_forward_workspace(p, context.num_threads()));
  ops::check_contents(context, kSparse, p.sequences, args.k.shape[0]);
  context.table().attention_forward(p, ops::run_context(context, workspace));
}

size_t dense_attention_forward_workspace_size(const Context& context,
                                              const DenseAttentionForwardArgs& args) {
  return context.table().dense_attention_forward_workspace(fill_params(context, args),
                                                           context.num_threads());
}

void dense_attention_forward(const Context& context, const DenseAttentionForwardArgs& args,
                             Workspace workspace) {
  const core::AttentionForwardParams p = fill_params(context, args);
  core::check_workspace(
      kDense, workspace,
      context.table().dense_attention_forward_workspace(p, context.num_threads()));
  ops::check_contents(context, kDense, p.sequences, args.k.shape[0]);
  context.table().dense_attention_forward(p, ops::run_context(context, workspace));
}

}  // namespace msa
