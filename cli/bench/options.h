// The command line of `msa bench`: flags, their defaults, and what goes together.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/workbench.h"
#include "cli/bench/cases.h"

namespace msa::cli {

struct BenchOptions {
  std::string op = "layer";
  std::string backend = "cpu";
  int64_t threads = 0;
  std::vector<int64_t> contexts;
  std::vector<std::string> queries;  // "all" or a count
  int64_t batch = 1;
  std::string suite;
  std::string shape;
  int64_t q_heads = 0, kv_heads = 0, head_dim = 0, block_size = 0, top_k = 0;  // 0: the shape's
  std::string type = "bfloat16";
  std::string q_type = "float32";
  std::string picks = "index";
  std::optional<int64_t> picks_layer;
  double keep = 0.9;
  std::optional<uint64_t> seed;
  int64_t chunk = 0;    // 0: depends on what is measured
  int64_t samples = 0;  // the same
  bool whole = false;
  bool append = false;
  bool no_dense = false;
  int64_t repeats = 15;
  double seconds = 12;
  bool warm = false;
  std::string clock = "wall";
  bool json = false;
  bool csv = false;
};

/// Adds every flag to the verb.
void add_bench_options(CLI::App& verb, BenchOptions& options);

/// What the options mean.
struct BenchSettings {
  Backend backend = Backend::kCpu;
  int threads = 0;
  bench::LayerShape shape;
  bench::Picks picks;
  bench::PlanOptions plan;
  std::vector<bench::Part> chain;  ///< timed one after another
  bool prepare = false;            ///< it takes what other ops write
  bool training = false;           ///< packed keys; gradients
  bool dense = false;              ///< timed beside it
  int repeats = 0;
  double seconds = 0;
  bool warm = false;
  bench::Clock clock = bench::Clock::kWall;
  std::string suite;  ///< its name; empty without one
  std::vector<BenchCase> cases;
};

/// Throws UsageError for anything that does not go together.
BenchSettings settle(const BenchOptions& options);

}  // namespace msa::cli
