// The tool's own random numbers: the same seed gives the same facts, haystack order and blocks with
// every compiler and standard library (the distributions of <random> do not promise that).
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace msa::cli {

/// SplitMix64: one 64-bit word of state, passes the usual test batteries, cheap to seed.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  /// A stream of its own for each (seed, stream): document 7 does not depend on how many came
  /// before.
  Random(uint64_t seed, uint64_t stream) : state_(mix(seed ^ mix(stream + 1))) {}

  uint64_t next() { return mix(state_ += 0x9E3779B97F4A7C15u); }
  /// A whole number in [0, limit); limit > 0.
  int64_t below(int64_t limit) {
    // The high half of a 64 x 64 bit product; its bias is below 2^-40 for every limit used here.
    const auto wide = static_cast<unsigned long long>(limit);
    const uint64_t high = next() >> 32;
    return static_cast<int64_t>((high * wide) >> 32);
  }
  /// A real number in [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  template <typename T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) {
      std::swap(items[i - 1], items[static_cast<size_t>(below(static_cast<int64_t>(i)))]);
    }
  }
  template <typename T>
  const T& pick(const std::vector<T>& items) {
    return items[static_cast<size_t>(below(static_cast<int64_t>(items.size())))];
  }

 private:
  static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }
  uint64_t state_;
};

}  // namespace msa::cli
