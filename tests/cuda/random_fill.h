// Standard normal numbers made on the device, for batches too large for the host.
#pragma once

#include <cstdint>

#include "msa/tensor.h"

namespace msa::test {

/// Fills `count` elements of a 16-bit type; the same seed gives the same numbers.
void fill_normal(void* data, DType dtype, int64_t count, uint64_t seed);

}  // namespace msa::test
