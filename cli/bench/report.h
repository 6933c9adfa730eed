// What run_bench found, for people and for spreadsheets.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace msa::cli {

/// What was run, on what, how far from the machine's limits, and against dense attention.
std::string bench_text(const nlohmann::json& run);
/// A title line, and a line for each case and op. Numbers have all their digits.
std::string bench_csv(const nlohmann::json& run);

}  // namespace msa::cli
