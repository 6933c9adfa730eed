// Sums in global memory that many thread blocks add to, in any order.
#pragma once

#include <cuda_runtime.h>

namespace msa::cuda {

/// Adds to four floats; `to` is a multiple of 16 bytes. Each float is one atomic.
__device__ __forceinline__ void reduce_add(float* to, float a, float b, float c, float d) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};\n" ::"l"(to), "f"(a),
               "f"(b), "f"(c), "f"(d)
               : "memory");
}

}  // namespace msa::cuda
