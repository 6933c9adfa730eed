#include "cuda/host/device.h"

#include <fmt/format.h>

#include "msa/error.h"

namespace msa::cuda {
namespace {

/// The attribute of the current device, or -1.
int attribute(cudaDeviceAttr which) {
  int device = 0;
  int value = -1;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&value, which, device) != cudaSuccess) {
    cudaGetLastError();
    return -1;
  }
  return value;
}

}  // namespace

std::string device_problem() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return fmt::format("no CUDA device can be used ({})", cudaGetErrorString(error));
  }
  if (count == 0) return "no CUDA device was found";
  const int major = attribute(cudaDevAttrComputeCapabilityMajor);
  const int minor = attribute(cudaDevAttrComputeCapabilityMinor);
  if (major != 9 || minor != 0) {
    return fmt::format("the device has compute capability {}.{}, allowed 9.0 (H100, H800, H200)",
                       major, minor);
  }
  return "";
}

std::string device_description() {
  int device = 0;
  cudaDeviceProp properties{};
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
    cudaGetLastError();
    return "no device";
  }
  return fmt::format("{}, {} multiprocessors, {:.0f} GiB", properties.name,
                     properties.multiProcessorCount,
                     static_cast<double>(properties.totalGlobalMem) / (1 << 30));
}

int multiprocessors() {
  const int count = attribute(cudaDevAttrMultiProcessorCount);
  return count > 0 ? count : 1;
}

void check_cuda(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  const bool memory = error == cudaErrorMemoryAllocation;
  throw Error(memory ? ErrorCode::kOutOfMemory : ErrorCode::kInternal,
              fmt::format("[{}] the CUDA runtime failed: got {} ({})", op, cudaGetErrorName(error),
                          cudaGetErrorString(error)));
}

}  // namespace msa::cuda
