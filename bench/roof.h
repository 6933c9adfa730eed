// What this machine can do at most, measured in the same run as the ops: the rate of a good float32
// GEMM, the bandwidth of reading memory, and whether the machine was idle enough to believe either.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace msa::bench {

/// What times are: of the wall clock; or processor time of this process divided by its threads,
/// which a busy machine disturbs less but which leaves out waiting for a processor.
enum class Clock { kWall, kProcessor };
void use_clock(Clock clock, int num_threads);

/// Median microseconds of `repeats` calls, after one call that is not counted.
double median_us(int repeats, const std::function<void()>& call);
double median(std::vector<double> values);

/// oneDNN float32 matmul of 2048^3, weights packed once, on `num_threads` threads: GFLOP/s.
double gemm_gflops(int num_threads, int repeats);

/// Reading 512 MiB on `num_threads` threads: GB/s (10^9).
double read_gbytes_per_second(int num_threads, int repeats);

/// How much faster `num_threads` threads finish the same arithmetic than one does, divided by
/// num_threads, by the wall clock: 1 on an idle machine.
double idle_scaling(int num_threads);

}  // namespace msa::bench
