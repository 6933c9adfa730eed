#include "cuda/sm90/attention_forward/launch.cuh"

namespace msa::cuda {

cudaError_t launch_attention_passes_fp16(const AttentionKernelParams& params,
                                         const AttentionMaps& maps, int num_passes, int num_blocks,
                                         cudaStream_t stream) {
  return launch_passes_of<__half>(params, maps, num_passes, num_blocks, stream);
}

}  // namespace msa::cuda
