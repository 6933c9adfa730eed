// What this machine can do at most, measured in the same run as the ops: the rate of a good matrix
// product in each storage type, the bandwidth of reading memory, and whether the machine was idle
// enough to believe either.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "msa/tensor.h"

namespace msa::bench {

/// Rows, columns and depth of the product that sets the roof.
inline constexpr int64_t kGemmSize = 2048;

/// oneDNN's matmul of kGemmSize^3 with inputs of `type` and a float32 result, weights packed once,
/// in GFLOP/s: the median of `repeats`. Nothing where oneDNN has no fast kernel of this type for
/// this processor (bfloat16 without AVX512-BF16 or AMX; float16 without AVX512-FP16).
std::optional<double> gemm_gflops(DType type, int num_threads, int repeats);

/// Bytes of the largest cache that the system tells of; 0 when it tells none.
size_t last_cache_bytes();

/// Memory larger than the last cache. Reading it measures the bandwidth, and empties the caches of
/// everything else.
class ReadBuffer {
 public:
  /// At least 512 MiB, and twice the last cache up to 1 GiB.
  explicit ReadBuffer(int num_threads);

  size_t bytes() const { return data_.size() * sizeof(data_[0]); }
  /// Reads all of it on all threads, each its own part.
  void read() const;
  /// GB/s (10^9), the better median of one and of eight streams a thread: what a pass with as many
  /// pages open as the prefetchers follow can reach.
  double gbytes_per_second(int repeats) const;

 private:
  int64_t sum_streams() const;

  int num_threads_;
  std::vector<int64_t> data_;
};

/// How much faster `num_threads` threads finish the same arithmetic than one does, divided by
/// num_threads, by the wall clock: 1 on an idle machine.
double idle_scaling(int num_threads);
/// Below this the machine is not idle.
inline constexpr double kIdleScaling = 0.9;

}  // namespace msa::bench
