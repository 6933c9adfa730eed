// The CUDA runtime as the backend needs it: is there a device, and errors as msa::Error.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace msa::cuda {

/// "" when the current device is a Hopper GPU and its driver is new enough, else why not.
std::string device_problem();
/// "NVIDIA H200, 132 multiprocessors, 139 GiB".
std::string device_description();
/// Multiprocessors of the current device.
int multiprocessors();
/// Throws with the op's name unless `error` is success. Clears an error that can be cleared.
void check_cuda(const char* op, cudaError_t error);

}  // namespace msa::cuda
