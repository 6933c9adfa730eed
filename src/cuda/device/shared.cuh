// The dynamic shared memory of a thread block, where panels with 128-byte swizzle may begin.
#pragma once

#include <cstdint>

#include "cuda/device/layout.h"
#include "cuda/device/ptx.cuh"

namespace msa::cuda {

/// Up to kSwizzleAtomBytes - 1 bytes of what was asked for lie before it.
__device__ __forceinline__ uint8_t* aligned_shared() {
  extern __shared__ uint8_t raw[];
  return raw + (kSwizzleAtomBytes - shared_address(raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
}

}  // namespace msa::cuda
