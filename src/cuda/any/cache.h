// Moves into and within paged caches, as the host sees them.
#pragma once

#include <cuda_runtime_api.h>

#include "core/params.h"

namespace msa::cuda {

cudaError_t launch_cache_append(const core::CacheAppendParams& params, cudaStream_t stream);
cudaError_t launch_copy_pages(const core::CopyPagesParams& params, cudaStream_t stream);

}  // namespace msa::cuda
