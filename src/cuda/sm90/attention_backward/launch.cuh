// Launches of the visits for one element type; included by the instantiation files alone.
#pragma once

#include "cuda/sm90/attention_backward/launch.h"
#include "cuda/sm90/attention_backward/visit_blocks.cuh"

namespace msa::cuda {

template <typename Traits>
cudaError_t launch_visits(const BackwardKernelParams& params, const BackwardMaps& maps,
                          int num_blocks, cudaStream_t stream) {
  using Layout = BackwardLayout<Traits>;
  const cudaError_t error =
      cudaFuncSetAttribute(sm90_attention_backward<Traits>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, Layout::kDynamicBytes);
  if (error != cudaSuccess) return error;
  return launch_overlapped(sm90_attention_backward<Traits>, static_cast<unsigned>(num_blocks),
                           Layout::kThreads, Layout::kDynamicBytes, stream, maps.q, maps.dout,
                           maps.k, maps.v, params);
}

template <typename Element>
cudaError_t launch_visits_of(const BackwardKernelParams& params, const BackwardMaps& maps,
                             int num_blocks, cudaStream_t stream) {
  const bool wide = params.plan.op.head_dim == 128;
  if (params.plan.op.block_size == 128) {
    return wide ? launch_visits<BackwardTraits<Element, 128, 128>>(params, maps, num_blocks, stream)
                : launch_visits<BackwardTraits<Element, 64, 128>>(params, maps, num_blocks, stream);
  }
  return wide ? launch_visits<BackwardTraits<Element, 128, 64>>(params, maps, num_blocks, stream)
              : launch_visits<BackwardTraits<Element, 64, 64>>(params, maps, num_blocks, stream);
}

}  // namespace msa::cuda
