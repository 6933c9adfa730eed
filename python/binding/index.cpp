// index_forward for Python: block ids, block scores and the index LSE, each if it is given; and
// select_blocks, the selection over scores that there are already.
#include <tvm/ffi/function.h>

#include "call.h"

namespace msa::python {
namespace {

void forward(int64_t backend, TensorView q_idx, TensorView k_idx, TensorView cu_seqlens_q,
             Optional<TensorView> cu_seqlens_k, Optional<TensorView> page_table,
             Optional<TensorView> kv_lens, int64_t max_query_length, int64_t block_size,
             Optional<double> scale, int64_t layout, bool lse_visible,
             Optional<TensorView> block_ids, Optional<TensorView> block_scores,
             Optional<TensorView> lse_idx, Optional<TensorView> workspace) {
  const Call call("index_forward", backend, "q_idx", q_idx);
  IndexForwardArgs args;
  args.q_idx = call.input("q_idx", q_idx);
  args.k_idx = call.input("k_idx", k_idx);
  args.sequences = call.sequences(cu_seqlens_q, cu_seqlens_k, page_table, kv_lens);
  args.max_query_length = max_query_length;
  args.block_size = block_size;
  args.scale = optional_scale(scale);
  args.block_ids = call.output("block_ids", block_ids);
  args.block_id_layout = static_cast<BlockIdLayout>(layout);
  args.block_scores = call.output("block_scores", block_scores);
  args.lse_idx = call.output("lse_idx", lse_idx);
  args.lse_scope = lse_visible ? IndexLseScope::kVisible : IndexLseScope::kSelected;
  call.run(index_forward_workspace_size, index_forward, args, workspace);
}

void select(int64_t backend, TensorView block_scores, Optional<TensorView> local_blocks,
            int64_t layout, TensorView block_ids) {
  const Call call("select_blocks", backend, "block_scores", block_scores);
  SelectBlocksArgs args;
  args.block_scores = call.input("block_scores", block_scores);
  args.local_blocks = call.input("local_blocks", local_blocks);
  args.block_ids = call.output("block_ids", block_ids);
  args.block_id_layout = static_cast<BlockIdLayout>(layout);
  guarded([&] { select_blocks(call.context(), args, call.stream_only()); });
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(index_forward, forward);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(select_blocks, select);

}  // namespace msa::python
