// The machine: its processor and its memory.
#pragma once

#include <string>

namespace msa::cli {

/// As the system names it: "Intel(R) Xeon(R) Processor".
std::string cpu_name();
double memory_bytes();
/// What programs can still have without swapping, file caches included.
double available_memory_bytes();

}  // namespace msa::cli
