// msa bench: how fast one op or a whole layer is here, beside what the machine could do at most and
// beside dense attention.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/bench/options.h"
#include "cli/bench/report.h"
#include "cli/bench/run.h"
#include "cli/parts/output.h"
#include "cli/verbs/verbs.h"

namespace msa::cli {
namespace {

using Json = nlohmann::json;

/// The command that repeats the run: what was typed, but for the form of the results.
std::string command_of(const CLI::App& verb) {
  std::string command = "msa bench";
  for (const CLI::Option* option : verb.get_options()) {
    const std::string name = option->get_name();
    if (option->count() == 0 || name == "--json" || name == "--csv") continue;
    if (!option->get_positional()) command += fmt::format(" {}", name);
    if (option->get_items_expected() == 0) continue;  // a flag
    for (const std::string& value : option->results()) command += fmt::format(" {}", value);
  }
  return command;
}

int bench_and_report(const BenchOptions& options, const std::string& command) {
  const Json run = run_bench(settle(options), command);
  if (options.json) {
    print(run.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  } else {
    print(options.csv ? bench_csv(run) : bench_text(run));
  }
  return kSuccess;
}

}  // namespace

void add_bench(CLI::App& app, Action& chosen) {
  CLI::App* verb = app.add_subcommand("bench", "Measure one op or a whole layer on this machine");
  const auto options = std::make_shared<BenchOptions>();
  add_bench_options(*verb, *options);
  verb->footer(
      "Where a context has more calls than --samples, tiles at even distances stand for all; the\n"
      "table marks that with ~ and the JSON calls it sampled. --whole runs everything.\n\n"
      "Examples:\n  msa bench\n  msa bench attend --context 8K --queries 1024 --picks keep\n"
      "  msa bench --context 1K 4K 16K 64K --json > curve.json\n  msa bench --suite decode");
  verb->callback([options, verb, &chosen] {
    chosen = [options, command = command_of(*verb)] { return bench_and_report(*options, command); };
  });
}

}  // namespace msa::cli
