// cache_append and copy_pages: nothing to check that the op has not, nothing to allocate.
#include "cuda/any/cache.h"

#include "cuda/host/device.h"
#include "cuda/host/ops.h"

namespace msa::cuda {

void cache_append(const core::CacheAppendParams& params, const core::RunContext& run) {
  if (params.sequences.num_query_tokens == 0) return;
  check_cuda("cache_append", launch_cache_append(params, static_cast<cudaStream_t>(run.stream)));
}

void copy_pages(const core::CopyPagesParams& params, const core::RunContext& run) {
  if (params.num_copies == 0) return;
  check_cuda("copy_pages", launch_copy_pages(params, static_cast<cudaStream_t>(run.stream)));
}

}  // namespace msa::cuda
