#include "cli/bench/report.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include "bench/roof.h"
#include "cli/parts/numbers.h"
#include "cli/parts/table.h"

namespace msa::cli {
namespace {

using Json = nlohmann::json;

/// Three digits and a unit: "617 us", "5.21 s", "12 min 40 s".
std::string short_seconds(double seconds) {
  if (seconds >= 119.95) return human_seconds(seconds);
  double value = seconds;
  const char* unit = "s";
  if (seconds < 0.9995) {
    value = seconds * 1e3;
    unit = "ms";
  }
  if (seconds < 0.9995e-3) {
    value = seconds * 1e6;
    unit = "us";
  }
  const int digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", value, digits, unit);
}

/// Enough digits to tell apart what differs: 0.03, 9.1, 206.
std::string rate(double value) {
  return fmt::format("{:.{}f}", value, value < 0.995 ? 2 : value < 99.5 ? 1 : 0);
}

std::string against_dense(double times_faster) {
  return times_faster >= 1 ? fmt::format("{:.2f}x faster", times_faster)
                           : fmt::format("{:.2f}x slower", 1 / times_faster);
}

std::string row(const std::string& name, const std::string& value) {
  return fmt::format("{:<9}{}\n", name, value);
}

std::string layer_text(const Json& run) {
  const Json& layer = run.at("layer");
  const auto number = [&](const char* name) { return layer.at(name).get<int64_t>(); };
  std::string text =
      row("layer",
          fmt::format("{}: {} query heads on {} KV heads of {}, {} blocks of {} tokens a query",
                      layer.at("name").get<std::string>(), number("q_heads"), number("kv_heads"),
                      number("head_dim"), number("top_k"), number("block_size")));
  const Json& picks = run.at("picks");
  const std::string kind = picks.at("kind");
  std::string chosen = kind == "index" ? "as the index branch chose" : kind;
  if (kind == "keep") chosen = fmt::format("each kept with {}", picks.at("keep").get<double>());
  if (kind == "recorded") {
    chosen = fmt::format("a model's, layer {}", picks.at("layer").get<int64_t>());
  }
  return text +
         row("data", fmt::format("random, {} queries, {} caches in pages, seed {}; blocks: {}",
                                 layer.at("q_type").get<std::string>(),
                                 layer.at("kv_type").get<std::string>(),
                                 picks.at("seed").get<uint64_t>(), chosen));
}

std::string machine_text(const Json& run) {
  const Json& machine = run.at("machine");
  const Json& roofs = run.at("roofs");
  const int threads = machine.at("threads");
  const double before = machine.at("idle_scaling");
  const double after = machine.at("idle_scaling_after");
  std::string text =
      row("machine", fmt::format("{}; {}", machine.at("cpu").get<std::string>(),
                                 run.at("backend").at("description").get<std::string>()));
  if (threads > 1) {
    const bool idle = std::min(before, after) >= bench::kIdleScaling;
    text +=
        row("", fmt::format("{} threads scale {:.2f} of perfect before, {:.2f} after: {}", threads,
                            before, after, idle ? "idle" : "NOT IDLE, do not trust these figures"));
  }
  std::string products;
  for (const auto& [type, gflops] : roofs.at("gemm_gflops").items()) {
    products += products.empty() ? "" : ", ";
    products += gflops.is_null() ? fmt::format("{} none here", type)
                                 : fmt::format("{} {:.0f} GFLOP/s", type, gflops.get<double>());
  }
  return text + row("roofs", fmt::format("oneDNN product {}^3: {}; reading {}: {:.1f} GB/s",
                                         roofs.at("gemm_size").get<int64_t>(), products,
                                         human_bytes(roofs.at("read_buffer_bytes")),
                                         roofs.at("read_gbytes_per_second").get<double>()));
}

/// "f32", "bf16", "f16", for titles of columns.
std::string short_type(const std::string& type) {
  if (type == "bfloat16") return "bf16";
  return type == "float16" ? "f16" : "f32";
}

std::string percent_cell(const Json& op, const std::string& type) {
  const Json& percents = op.at("gemm_percent");
  if (op.at("flop").get<double>() == 0 || !percents.contains(type)) return "";
  return rate(percents.at(type));
}

std::string cases_text(const Json& run) {
  const std::string storage = run.at("layer").at("kv_type");
  const bool two_types =
      storage != "float32" && !run.at("roofs").at("gemm_gflops").at(storage).is_null();
  std::vector<Column> columns = {{"what", Align::kLeft, 40}, {"op"},
                                 {"time", Align::kRight},    {"spread", Align::kRight},
                                 {"GFLOP/s", Align::kRight}, {"% f32", Align::kRight}};
  if (two_types) columns.push_back({fmt::format("% {}", short_type(storage)), Align::kRight});
  columns.push_back({"GB/s", Align::kRight});
  columns.push_back({"% read", Align::kRight});
  columns.push_back({"than dense", Align::kRight});
  Table table(columns);
  for (const Json& one : run.at("cases")) {
    const Json& ops = one.at("ops");
    for (size_t n = 0; n < ops.size(); ++n) {
      const Json& op = ops[n];
      std::string what;
      if (n == 0) {
        what = fmt::format("{}{}", one.at("name").get<std::string>(),
                           one.at("method") == "sampled" ? " ~" : "");
      }
      const bool has_flop = op.at("flop").get<double>() > 0;
      std::vector<std::string> cells = {
          what,
          op.at("op").get<std::string>(),
          short_seconds(op.at("seconds")),
          op.at("repeats").get<int>() > 1
              ? fmt::format("{:.0f} %", 100 * op.at("spread").get<double>())
              : "once",
          has_flop ? rate(op.at("gflops")) : "",
          percent_cell(op, "float32")};
      if (two_types) cells.push_back(percent_cell(op, storage));
      cells.push_back(rate(op.at("gbytes_per_second")));
      cells.push_back(rate(op.at("read_percent")));
      const bool compared = one.contains("times_faster") && n + 2 == ops.size();
      cells.push_back(compared ? against_dense(one.at("times_faster")) : "");
      table.add(cells);
    }
  }
  return table.text();
}

std::string sampling_text(const Json& run) {
  std::string text;
  for (const Json& one : run.at("cases")) {
    if (one.at("method") != "sampled") continue;
    text += fmt::format("~ sampled: {} tiles of {} queries at even distances stand for all\n",
                        one.at("tiles").size(), one.at("tile_queries").get<int64_t>());
    break;
  }
  for (const Json& one : run.at("cases")) {
    for (const Json& op : one.at("ops")) {
      if (!op.contains("sampling_difference")) continue;
      text += fmt::format("{}, {}: sampling would have said {}, {:+.1f} %\n",
                          one.at("name").get<std::string>(), op.at("op").get<std::string>(),
                          short_seconds(op.at("sampled_seconds")),
                          100 * op.at("sampling_difference").get<double>());
    }
  }
  return text;
}

std::string suite_text(const Json& run) {
  if (!run.contains("suite")) return "";
  std::string means;
  for (const auto& [op, seconds] : run.at("suite").at("weighted_mean_seconds").items()) {
    means += fmt::format("{}{} {}", means.empty() ? "" : ", ", op, short_seconds(seconds));
  }
  return fmt::format("weighted mean of the suite: {}\n", means);
}

}  // namespace

std::string bench_text(const Json& run) {
  const bool cold = run.at("caches") == "cold";
  std::string text = layer_text(run) + machine_text(run) + "\n" + cases_text(run) + "\n";
  text += sampling_text(run) + suite_text(run);
  text +=
      "time: median; spread: slowest less fastest, of the median; %: of the roof above; GB/s: "
      "what\n"
      "must be read and written at least once";
  text += cold ? ", from cold caches" : ", caches as the last call left them";
  if (run.at("clock") == "processor") text += "; processor time over threads";
  return text + ". docs/bench.md tells how it is counted.\n";
}

std::string bench_csv(const Json& run) {
  std::string text =
      "case,phase,method,context,queries,batch,weight,op,seconds,least,most,repeats,flop,bytes,"
      "gflops,gbytes_per_second,float32_percent,read_percent,floor_seconds\n";
  for (const Json& one : run.at("cases")) {
    for (const Json& op : one.at("ops")) {
      // Strings are quoted as JSON quotes them: no name has a quote of its own.
      text += one.at("name").dump();
      for (const char* name : {"phase", "method", "context", "queries", "batch", "weight"}) {
        text += fmt::format(",{}", one.at(name).dump());
      }
      for (const char* name : {"op", "seconds", "least", "most", "repeats", "flop", "bytes",
                               "gflops", "gbytes_per_second"}) {
        text += fmt::format(",{}", op.at(name).dump());
      }
      text += fmt::format(",{},{},{}\n", op.at("gemm_percent").at("float32").dump(),
                          op.at("read_percent").dump(), op.at("floor_seconds").dump());
    }
  }
  return text;
}

}  // namespace msa::cli
