// Launch of one pass for one element type; included by the instantiation files alone.
#pragma once

#include "cuda/sm90/attention_forward/combine.cuh"
#include "cuda/sm90/attention_forward/launch.h"

namespace msa::cuda {

template <typename Traits>
cudaError_t launch_pass(const AttentionKernelParams& params, const AttentionMaps& maps, int pass,
                        int num_blocks, cudaStream_t stream) {
  using Gather = GatherLayout<Traits>;
  using Combine = CombineLayout<Traits>;
  cudaError_t error =
      cudaFuncSetAttribute(sm90_attention_gather<Traits>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, Gather::kDynamicBytes);
  if (error != cudaSuccess) return error;
  error = cudaFuncSetAttribute(sm90_attention_combine<Traits>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, Combine::kDynamicBytes);
  if (error != cudaSuccess) return error;
  sm90_attention_gather<Traits>
      <<<static_cast<unsigned>(num_blocks), Gather::kThreads, Gather::kDynamicBytes, stream>>>(
          maps.q_gather, maps.k, maps.v, params, pass);
  error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  // Each request can begin and end inside an aligned run, and so can the rows past the last one.
  const int64_t rows = params.plan_end - params.plan_begin;
  const int64_t chunk = rows < params.chunk_rows ? rows : params.chunk_rows;
  const int64_t runs = ceil_div(chunk, params.tile_queries) + 2 * (params.op.sequences.batch + 1);
  const dim3 grid(static_cast<unsigned>(runs), static_cast<unsigned>(params.groups_per_pass));
  sm90_attention_combine<Traits><<<grid, Combine::kThreads, Combine::kDynamicBytes, stream>>>(
      maps.q_tile, maps.k, maps.v, params, pass);
  return cudaGetLastError();
}

template <typename Element>
cudaError_t launch_pass_of(const AttentionKernelParams& params, const AttentionMaps& maps, int pass,
                           int num_blocks, cudaStream_t stream) {
  const bool wide = params.op.head_dim == 128;
  if (params.op.block_size == 128) {
    return wide ? launch_pass<AttentionTraits<Element, 128, 128>>(params, maps, pass, num_blocks,
                                                                  stream)
                : launch_pass<AttentionTraits<Element, 64, 128>>(params, maps, pass, num_blocks,
                                                                 stream);
  }
  return wide ? launch_pass<AttentionTraits<Element, 128, 64>>(params, maps, pass, num_blocks,
                                                               stream)
              : launch_pass<AttentionTraits<Element, 64, 64>>(params, maps, pass, num_blocks,
                                                              stream);
}

}  // namespace msa::cuda
