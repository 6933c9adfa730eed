// Lets a test choose which SIMD target the kernels run on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace msa::test {

/// The targets that the kernels are built for and that run here, best first.
std::vector<int64_t> simd_targets();
std::string simd_target_name(int64_t target);

/// Only this target while it lives.
class ScopedSimdTarget {
 public:
  explicit ScopedSimdTarget(int64_t target);
  ~ScopedSimdTarget();
  ScopedSimdTarget(const ScopedSimdTarget&) = delete;
  ScopedSimdTarget& operator=(const ScopedSimdTarget&) = delete;
};

}  // namespace msa::test
