// index_forward: check -> fill params -> call the backend table.
#include "msa/index.h"

#include "ops/index_args.h"

namespace msa {
namespace {

constexpr const char* kOp = "index_forward";

/// Everything that shapes, types and strides decide; nothing is read through a pointer.
core::IndexForwardParams fill_params(const Context& context, const IndexForwardArgs& args) {
  using core::check;
  core::IndexForwardParams p = ops::fill_index_inputs(kOp, args);
  core::check_max_query_length(kOp, args.max_query_length);
  p.sequences.max_query_length = args.max_query_length;
  const int64_t num_tokens = args.q_idx.shape[0];
  check(args.block_ids.present() || args.block_scores.present(), kOp,
        "no output is asked for: got none, allowed block_ids, block_scores or both");
  if (args.block_ids.present()) {
    p.block_ids = ops::output_ids(kOp, "block_ids", args.block_ids, args.block_id_layout,
                                  p.num_kv_heads, num_tokens);
  }
  if (args.block_scores.present()) {
    core::check_tensor(kOp, "block_scores", args.block_scores, 3, {DType::kFloat32});
    core::check_shape(kOp, "block_scores", args.block_scores, {p.num_kv_heads, num_tokens, -1});
    p.block_scores = static_cast<float*>(args.block_scores.data);
    p.score_head_stride = args.block_scores.stride[0];
    p.score_token_stride = args.block_scores.stride[1];
    p.max_blocks = args.block_scores.shape[2];
  }
  check(args.lse_scope == IndexLseScope::kSelected || args.lse_scope == IndexLseScope::kVisible,
        kOp, "lse_scope is unknown: got {}, allowed 0 (selected) or 1 (visible)",
        static_cast<int32_t>(args.lse_scope));
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
  core::check_supported(context, Op::kIndexForward, ops::geometry_of(p), p.q_dtype);
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
  context.table().index_forward(p, ops::run_context(context, workspace));
}

}  // namespace msa
