#include "cuda/sm90/index_forward/launch.cuh"

namespace msa::cuda {

cudaError_t launch_index_fp16(const IndexKernelParams& params, const CUtensorMap& key_map,
                              cudaStream_t stream) {
  return launch_index_of<__half>(params, key_map, stream);
}

}  // namespace msa::cuda
