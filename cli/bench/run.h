// Measures what the settings ask for. The result is one JSON value (docs/bench.md has its fields);
// the table and the CSV are made from it alone.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "cli/bench/options.h"

namespace msa::cli {

/// `command` is what was typed. Throws UsageError when the memory at hand is too little, before
/// anything is measured.
nlohmann::json run_bench(const BenchSettings& settings, const std::string& command);

}  // namespace msa::cli
