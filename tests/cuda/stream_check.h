// A captured call replayed with other lengths, and two calls at once on two streams.
#pragma once

#include "cuda/report.h"

namespace msa::test {

void check_streams(Report& report);

}  // namespace msa::test
