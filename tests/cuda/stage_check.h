// One small sparse attention, and what each of its kernels left in the workspace: when the op is
// wrong, this says which kernel is.
#pragma once

#include "cuda/report.h"

namespace msa::test {

void check_stages(Report& report);

}  // namespace msa::test
