// The selection over given scores against a plain sort.
#pragma once

#include "cuda/report.h"

namespace msa::test {

void check_select(Report& report, bool small);

}  // namespace msa::test
