// The version of the headers, for C and C++. docs/c-api.md says what it promises.
#pragma once

#define MSA_VERSION_MAJOR 0
#define MSA_VERSION_MINOR 1
#define MSA_VERSION_PATCH 0

#ifdef __cplusplus
namespace msa {

/// "0.1.0"
const char* version();

}  // namespace msa
#endif
