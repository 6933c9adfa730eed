// Memory for the workspace of a call.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "msa/sequences.h"

namespace msa::test {

/// 64-byte aligned and as large as asked for; what an op does not write first is NaN.
class Scratch {
 public:
  explicit Scratch(size_t bytes)
      : data_(std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64), std::free), bytes_(bytes) {
    std::fill_n(static_cast<unsigned char*>(data_.get()), bytes, static_cast<unsigned char>(0xFF));
  }
  Workspace view() const { return {data_.get(), bytes_}; }

 private:
  std::unique_ptr<void, void (*)(void*)> data_;
  size_t bytes_;
};

}  // namespace msa::test
