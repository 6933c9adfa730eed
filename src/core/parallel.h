#pragma once

#include "msa/context.h"

namespace msa::core {

/// The default thread pool: OpenMP with dynamic scheduling, one task at a time.
ParallelFor openmp_parallel_for(int num_threads);

}  // namespace msa::core
