#include "cuda/sm90/attention_forward/launch.cuh"

namespace msa::cuda {

cudaError_t launch_attention_pass_bf16(const AttentionKernelParams& params,
                                       const AttentionMaps& maps, int pass, int num_blocks,
                                       cudaStream_t stream) {
  return launch_pass_of<__nv_bfloat16>(params, maps, pass, num_blocks, stream);
}

}  // namespace msa::cuda
