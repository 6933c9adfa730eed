// A captured call replayed with other lengths, and two calls at once on two streams.
#pragma once

#include "cuda/report.h"

namespace msa::test {

/// `one_launch`: all passes of attention by one kernel whose thread blocks wait for each other.
void check_streams(Report& report, bool one_launch);

}  // namespace msa::test
