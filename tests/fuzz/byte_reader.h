// A fuzzer's input as a stream of choices; past its end every choice is 0.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>

namespace msa::fuzz {

class ByteReader {
 public:
  ByteReader(const uint8_t* data, size_t size)
      : data_(data), left_(size), first_(take<uint8_t>()) {}

  /// The first byte, taken already: what the whole input is about.
  int64_t first() const { return first_; }

  template <typename T>
  T take() {
    T value{};
    const size_t count = std::min(sizeof(T), left_);
    if (count == 0) return value;
    std::memcpy(&value, data_, count);
    data_ += count;
    left_ -= count;
    return value;
  }

  /// One byte, or four where the range needs more.
  int64_t in_range(int64_t low, int64_t high) {
    const auto span = static_cast<uint64_t>(high - low) + 1;
    const uint64_t drawn = span <= 256 ? take<uint8_t>() : take<uint32_t>();
    return low + static_cast<int64_t>(drawn % span);
  }

  bool one_in(int64_t n) { return in_range(0, n - 1) == n - 1; }

  /// A neighbour of what is right, or a number at which checks and arithmetic turn.
  int64_t instead_of(int64_t right) {
    if (one_in(2)) return turning_point();
    return static_cast<int64_t>(static_cast<uint64_t>(right) +
                                static_cast<uint64_t>(one_in(4) ? -1 : 1));
  }
  int64_t turning_point() {
    static constexpr int64_t kPoints[] = {0,
                                          1,
                                          -1,
                                          2,
                                          3,
                                          7,
                                          8,
                                          16,
                                          17,
                                          64,
                                          129,
                                          1025,
                                          std::numeric_limits<int32_t>::max(),
                                          std::numeric_limits<int32_t>::min(),
                                          int64_t{1} << 31,
                                          int64_t{1} << 32,
                                          int64_t{1} << 43,
                                          int64_t{1} << 44,
                                          (int64_t{1} << 44) + 1,
                                          int64_t{1} << 60,
                                          int64_t{1} << 62,
                                          std::numeric_limits<int64_t>::max(),
                                          std::numeric_limits<int64_t>::min(),
                                          std::numeric_limits<int64_t>::max() - 126};
    const auto n = static_cast<size_t>(in_range(0, std::size(kPoints) + 7));
    if (n < std::size(kPoints)) return kPoints[n];
    return n % 2 == 0 ? take<int8_t>() : take<int64_t>();
  }

 private:
  const uint8_t* data_;
  size_t left_;
  uint8_t first_;
};

}  // namespace msa::fuzz
