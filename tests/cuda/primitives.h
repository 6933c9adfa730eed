// Each building block of the kernels alone, one thread block each, against plain loops: what fails
// here needs no search in a large kernel.
#pragma once

#include "cuda/report.h"

namespace msa::test {

void check_primitives(Report& report);

}  // namespace msa::test
