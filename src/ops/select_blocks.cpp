// select_blocks: check -> fill params -> call the backend table.
#include "msa/select_blocks.h"

#include <limits>

#include "ops/index_args.h"

namespace msa {
namespace {

constexpr const char* kOp = "select_blocks";

}  // namespace

void select_blocks(const Context& context, const SelectBlocksArgs& args, Workspace workspace) {
  core::check_tensor(kOp, "block_scores", args.block_scores, 3, {DType::kFloat32});
  core::SelectBlocksParams p;
  p.scores = static_cast<const float*>(args.block_scores.data);
  p.score_head_stride = args.block_scores.stride[0];
  p.score_token_stride = args.block_scores.stride[1];
  p.num_kv_heads = args.block_scores.shape[0];
  p.num_query_tokens = args.block_scores.shape[1];
  p.max_blocks = args.block_scores.shape[2];
  core::check(p.max_blocks <= std::numeric_limits<int32_t>::max(), kOp,
              "block_scores has too many blocks for int32 ids: got {}, allowed at most {}",
              p.max_blocks, std::numeric_limits<int32_t>::max());
  if (args.local_blocks.present()) {
    core::check_tensor(kOp, "local_blocks", args.local_blocks, 1, {DType::kInt32});
    core::check_shape(kOp, "local_blocks", args.local_blocks, {p.num_query_tokens});
    p.local_blocks = static_cast<const int32_t*>(args.local_blocks.data);
  }
  p.block_ids = ops::output_ids(kOp, "block_ids", args.block_ids, args.block_id_layout,
                                p.num_kv_heads, p.num_query_tokens);
  core::check_supported(context, Op::kSelectBlocks,
                        {.num_kv_heads = p.num_kv_heads, .top_k = p.block_ids.top_k},
                        DType::kFloat32);
  context.table().select_blocks(p, ops::run_context(context, workspace));
}

}  // namespace msa
