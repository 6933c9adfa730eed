#pragma once

#define MSA_VERSION_MAJOR 0
#define MSA_VERSION_MINOR 1
#define MSA_VERSION_PATCH 0

namespace msa {

/// "0.1.0"
const char* version();

}  // namespace msa
