// Parallel loops: the default pool, and the caller's own in place of it.
#pragma once

#include <atomic>
#include <exception>

#include "msa/context.h"

namespace msa::core {

/// The default thread pool: OpenMP with dynamic scheduling, one task at a time.
ParallelFor openmp_parallel_for(int num_threads);

/// Carries the first exception of any task to the thread that asked for the loop. The SIMD backend
/// throws nothing there, but the reference allocates.
class FirstException {
 public:
  template <typename Body>
  void guard(const Body& body) noexcept {
    try {
      body();
    } catch (...) {
      if (!caught_.exchange(true)) exception_ = std::current_exception();
    }
  }
  /// After the loop.
  void rethrow() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::atomic<bool> caught_ = false;
  std::exception_ptr exception_;
};

}  // namespace msa::core
