// Outputs between guard elements.
#pragma once

#include "library/cases.h"

namespace msa::test {

/// An output with a gap of guard elements after every row of its last axis.
struct Guarded {
  static constexpr int64_t kGap = 3;
  Buffer buffer;
  MutableTensor view;
  int64_t rows = 0;
  int64_t width = 0;

  Guarded(DType dtype, int64_t a, int64_t b, int64_t c) : rows(a * b), width(c) {
    buffer.dtype = dtype;
    buffer.bytes.assign(static_cast<size_t>(rows * (width + kGap)) * dtype_bytes(dtype), 0xAB);
    view =
        MutableTensor(buffer.bytes.data(), dtype, {a, b, c}, {b * (width + kGap), width + kGap, 1});
  }
  bool guards_intact() const {
    const auto size = static_cast<int64_t>(dtype_bytes(buffer.dtype));
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t n = (row * (width + kGap) + width) * size; n < (row + 1) * (width + kGap) * size;
           ++n) {
        if (buffer.bytes[static_cast<size_t>(n)] != 0xAB) return false;
      }
    }
    return true;
  }
  std::vector<float> floats() const {
    std::vector<float> values;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t n = 0; n < width; ++n) values.push_back(buffer.get(row * (width + kGap) + n));
    }
    return values;
  }
};

}  // namespace msa::test
