#include "cuda/sm90/decode/dense.cuh"

namespace msa::cuda {

cudaError_t launch_decode_dense_bf16(const DecodeAttentionParams& params,
                                     const DecodeAttentionMaps& maps, cudaStream_t stream) {
  return launch_decode_dense_of<__nv_bfloat16>(params, maps, stream);
}

}  // namespace msa::cuda
