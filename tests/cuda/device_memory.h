// Device memory of a test: owned, and every call checked.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/host/device.h"

namespace msa::test {

class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes = 0, int fill = 0xFF) : bytes_(bytes) {
    cuda::check_cuda("test", cudaMalloc(&data_, bytes + 256));
    cuda::check_cuda("test", cudaMemset(data_, fill, bytes + 256));
  }
  template <typename T>
  explicit DeviceMemory(const std::vector<T>& values) : DeviceMemory(values.size() * sizeof(T)) {
    upload(values.data(), bytes_);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(data_); }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void upload(const void* from, size_t bytes) {
    cuda::check_cuda("test", cudaMemcpy(data_, from, bytes, cudaMemcpyHostToDevice));
  }
  template <typename T>
  std::vector<T> download(size_t count) const {
    std::vector<T> values(count);
    cuda::check_cuda("test",
                     cudaMemcpy(values.data(), data_, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

}  // namespace msa::test
