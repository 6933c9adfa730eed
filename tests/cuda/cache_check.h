// cache_append and copy_pages on the device against the host's.
#pragma once

#include "cuda/report.h"

namespace msa::test {

void check_caches(Report& report, unsigned seed);

}  // namespace msa::test
