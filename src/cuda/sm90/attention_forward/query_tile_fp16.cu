#include "cuda/sm90/attention_forward/query_tile_launch.cuh"

namespace msa::cuda {

cudaError_t launch_attention_tiles_fp16(const AttentionKernelParams& params,
                                        const AttentionMaps& maps, int num_blocks,
                                        cudaStream_t stream) {
  return launch_tiles_of<__half>(params, maps, num_blocks, stream);
}

}  // namespace msa::cuda
