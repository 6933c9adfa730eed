// attention_forward and dense_attention_forward: check -> fill params -> call the backend table.
#include "msa/attention.h"

#include "core/backend.h"
#include "core/check.h"

namespace msa {
namespace {

constexpr const char* kSparse = "attention_forward";
constexpr const char* kDense = "dense_attention_forward";

/// What both ops share. Both argument structs have these fields under the same names.
template <typename Args>
core::AttentionForwardParams fill_shared(const char* op, const Args& args) {
  using core::check;
  const auto float_types = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
  const bool paged = args.sequences.page_table.present();
  const int key_rank = paged ? 4 : 3;
  core::check_tensor(op, "q", args.q, 3, float_types);
  core::check_tensor(op, "k", args.k, key_rank, float_types);
  core::check_tensor(op, "v", args.v, key_rank, float_types);
  core::AttentionForwardParams p;
  const int64_t num_tokens = args.q.shape[0];
  p.num_q_heads = args.q.shape[1];
  p.head_dim = args.q.shape[2];
  p.num_kv_heads = args.k.shape[static_cast<size_t>(key_rank - 2)];
  check(p.num_q_heads > 0 && p.head_dim > 0, op,
        "q has an empty axis: got {}, allowed at least 1 head of at least 1 dim", describe(args.q));
  check(p.num_kv_heads > 0 && p.num_q_heads % p.num_kv_heads == 0, op,
        "heads do not form groups: got {} query heads on {} key-value heads, allowed a multiple",
        p.num_q_heads, p.num_kv_heads);
  p.scale = core::check_scale(op, args.scale, p.head_dim);
  p.sequences = core::check_sequences(op, args.sequences, num_tokens, args.k, "k");
  if (paged) {
    core::check_shape(op, "k", args.k, {-1, p.sequences.page_size, p.num_kv_heads, p.head_dim});
    core::check_shape(op, "v", args.v,
                      {args.k.shape[0], p.sequences.page_size, p.num_kv_heads, p.head_dim});
  } else {
    core::check_shape(op, "k", args.k, {-1, p.num_kv_heads, p.head_dim});
    core::check_shape(op, "v", args.v, {args.k.shape[0], p.num_kv_heads, p.head_dim});
  }
  check(args.v.dtype == args.k.dtype, op, "v has the wrong type: got {}, allowed k's {}",
        dtype_name(args.v.dtype), dtype_name(args.k.dtype));
  p.q = args.q.data;
  p.q_dtype = args.q.dtype;
  p.q_token_stride = args.q.stride[0];
  p.q_head_stride = args.q.stride[1];
  p.k = core::key_params(args.k, paged, true);
  p.v = core::key_params(args.v, paged, true);

  core::check_tensor(op, "out", args.out, 3, {args.q.dtype});
  core::check_shape(op, "out", args.out, {num_tokens, p.num_q_heads, p.head_dim});
  p.out = args.out.data;
  p.out_token_stride = args.out.stride[0];
  p.out_head_stride = args.out.stride[1];
  if (args.lse.present()) {
    core::check_tensor(op, "lse", args.lse, 2, {DType::kFloat32});
    core::check_shape(op, "lse", args.lse, {num_tokens, p.num_q_heads});
    p.lse = static_cast<float*>(args.lse.data);
    p.lse_token_stride = args.lse.stride[0];
    p.lse_head_stride = args.lse.stride[1];
  }
  return p;
}

core::AttentionForwardParams fill_params(const Context& context, const AttentionForwardArgs& args) {
  using core::check;
  core::AttentionForwardParams p = fill_shared(kSparse, args);
  check(args.block_size > 0, kSparse, "block_size is wrong: got {}, allowed 1 or more",
        args.block_size);
  check(!p.sequences.paged() || p.sequences.page_size == args.block_size, kSparse,
        "pages must hold one block: got pages of {} tokens, allowed block_size = {}",
        p.sequences.page_size, args.block_size);
  p.block_size = args.block_size;
  const bool head_major = args.block_id_layout == BlockIdLayout::kHeadMajor;
  core::check_tensor(kSparse, "block_ids", args.block_ids, 3, {DType::kInt32});
  core::check_shape(kSparse, "block_ids", args.block_ids,
                    {head_major ? p.num_kv_heads : args.q.shape[0],
                     head_major ? args.q.shape[0] : p.num_kv_heads, -1});
  p.block_ids.data = static_cast<const int32_t*>(args.block_ids.data);
  p.block_ids.head_stride = args.block_ids.stride[head_major ? 0 : 1];
  p.block_ids.token_stride = args.block_ids.stride[head_major ? 1 : 0];
  p.block_ids.top_k = args.block_ids.shape[2];
  core::check_supported(context, Op::kAttentionForward,
                        {.num_q_heads = p.num_q_heads,
                         .num_kv_heads = p.num_kv_heads,
                         .head_dim = p.head_dim,
                         .block_size = p.block_size,
                         .top_k = p.block_ids.top_k},
                        p.q_dtype);
  return p;
}

core::AttentionForwardParams fill_params(const Context& context,
                                         const DenseAttentionForwardArgs& args) {
  core::AttentionForwardParams p = fill_shared(kDense, args);
  core::check_supported(
      context, Op::kDenseAttentionForward,
      {.num_q_heads = p.num_q_heads, .num_kv_heads = p.num_kv_heads, .head_dim = p.head_dim},
      p.q_dtype);
  return p;
}

core::RunContext run_context(const Context& context, const Workspace& workspace) {
  return {.parallel_for = &context.parallel_for(),
          .num_threads = context.num_threads(),
          .stream = workspace.stream,
          .workspace = workspace.data};
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
  if (context.backend() != Backend::kCuda) {
    core::check_sequence_contents(kSparse, p.sequences, args.k.shape[0]);
  }
  context.table().attention_forward(p, run_context(context, workspace));
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
  if (context.backend() != Backend::kCuda) {
    core::check_sequence_contents(kDense, p.sequences, args.k.shape[0]);
  }
  context.table().dense_attention_forward(p, run_context(context, workspace));
}

}  // namespace msa
