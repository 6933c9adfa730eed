// Launches of the passes for one element type; included by the instantiation files alone.
#pragma once

#include "cuda/sm90/attention_forward/gather.cuh"
#include "cuda/sm90/attention_forward/launch.h"

namespace msa::cuda {

template <typename Traits>
cudaError_t launch_passes(const AttentionKernelParams& params, const AttentionMaps& maps,
                          int num_passes, int num_blocks, cudaStream_t stream) {
  using Gather = GatherLayout<Traits>;
  constexpr int kMergeBytes = kMergeThreads / 32 * MergeRing<Traits>::kBytes;
  cudaError_t error =
      cudaFuncSetAttribute(sm90_attention_gather<Traits>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, Gather::kDynamicBytes);
  if (error != cudaSuccess) return error;
  error = cudaFuncSetAttribute(sm90_attention_merge<Traits>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, kMergeBytes);
  if (error != cudaSuccess) return error;
  const auto merge = [&](int pass) {
    return launch_overlapped(sm90_attention_merge<Traits>, static_cast<unsigned>(4 * num_blocks),
                             kMergeThreads, kMergeBytes, stream, params, pass);
  };
  for (int pass = 0; pass < num_passes; ++pass) {
    error = launch_overlapped(sm90_attention_gather<Traits>, static_cast<unsigned>(num_blocks),
                              Gather::kThreads, Gather::kDynamicBytes, stream, maps.q, maps.k,
                              maps.v, params, pass);
    if (error != cudaSuccess) return error;
    if (params.merge_blocks > 0 && pass + 1 < num_passes) continue;
    error = merge(pass);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

template <typename Element>
cudaError_t launch_passes_of(const AttentionKernelParams& params, const AttentionMaps& maps,
                             int num_passes, int num_blocks, cudaStream_t stream) {
  const bool wide = params.op.head_dim == 128;
  if (params.op.block_size == 128) {
    return wide ? launch_passes<AttentionTraits<Element, 128, 128>>(params, maps, num_passes,
                                                                    num_blocks, stream)
                : launch_passes<AttentionTraits<Element, 64, 128>>(params, maps, num_passes,
                                                                   num_blocks, stream);
  }
  return wide ? launch_passes<AttentionTraits<Element, 128, 64>>(params, maps, num_passes,
                                                                 num_blocks, stream)
              : launch_passes<AttentionTraits<Element, 64, 64>>(params, maps, num_passes,
                                                                num_blocks, stream);
}

}  // namespace msa::cuda
