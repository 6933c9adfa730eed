#include "cuda/sm90/attention_forward/launch.cuh"

namespace msa::cuda {

cudaError_t launch_attention_passes_bf16(const AttentionKernelParams& params,
                                         const AttentionMaps& maps, int num_passes, int num_blocks,
                                         cudaStream_t stream) {
  return launch_passes_of<__nv_bfloat16>(params, maps, num_passes, num_blocks, stream);
}

}  // namespace msa::cuda
