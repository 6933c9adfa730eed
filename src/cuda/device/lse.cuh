// Sums of probabilities in the domain of base-two logarithms.
#pragma once

#include "cuda/device/ptx.cuh"

namespace msa::cuda {

/// Base-two logarithm of 2^a + 2^b. Minus infinity adds nothing, exactly; NaN stays.
__device__ __forceinline__ float add_lse2(float a, float b) {
  const float largest = fmaxf(a, b);
  if (largest == minus_infinity()) return a + b;  // -inf, or NaN when one of them is
  return largest + __log2f(1.0f + exp2_fast(-fabsf(a - b)));
}

}  // namespace msa::cuda
