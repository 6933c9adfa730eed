// Launch of the query tiles for one element type; included by the instantiation files alone.
#pragma once

#include "cuda/sm90/attention_forward/launch.h"
#include "cuda/sm90/attention_forward/query_tile.cuh"

namespace msa::cuda {

template <typename Traits>
cudaError_t launch_tiles(const AttentionKernelParams& params, const AttentionMaps& maps,
                         int num_blocks, cudaStream_t stream) {
  using Layout = QueryTileLayout<Traits>;
  const cudaError_t error =
      cudaFuncSetAttribute(sm90_attention_query_tile<Traits>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, Layout::kDynamicBytes);
  if (error != cudaSuccess) return error;
  return launch_overlapped(sm90_attention_query_tile<Traits>, static_cast<unsigned>(num_blocks),
                           Layout::kThreads, Layout::kDynamicBytes, stream, maps.q, maps.k, maps.v,
                           params);
}

template <typename Element>
cudaError_t launch_tiles_of(const AttentionKernelParams& params, const AttentionMaps& maps,
                            int num_blocks, cudaStream_t stream) {
  const bool wide = params.op.head_dim == 128;
  if (params.op.block_size == 128) {
    return wide ? launch_tiles<AttentionTraits<Element, 128, 128>>(params, maps, num_blocks, stream)
                : launch_tiles<AttentionTraits<Element, 64, 128>>(params, maps, num_blocks, stream);
  }
  return wide ? launch_tiles<AttentionTraits<Element, 128, 64>>(params, maps, num_blocks, stream)
              : launch_tiles<AttentionTraits<Element, 64, 64>>(params, maps, num_blocks, stream);
}

}  // namespace msa::cuda
