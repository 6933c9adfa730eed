// Carves one workspace into aligned pieces. The same function walks it twice: once without memory,
// to learn the size, and once with it, so the two can never disagree.
#pragma once

#include <cstddef>
#include <cstdint>

#include "msa/error.h"

namespace msa::cpu {

/// Widest vector of any target, in floats; rows are padded to it so that sizes do not depend on the
/// machine.
inline constexpr int64_t kMaxLanes = 16;

constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
constexpr int64_t divide_up(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

class Arena {
 public:
  /// With null, only measures.
  explicit Arena(void* data) : data_(static_cast<unsigned char*>(data)) {}

  /// count * times elements. Sizes of shapes that no memory holds are refused here, by Error: in
  /// double, so that the question itself does not overflow.
  template <typename T>
  T* take(int64_t count, int64_t times = 1) {
    const double wanted =
        static_cast<double>(count) * static_cast<double>(times) * double{sizeof(T)};
    if (wanted + static_cast<double>(bytes_) > kMaxBytes) {
      throw Error(ErrorCode::kOutOfMemory,
                  "[workspace] the shapes need more than any memory: got over 2^60 bytes, allowed "
                  "2^60");
    }
    unsigned char* here = data_ == nullptr ? nullptr : data_ + bytes_;
    bytes_ += (static_cast<size_t>(count * times) * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(here);
  }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr double kMaxBytes = 0x1p60;
  unsigned char* data_;
  size_t bytes_ = 0;
};

}  // namespace msa::cpu
