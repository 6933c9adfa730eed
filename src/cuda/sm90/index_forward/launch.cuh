// Launch of one instantiation of the index kernel; included by the instantiation files alone.
#pragma once

#include "cuda/sm90/index_forward/kernel.cuh"
#include "cuda/sm90/index_forward/launch.h"

namespace msa::cuda {

template <typename Traits>
cudaError_t launch_index(const IndexKernelParams& params, const CUtensorMap& key_map,
                         cudaStream_t stream) {
  const bool with_lse = params.op.lse_idx != nullptr;
  const int stages = index_stages(Traits::kStageBytes, params.slots, with_lse);
  const int bytes = index_shared_bytes(stages, Traits::kStageBytes, params.slots, with_lse);
  const cudaError_t error = cudaFuncSetAttribute(
      sm90_index_forward<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  const auto grid = static_cast<unsigned>(params.num_blocks());
  sm90_index_forward<Traits>
      <<<grid, Traits::kThreads, static_cast<size_t>(bytes), stream>>>(key_map, params);
  return cudaGetLastError();
}

template <typename Element>
cudaError_t launch_index_of(const IndexKernelParams& params, const CUtensorMap& key_map,
                            cudaStream_t stream) {
  const bool wide = params.op.index_dim == 128;
  if (params.op.block_size == 128) {
    return wide ? launch_index<IndexForwardTraits<Element, 128, 128>>(params, key_map, stream)
                : launch_index<IndexForwardTraits<Element, 64, 128>>(params, key_map, stream);
  }
  return wide ? launch_index<IndexForwardTraits<Element, 128, 64>>(params, key_map, stream)
              : launch_index<IndexForwardTraits<Element, 64, 64>>(params, key_map, stream);
}

}  // namespace msa::cuda
