#include "cuda/sm90/decode/dense.cuh"

namespace msa::cuda {

cudaError_t launch_decode_dense_fp16(const DecodeAttentionParams& params,
                                     const DecodeAttentionMaps& maps, cudaStream_t stream) {
  return launch_decode_dense_of<__half>(params, maps, stream);
}

}  // namespace msa::cuda
