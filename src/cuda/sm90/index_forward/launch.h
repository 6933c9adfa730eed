// The index kernels as the host sees them. Sizes are checked before: Di and B are 64 or 128.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "cuda/sm90/index_forward/params.h"

namespace msa::cuda {

cudaError_t launch_index_bf16(const IndexKernelParams& params, const CUtensorMap& key_map,
                              cudaStream_t stream);
cudaError_t launch_index_fp16(const IndexKernelParams& params, const CUtensorMap& key_map,
                              cudaStream_t stream);
/// Makes the output from the shares, when params.splits > 1.
cudaError_t launch_index_merge(const IndexKernelParams& params, cudaStream_t stream);

}  // namespace msa::cuda
