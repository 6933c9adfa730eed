// attention_backward, dense_attention_backward and kl_forward_backward: check -> fill params ->
// call the backend table.
#include "msa/training.h"

#include <cmath>

#include "ops/attention_args.h"

namespace msa {
namespace {

constexpr const char* kSparse = "attention_backward";
constexpr const char* kDense = "dense_attention_backward";
constexpr const char* kKl = "kl_forward_backward";

void check_packed(const char* op, const Sequences& sequences) {
  core::check(
      !sequences.page_table.present() && !sequences.kv_lens.present(), op,
      "keys are in pages: got page_table or kv_lens, allowed packed keys with cu_seqlens_k");
}

template <typename Args>
core::AttentionBackwardParams fill_backward(const char* op, const Args& args) {
  check_packed(op, args.sequences);
  core::AttentionBackwardParams p;
  p.forward = ops::fill_attention_inputs(op, args);
  const int64_t tokens = args.q.shape[0];
  const int64_t heads = p.forward.num_q_heads;
  const int64_t dim = p.forward.head_dim;
  const auto check_rows = [&](const char* name, const auto& tensor) {
    core::check_tensor(op, name, tensor, 3, {args.q.dtype});
    core::check_shape(op, name, tensor, {tokens, heads, dim});
  };
  check_rows("out", args.out);
  check_rows("dout", args.dout);
  check_rows("dq", args.dq);
  core::check_tensor(op, "lse", args.lse, 2, {DType::kFloat32});
  core::check_shape(op, "lse", args.lse, {tokens, heads});
  if (args.dlse.present()) {
    core::check_tensor(op, "dlse", args.dlse, 2, {DType::kFloat32});
    core::check_shape(op, "dlse", args.dlse, {tokens, heads});
    p.dlse = ops::rows_params<const float*>(args.dlse);
  }
  for (const auto& [name, tensor] : {std::pair{"dk", &args.dk}, {"dv", &args.dv}}) {
    core::check_tensor(op, name, *tensor, 3, {args.k.dtype});
    core::check_shape(op, name, *tensor, {args.k.shape[0], p.forward.num_kv_heads, dim});
  }
  p.out = ops::rows_params<const void*>(args.out);
  p.lse = ops::rows_params<const float*>(args.lse);
  p.dout = ops::rows_params<const void*>(args.dout);
  p.dq = ops::rows_params<void*>(args.dq);
  p.dk = ops::rows_params<void*>(args.dk);
  p.dv = ops::rows_params<void*>(args.dv);
  return p;
}

core::AttentionBackwardParams fill_params(const Context& context,
                                          const AttentionBackwardArgs& args) {
  core::AttentionBackwardParams p = fill_backward(kSparse, args);
  ops::fill_block_ids(kSparse, args, p.forward);
  core::check_supported(context, Op::kAttentionBackward, ops::geometry_of(p.forward),
                        p.forward.q_dtype);
  return p;
}

core::AttentionBackwardParams fill_params(const Context& context,
                                          const DenseAttentionBackwardArgs& args) {
  core::AttentionBackwardParams p = fill_backward(kDense, args);
  core::check_supported(context, Op::kDenseAttentionBackward, ops::geometry_of(p.forward),
                        p.forward.q_dtype);
  return p;
}

core::KlParams fill_params(const Context& context, const KlForwardBackwardArgs& args) {
  using core::check;
  check_packed(kKl, args.sequences);
  core::KlParams p;
  p.teacher = ops::fill_queries_and_keys(kKl, args);
  const int64_t tokens = args.q.shape[0];
  const int64_t heads = p.teacher.num_kv_heads;
  core::check_tensor(kKl, "lse", args.lse, 2, {DType::kFloat32});
  core::check_shape(kKl, "lse", args.lse, {tokens, p.teacher.num_q_heads});
  core::check_tensor(kKl, "q_idx", args.q_idx, 3, ops::kFloatTypes);
  core::check_shape(kKl, "q_idx", args.q_idx, {tokens, heads, -1});
  p.index_dim = args.q_idx.shape[2];
  check(p.index_dim > 0, kKl, "q_idx has an empty axis: got {}, allowed at least 1 dim",
        core::shown(args.q_idx));
  core::check_tensor(kKl, "k_idx", args.k_idx, 2, ops::kFloatTypes);
  core::check_shape(kKl, "k_idx", args.k_idx, {args.k.shape[0], p.index_dim});
  core::check_tensor(kKl, "lse_idx", args.lse_idx, 2, {DType::kFloat32});
  core::check_shape(kKl, "lse_idx", args.lse_idx, {heads, tokens});
  check(args.scope == KlScope::kSelected || args.scope == KlScope::kVisible, kKl,
        "scope is unknown: got {}, allowed 0 (selected) or 1 (visible)",
        static_cast<int32_t>(args.scope));
  if (args.scope == KlScope::kSelected) {
    ops::fill_block_ids(kKl, args, p.teacher);
  } else {
    check(!args.block_ids.present(), kKl,
          "block_ids are given for all visible tokens: got {}, allowed none with kVisible",
          core::shown(args.block_ids));
  }
  check(std::isfinite(args.coefficient), kKl,
        "coefficient is wrong: got {}, allowed a finite number", args.coefficient);
  check(std::isfinite(args.normaliser) && args.normaliser > 0, kKl,
        "normaliser is wrong: got {}, allowed a finite number above 0, Hkv * T", args.normaliser);
  core::check_tensor(kKl, "loss", args.loss, 1, {DType::kFloat32});
  core::check_shape(kKl, "loss", args.loss, {1});
  core::check_tensor(kKl, "dq_idx", args.dq_idx, 3, {args.q_idx.dtype});
  core::check_shape(kKl, "dq_idx", args.dq_idx, {tokens, heads, p.index_dim});
  core::check_tensor(kKl, "dk_idx", args.dk_idx, 2, {args.k_idx.dtype});
  core::check_shape(kKl, "dk_idx", args.dk_idx, {args.k.shape[0], p.index_dim});
  p.lse = ops::rows_params<const float*>(args.lse);
  p.q_idx = ops::rows_params<const void*>(args.q_idx);
  p.k_idx = core::key_params(args.k_idx, false, false);
  p.lse_idx = {static_cast<const float*>(args.lse_idx.data), DType::kFloat32,
               args.lse_idx.stride[1], args.lse_idx.stride[0]};
  p.scale_idx = core::check_scale(kKl, args.scale_idx, p.index_dim);
  p.coefficient = args.coefficient;
  p.normaliser = args.normaliser;
  p.loss = static_cast<float*>(args.loss.data);
  p.dq_idx = ops::rows_params<void*>(args.dq_idx);
  p.dk_idx = {args.dk_idx.data, args.dk_idx.dtype, args.dk_idx.stride[0], 0};
  Geometry geometry = ops::geometry_of(p.teacher);
  for (const int64_t dim : {p.teacher.head_dim, p.index_dim}) {
    geometry.head_dim = dim;
    core::check_supported(context, Op::kKlForwardBackward, geometry, p.teacher.q_dtype);
  }
  return p;
}

}  // namespace

size_t attention_backward_workspace_size(const Context& context,
                                         const AttentionBackwardArgs& args) {
  const core::AttentionBackwardParams p = fill_params(context, args);
  return context.table().attention_backward_workspace(p, context.num_threads());
}

void attention_backward(const Context& context, const AttentionBackwardArgs& args,
                        Workspace workspace) {
  const core::AttentionBackwardParams p = fill_params(context, args);
  core::check_workspace(kSparse, workspace,
                        context.table().attention_backward_workspace(p, context.num_threads()));
  ops::check_contents(context, kSparse, p.forward.sequences, args.k.shape[0]);
  context.table().attention_backward(p, ops::run_context(context, workspace));
}

size_t dense_attention_backward_workspace_size(const Context& context,
                                               const DenseAttentionBackwardArgs& args) {
  const core::AttentionBackwardParams p = fill_params(context, args);
  return context.table().dense_attention_backward_workspace(p, context.num_threads());
}

void dense_attention_backward(const Context& context, const DenseAttentionBackwardArgs& args,
                              Workspace workspace) {
  const core::AttentionBackwardParams p = fill_params(context, args);
  core::check_workspace(
      kDense, workspace,
      context.table().dense_attention_backward_workspace(p, context.num_threads()));
  ops::check_contents(context, kDense, p.forward.sequences, args.k.shape[0]);
  context.table().dense_attention_backward(p, ops::run_context(context, workspace));
}

size_t kl_forward_backward_workspace_size(const Context& context,
                                          const KlForwardBackwardArgs& args) {
  const core::KlParams p = fill_params(context, args);
  return context.table().kl_forward_backward_workspace(p, context.num_threads());
}

void kl_forward_backward(const Context& context, const KlForwardBackwardArgs& args,
                         Workspace workspace) {
  const core::KlParams p = fill_params(context, args);
  core::check_workspace(kKl, workspace,
                        context.table().kl_forward_backward_workspace(p, context.num_threads()));
  ops::check_contents(context, kKl, p.teacher.sequences, args.k.shape[0]);
  context.table().kl_forward_backward(p, ops::run_context(context, workspace));
}

}  // namespace msa
