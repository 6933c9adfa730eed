#include "cuda/sm90/attention_backward/launch.cuh"

namespace msa::cuda {

cudaError_t launch_backward_visits_bf16(const BackwardKernelParams& params,
                                        const BackwardMaps& maps, int num_blocks,
                                        cudaStream_t stream) {
  return launch_visits_of<__nv_bfloat16>(params, maps, num_blocks, stream);
}

}  // namespace msa::cuda
