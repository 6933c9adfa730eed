// The decode kernels against the prefill kernels and the reference.
#pragma once

#include "cuda/op_checks.h"

namespace msa::test {

/// Small hostile and random batches: ids as the prefill kernels choose them, attention as the
/// reference computes it; reruns, requests alone and other cuts of the work bit by bit.
void check_decode(Report& report, const OpCheckOptions& options);

/// Caches made on the device, up to 1M keys: both ways must agree.
void check_long_decode(Report& report, bool small);

}  // namespace msa::test
