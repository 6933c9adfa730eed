// Stands in for src/cuda/device/shared.cuh where kernels run on the host.
#pragma once

#include "cuda/device/ptx.cuh"

namespace msa::cuda {

inline uint8_t* aligned_shared() { return emulation::shared_memory(); }

}  // namespace msa::cuda
