// select_blocks: nothing to check that the op has not, nothing to allocate.
#include "cuda/sm90/select_blocks/launch.h"

#include "cuda/host/device.h"
#include "cuda/host/ops.h"

namespace msa::cuda {

void select_blocks(const core::SelectBlocksParams& op, const core::RunContext& run) {
  if (op.num_kv_heads == 0 || op.num_query_tokens == 0) return;
  check_cuda("select_blocks", launch_select_blocks(select_kernel_params(op), multiprocessors(),
                                                   static_cast<cudaStream_t>(run.stream)));
}

}  // namespace msa::cuda
