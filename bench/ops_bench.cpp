// Benchmark of the ops: each line is one call, beside the roofs of the machine measured in the same
// run, and at the end the table that matters: index + sparse attention against dense attention at a
// long context, for prefill and for decode.
//
// The prefill of a whole context is its chunks of 1024 queries; 8 of them, evenly spaced, stand for
// all (cost is linear in the position, so the middle chunk of each eighth costs its mean).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "roof.h"
#include "workload.h"

namespace msa::bench {
namespace {

struct Options {
  int64_t context = 65536;
  int threads = 0;
  int repeats = 3;
  int64_t samples = 8;
  std::string shape = "all";
  bool json = false;
  bool no_roofs = false;
  bool processor_time = false;
};

struct Roofs {
  double gemm_gflops = 0;
  double read_gbytes = 0;
  double idle = 0;
};

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {{"mini", 16, 4, 64, 64, 16},
                                         {"production", 64, 4, 128, 128, 16}};
  return all;
}

/// Collects lines; prints them as they come, or as JSON at the end.
class Report {
 public:
  Report(const Options& options, const Roofs& roofs) : options_(options), roofs_(roofs) {}

  void header() const {
    if (options_.json) return;
    fmt::print("{:11} {:28} {:>12} {:>10} {:>8} {:>8} {:>8}\n", "shape", "op", "us", "GFLOP/s",
               "% GEMM", "GB/s", "% read");
  }

  void line(const std::string& shape, const std::string& op, double us, double flop, double bytes) {
    const double gflops = flop / us * 1e-3;
    const double gbytes = bytes / us * 1e-3;
    lines_.push_back({{"shape", shape},
                      {"op", op},
                      {"us", us},
                      {"gflops", gflops},
                      {"gemm_percent", percent(gflops, roofs_.gemm_gflops)},
                      {"gbytes_per_second", gbytes},
                      {"read_percent", percent(gbytes, roofs_.read_gbytes)}});
    if (options_.json) return;
    fmt::print("{:11} {:28} {:12.0f} {:10.1f} {:8.0f} {:8.1f} {:8.0f}\n", shape, op, us, gflops,
               percent(gflops, roofs_.gemm_gflops), gbytes, percent(gbytes, roofs_.read_gbytes));
  }

  void ratio(const std::string& what, double index_us, double sparse_us, double dense_us) {
    const double times = dense_us / (index_us + sparse_us);
    ratios_.push_back({{"what", what},
                       {"index_us", index_us},
                       {"attend_us", sparse_us},
                       {"dense_us", dense_us},
                       {"times_faster", times}});
  }

  void finish(const std::string& machine) const {
    if (options_.json) {
      fmt::print("{}\n", nlohmann::json{{"machine", machine},
                                        {"gemm_gflops", roofs_.gemm_gflops},
                                        {"read_gbytes_per_second", roofs_.read_gbytes},
                                        {"idle_scaling", roofs_.idle},
                                        {"lines", lines_},
                                        {"ratios", ratios_}}
                             .dump(2));
      return;
    }
    fmt::print("\n{:44} {:>12} {:>12} {:>12} {:>8}\n", "whole context, ms", "index", "attend",
               "dense", "faster");
    for (const auto& entry : ratios_) {
      fmt::print("{:44} {:12.2f} {:12.2f} {:12.2f} {:7.2f}x\n", entry["what"].get<std::string>(),
                 entry["index_us"].get<double>() * 1e-3, entry["attend_us"].get<double>() * 1e-3,
                 entry["dense_us"].get<double>() * 1e-3, entry["times_faster"].get<double>());
    }
  }

 private:
  static double percent(double value, double roof) { return roof > 0 ? 100 * value / roof : 0; }

  const Options& options_;
  const Roofs& roofs_;
  nlohmann::json lines_ = nlohmann::json::array();
  nlohmann::json ratios_ = nlohmann::json::array();
};

void bench_prefill(const Context& context, const Options& options, const Shape& shape,
                   Report& report) {
  constexpr int64_t kChunk = 1024;
  const int64_t chunks = std::max<int64_t>(1, options.context / kChunk);
  const int64_t samples = std::min(options.samples, chunks);
  Workload work(shape, options.context, kChunk);
  double index_us = 0;
  double sparse_us = 0;
  double overlap_us = 0;
  double dense_us = 0;
  for (int64_t n = 0; n < samples; ++n) {
    const double weight = static_cast<double>(chunks) / static_cast<double>(samples);
    // The middle chunk of each part: its cost is the part's mean.
    const int64_t chunk = (2 * n + 1) * chunks / (2 * samples);
    work.place((chunk + 1) * kChunk, kChunk);
    const std::string at = fmt::format(" 1024 at {}K", chunk);
    const double index = median_us(options.repeats, [&] { work.run_index(context); });
    report.line(shape.name, "index" + at, index, work.index_flop(), work.index_bytes());
    const double sparse = median_us(options.repeats, [&] { work.run_sparse(context); });
    report.line(shape.name, "attend" + at, sparse, work.sparse_flop(), work.sparse_bytes());
    work.choose_overlapping(0.9);
    const double overlap = median_us(options.repeats, [&] { work.run_sparse(context); });
    report.line(shape.name, "attend overlap" + at, overlap, work.sparse_flop(),
                work.sparse_bytes());
    const double dense = median_us(options.repeats, [&] { work.run_dense(context); });
    report.line(shape.name, "dense" + at, dense, work.dense_flop(), work.dense_bytes());
    index_us += weight * index;
    sparse_us += weight * sparse;
    overlap_us += weight * overlap;
    dense_us += weight * dense;
  }
  const std::string what = fmt::format("{} prefill {}K", shape.name, options.context / 1024);
  report.ratio(what + ", picks of random data", index_us, sparse_us, dense_us);
  report.ratio(what + ", picks that overlap", index_us, overlap_us, dense_us);
}

void bench_decode(const Context& context, const Options& options, const Shape& shape,
                  Report& report) {
  constexpr int kMoreRepeats = 15;
  for (const int64_t queries : {int64_t{1}, int64_t{4}}) {
    Workload work(shape, options.context, queries);
    work.place(options.context, queries);
    const int repeats = options.repeats * kMoreRepeats;
    const std::string at = fmt::format(" {} at {}K", queries, options.context / 1024);
    const double index = median_us(repeats, [&] { work.run_index(context); });
    report.line(shape.name, "index" + at, index, work.index_flop(), work.index_bytes());
    const double sparse = median_us(repeats, [&] { work.run_sparse(context); });
    report.line(shape.name, "attend" + at, sparse, work.sparse_flop(), work.sparse_bytes());
    const double dense = median_us(repeats, [&] { work.run_dense(context); });
    report.line(shape.name, "dense" + at, dense, work.dense_flop(), work.dense_bytes());
    report.ratio(fmt::format("{} decode of {} at {}K", shape.name, queries, options.context / 1024),
                 index, sparse, dense);
  }
}

int run(const Options& options) {
  const Context context({.backend = Backend::kCpu, .num_threads = options.threads});
  const int threads = context.num_threads();
  use_clock(options.processor_time ? Clock::kProcessor : Clock::kWall, threads);
  Roofs roofs;
  roofs.idle = idle_scaling(threads);
  if (!options.no_roofs) {
    roofs.gemm_gflops = gemm_gflops(threads, options.repeats);
    roofs.read_gbytes = read_gbytes_per_second(threads, options.repeats);
  }
  if (!options.json) {
    fmt::print("{}\n", context.description());
    fmt::print("roofs: oneDNN float32 2048^3 {:.0f} GFLOP/s, reading {:.1f} GB/s\n",
               roofs.gemm_gflops, roofs.read_gbytes);
    if (options.processor_time) fmt::print("times are processor time over {} threads\n", threads);
    fmt::print("{} threads against one: {:.2f} of perfect scaling{}\n\n", threads, roofs.idle,
               roofs.idle < 0.9 ? ": THE MACHINE IS NOT IDLE, do not trust these figures" : "");
  }
  Report report(options, roofs);
  report.header();
  for (const Shape& shape : shapes()) {
    if (options.shape != "all" && options.shape != shape.name) continue;
    bench_decode(context, options, shape, report);
    bench_prefill(context, options, shape, report);
  }
  report.finish(context.description());
  return 0;
}

int parse_and_run(int argc, char** argv) {
  Options options;
  CLI::App app("Benchmark of msa's ops on this machine");
  app.add_option("--context", options.context, "tokens of the context")
      ->check(CLI::Range(1024, 1 << 20));
  app.add_option("--threads", options.threads, "threads; 0: as many as the machine has")
      ->check(CLI::Range(0, 1024));
  app.add_option("--repeats", options.repeats, "calls of which the median counts")
      ->check(CLI::Range(1, 1000));
  app.add_option("--shape", options.shape, "geometry")
      ->check(CLI::IsMember({"all", "mini", "production"}));
  app.add_flag("--json", options.json, "print JSON instead of tables");
  app.add_flag("--no-roofs", options.no_roofs, "skip measuring GEMM and memory");
  app.add_flag("--processor-time", options.processor_time,
               "count processor time over threads, not the wall clock");
  app.add_option("--samples", options.samples, "chunks of the prefill that are measured")
      ->check(CLI::Range(1, 1024));
  CLI11_PARSE(app, argc, argv);
  const int status = run(options);
  if (std::fflush(stdout) != 0) throw std::runtime_error("cannot write to standard output");
  return status;
}

}  // namespace
}  // namespace msa::bench

int main(int argc, char** argv) {
  try {
    return msa::bench::parse_and_run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
