// One element of a float tensor, read and written by its type. For code where clarity matters more
// than speed: the reference, tests, and the edges of kernels.
#pragma once

#include <bit>
#include <cstdint>

#include "msa/tensor.h"

namespace msa::core {

inline float bfloat16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

/// Round to nearest even; a NaN stays a NaN.
inline uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

float float16_to_float(uint16_t bits);
uint16_t float_to_float16(float value);  // round to nearest even; overflow gives infinity

inline float load_element(const void* data, DType dtype, int64_t offset) {
  switch (dtype) {
    case DType::kBFloat16:
      return bfloat16_to_float(static_cast<const uint16_t*>(data)[offset]);
    case DType::kFloat16:
      return float16_to_float(static_cast<const uint16_t*>(data)[offset]);
    default:
      return static_cast<const float*>(data)[offset];
  }
}

inline void store_element(void* data, DType dtype, int64_t offset, float value) {
  switch (dtype) {
    case DType::kBFloat16:
      static_cast<uint16_t*>(data)[offset] = float_to_bfloat16(value);
      return;
    case DType::kFloat16:
      static_cast<uint16_t*>(data)[offset] = float_to_float16(value);
      return;
    default:
      static_cast<float*>(data)[offset] = value;
  }
}

}  // namespace msa::core
