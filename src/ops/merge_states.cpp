// merge_states: check -> fill params -> call the backend table.
#include "msa/merge_states.h"

#include "ops/attention_args.h"

namespace msa {
namespace {

constexpr const char* kOp = "merge_states";

}  // namespace

void merge_states(const Context& context, const MergeStatesArgs& args, Workspace workspace) {
  core::check_tensor(kOp, "out_a", args.out_a, 3, ops::kFloatTypes);
  const int64_t tokens = args.out_a.shape[0];
  const int64_t heads = args.out_a.shape[1];
  const int64_t dim = args.out_a.shape[2];
  core::check_tensor(kOp, "out_b", args.out_b, 3, {args.out_a.dtype});
  core::check_shape(kOp, "out_b", args.out_b, {tokens, heads, dim});
  core::check_tensor(kOp, "out", args.out, 3, ops::kFloatTypes);
  core::check_shape(kOp, "out", args.out, {tokens, heads, dim});
  const auto check_lse = [&](const char* name, const auto& lse) {
    core::check_tensor(kOp, name, lse, 2, {DType::kFloat32});
    core::check_shape(kOp, name, lse, {tokens, heads});
  };
  check_lse("lse_a", args.lse_a);
  check_lse("lse_b", args.lse_b);
  core::MergeStatesParams p;
  if (args.lse.present()) {
    check_lse("lse", args.lse);
    p.merged_lse = ops::rows_params<float*>(args.lse);
  }
  p.out[0] = ops::rows_params<const void*>(args.out_a);
  p.out[1] = ops::rows_params<const void*>(args.out_b);
  p.lse[0] = ops::rows_params<const float*>(args.lse_a);
  p.lse[1] = ops::rows_params<const float*>(args.lse_b);
  p.num_query_tokens = tokens;
  p.num_q_heads = heads;
  p.head_dim = dim;
  p.merged_out = ops::rows_params<void*>(args.out);
  core::check_supported(context, Op::kMergeStates, {.num_q_heads = heads, .head_dim = dim},
                        args.out_a.dtype);
  context.table().merge_states(p, ops::run_context(context, workspace));
}

}  // namespace msa
