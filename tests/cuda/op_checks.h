// The ops on the device against the reference, on small hostile and random batches.
#pragma once

#include "cuda/report.h"

namespace msa::test {

struct OpCheckOptions {
  bool small = false;  // a few tiny cases, for compute-sanitizer
  int random_cases = 60;
  unsigned seed = 1;
};
void check_ops(Report& report, const OpCheckOptions& options);

/// One small batch through every kernel: for racecheck, which is slow.
void check_each_kernel_once(Report& report);

/// Long contexts made on the device; sampled rows against the reference.
void check_long(Report& report, long num_keys, long num_queries, int samples);

}  // namespace msa::test
