#include "cuda/sm90/decode/scores.cuh"

namespace msa::cuda {

cudaError_t launch_decode_scores_bf16(const DecodeIndexParams& params, const CUtensorMap& key_map,
                                      int num_multiprocessors, cudaStream_t stream) {
  return launch_decode_scores_of<__nv_bfloat16>(params, key_map, num_multiprocessors, stream);
}

}  // namespace msa::cuda
