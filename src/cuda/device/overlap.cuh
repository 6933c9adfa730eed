// Kernels of one op that follow each other in a stream: the next may be launched, and set up its
// shared memory, while the one before still runs. Every kernel calls both functions: first
// allow_next_kernel(), then, before it touches memory, wait_for_previous_kernel(), which returns
// when all kernels before are complete and their writes visible.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace msa::cuda {

__device__ __forceinline__ void allow_next_kernel() {
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
}
__device__ __forceinline__ void wait_for_previous_kernel() {
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch_overlapped(void (*kernel)(Parameters...), dim3 grid, unsigned threads,
                              size_t shared_bytes, cudaStream_t stream,
                              const Arguments&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

}  // namespace msa::cuda
