#include "cuda/sm90/attention_forward/launch.cuh"

namespace msa::cuda {

cudaError_t launch_attention_pass_fp16(const AttentionKernelParams& params,
                                       const AttentionMaps& maps, int pass, int num_blocks,
                                       cudaStream_t stream) {
  return launch_pass_of<__half>(params, maps, pass, num_blocks, stream);
}

}  // namespace msa::cuda
