// The decode kernels as the host sees them.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "cuda/sm90/decode/params.h"

namespace msa::cuda {

/// Scores, then the selection from them.
cudaError_t launch_decode_scores_bf16(const DecodeIndexParams& params, const CUtensorMap& key_map,
                                      int num_multiprocessors, cudaStream_t stream);
cudaError_t launch_decode_scores_fp16(const DecodeIndexParams& params, const CUtensorMap& key_map,
                                      int num_multiprocessors, cudaStream_t stream);
cudaError_t launch_decode_select(const DecodeIndexParams& params, cudaStream_t stream);

cudaError_t launch_decode_attention_bf16(const DecodeAttentionParams& params,
                                         const DecodeAttentionMaps& maps, cudaStream_t stream);
cudaError_t launch_decode_attention_fp16(const DecodeAttentionParams& params,
                                         const DecodeAttentionMaps& maps, cudaStream_t stream);

/// Dense attention, its merge included.
cudaError_t launch_decode_dense_bf16(const DecodeAttentionParams& params,
                                     const DecodeAttentionMaps& maps, cudaStream_t stream);
cudaError_t launch_decode_dense_fp16(const DecodeAttentionParams& params,
                                     const DecodeAttentionMaps& maps, cudaStream_t stream);

}  // namespace msa::cuda
