#include "cuda/sm90/decode/scores.cuh"

namespace msa::cuda {

cudaError_t launch_decode_scores_fp16(const DecodeIndexParams& params, const CUtensorMap& key_map,
                                      int num_multiprocessors, cudaStream_t stream) {
  return launch_decode_scores_of<__half>(params, key_map, num_multiprocessors, stream);
}

}  // namespace msa::cuda
