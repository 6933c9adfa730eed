// index_forward: check -> fill params -> call the backend table.
#include "core/backend.h"
#include "core/check.h"
#include "msa/index.h"

namespace msa {
namespace {

constexpr const char* kOp = "index_forward";

/// Everything that shapes, types and strides decide; nothing is read through a pointer.
core::IndexForwardParams fill_params(const Context& context, const IndexForwardArgs& args) {
  using core::check;
  const auto float_types = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
  const bool paged = args.sequences.page_table.present();
  core::check_tensor(kOp, "q_idx", args.q_idx, 3, float_types);
  core::check_tensor(kOp, "k_idx", args.k_idx, paged ? 3 : 2, float_types);
  core::IndexForwardParams p;
  const int64_t num_tokens = args.q_idx.shape[0];
  p.num_kv_heads = args.q_idx.shape[1];
  p.index_dim = args.q_idx.shape[2];
  check(p.num_kv_heads > 0 && p.index_dim > 0, kOp,
        "q_idx has an empty axis: got {}, allowed at least 1 head of at least 1 dim",
        describe(args.q_idx));
  check(args.block_size > 0, kOp, "block_size is wrong: got {}, allowed 1 or more",
        args.block_size);
  p.block_size = args.block_size;
  p.scale = core::check_scale(kOp, args.scale, p.index_dim);
  p.sequences = core::check_sequences(kOp, args.sequences, num_tokens, args.k_idx, "k_idx");
  if (paged) {
    core::check_shape(kOp, "k_idx", args.k_idx, {-1, p.block_size, p.index_dim});
  } else {
    core::check_shape(kOp, "k_idx", args.k_idx, {-1, p.index_dim});
  }
  p.q_idx = args.q_idx.data;
  p.q_dtype = args.q_idx.dtype;
  p.q_token_stride = args.q_idx.stride[0];
  p.q_head_stride = args.q_idx.stride[1];
  p.k_idx = core::key_params(args.k_idx, paged, false);

  check(args.block_ids.present() || args.block_scores.present(), kOp,
        "no output is asked for: got none, allowed block_ids, block_scores or both");
  if (args.block_ids.present()) {
    const bool head_major = args.block_id_layout == BlockIdLayout::kHeadMajor;
    core::check_tensor(kOp, "block_ids", args.block_ids, 3, {DType::kInt32});
    core::check_shape(
        kOp, "block_ids", args.block_ids,
        {head_major ? p.num_kv_heads : num_tokens, head_major ? num_tokens : p.num_kv_heads, -1});
    check(args.block_ids.shape[2] > 0, kOp, "top-k is wrong: got 0, allowed 1 or more");
    p.block_ids.data = static_cast<int32_t*>(args.block_ids.data);
    p.block_ids.head_stride = args.block_ids.stride[head_major ? 0 : 1];
    p.block_ids.token_stride = args.block_ids.stride[head_major ? 1 : 0];
    p.block_ids.top_k = args.block_ids.shape[2];
  }
  if (args.block_scores.present()) {
    core::check_tensor(kOp, "block_scores", args.block_scores, 3, {DType::kFloat32});
    core::check_shape(kOp, "block_scores", args.block_scores, {p.num_kv_heads, num_tokens, -1});
    p.block_scores = static_cast<float*>(args.block_scores.data);
    p.score_head_stride = args.block_scores.stride[0];
    p.score_token_stride = args.block_scores.stride[1];
    p.max_blocks = args.block_scores.shape[2];
  }
  if (args.lse_idx.present()) {
    core::check_tensor(kOp, "lse_idx", args.lse_idx, 2, {DType::kFloat32});
    core::check_shape(kOp, "lse_idx", args.lse_idx, {p.num_kv_heads, num_tokens});
    check(args.lse_scope == IndexLseScope::kVisible || args.block_ids.present(), kOp,
          "lse_idx over the selected blocks needs block_ids: got none, allowed block_ids or "
          "lse_scope kVisible");
    p.lse_idx = static_cast<float*>(args.lse_idx.data);
    p.lse_head_stride = args.lse_idx.stride[0];
    p.lse_token_stride = args.lse_idx.stride[1];
    p.lse_scope = args.lse_scope;
  }
  core::check_supported(context, Op::kIndexForward,
                        {.num_kv_heads = p.num_kv_heads,
                         .head_dim = p.index_dim,
                         .block_size = p.block_size,
                         .top_k = p.block_ids.top_k},
                        p.q_dtype);
  return p;
}

}  // namespace

size_t index_forward_workspace_size(const Context& context, const IndexForwardArgs& args) {
  return context.table().index_forward_workspace(fill_params(context, args), context.num_threads());
}

void index_forward(const Context& context, const IndexForwardArgs& args, Workspace workspace) {
  const core::IndexForwardParams p = fill_params(context, args);
  core::check_workspace(kOp, workspace,
                        context.table().index_forward_workspace(p, context.num_threads()));
  if (context.backend() != Backend::kCuda) {
    core::check_sequence_contents(kOp, p.sequences, args.k_idx.shape[0]);
    for (int64_t r = 0; p.block_scores != nullptr && r < p.sequences.batch; ++r) {
      const int64_t blocks = (p.sequences.key_length(r) + p.block_size - 1) / p.block_size;
      core::check(blocks <= p.max_blocks, kOp,
                  "block_scores is too narrow for request {}: got {} blocks, allowed at least {}",
                  r, p.max_blocks, blocks);
    }
  }
  context.table().index_forward(p, {.parallel_for = &context.parallel_for(),
                                    .num_threads = context.num_threads(),
                                    .stream = workspace.stream,
                                    .workspace = workspace.data});
}

}  // namespace msa
