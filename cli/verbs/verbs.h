// One function for each verb: it adds its subcommand to the program and, when that is chosen,
// leaves in `chosen` what is to be done. What is done returns the exit status.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace msa::cli {

/// The exit statuses, as `msa --help` tells them.
inline constexpr int kSuccess = 0;
inline constexpr int kFactMissed = 1;
inline constexpr int kRuleBroken = 1;
inline constexpr int kNotReady = 1;
inline constexpr int kBadInput = 2;

using Action = std::function<int()>;

void add_demo(CLI::App& app, Action& chosen);
void add_run(CLI::App& app, Action& chosen);
void add_doctor(CLI::App& app, Action& chosen);
void add_eval(CLI::App& app, Action& chosen);
void add_info(CLI::App& app, Action& chosen);
void add_inspect(CLI::App& app, Action& chosen);
void add_verify(CLI::App& app, Action& chosen);
void add_bench(CLI::App& app, Action& chosen);

}  // namespace msa::cli
