// Memory on the device for the cuda backend, the host's for all others.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "cli/verify/mirror.h"
#include "msa/error.h"

namespace msa::cli {
namespace {

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw Error(ErrorCode::kInternal,
              fmt::format("[verify] the CUDA runtime failed: got {} ({})", cudaGetErrorName(error),
                          cudaGetErrorString(error)));
}

}  // namespace

Mirror::Mirror(const Context& context, std::byte* host, size_t bytes)
    : host_(host), bytes_(bytes), data_(host) {
  if (context.backend() != Backend::kCuda) return;
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes > 0 ? bytes : 1));
  data_ = static_cast<std::byte*>(memory);
  try {
    upload();
  } catch (const Error&) {
    cudaFree(data_);
    throw;
  }
}

Mirror::~Mirror() {
  if (data_ != host_) cudaFree(data_);
}

void Mirror::upload() const {
  if (data_ != host_) check(cudaMemcpy(data_, host_, bytes_, cudaMemcpyHostToDevice));
}

void Mirror::download() const {
  if (data_ != host_) check(cudaMemcpy(host_, data_, bytes_, cudaMemcpyDeviceToHost));
}

}  // namespace msa::cli
