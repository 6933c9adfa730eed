#include "cli/bench/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <map>

#include "bench/measure.h"
#include "cli/machine/machine.h"
#include "cli/parts/machine.h"
#include "cli/parts/numbers.h"
#include "cli/parts/output.h"
#include "cli/parts/progress.h"
#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

using Json = nlohmann::json;
using bench::Part;
using bench::Plan;
using bench::Timing;
using bench::Work;

constexpr int kMostRoofRepeats = 5;
constexpr size_t kMostRequestsListed = 256;
constexpr double kGiga = 1e9;
/// Beside tensors: workspace, oneDNN, the program itself.
constexpr double kOtherBytes = 256e6;

/// The better of what was measured before and after: a roof that a busy moment lowered is none.
struct Roofs {
  double float32_gflops = 0;
  std::optional<double> storage_gflops;  ///< of the caches' type, where the library has products
  double read_gbytes = 0;

  static Roofs measure(DType type, const bench::ReadBuffer& buffer, int threads, int repeats) {
    Roofs roofs;
    roofs.float32_gflops = bench::gemm_gflops(DType::kFloat32, threads, repeats).value();
    roofs.storage_gflops =
        type == DType::kFloat32 ? roofs.float32_gflops : bench::gemm_gflops(type, threads, repeats);
    roofs.read_gbytes = buffer.gbytes_per_second(repeats);
    return roofs;
  }

  void raise_to(const Roofs& other) {
    float32_gflops = std::max(float32_gflops, other.float32_gflops);
    storage_gflops = std::max(storage_gflops, other.storage_gflops);
    read_gbytes = std::max(read_gbytes, other.read_gbytes);
  }

  Json json(DType type) const {
    Json gemm = {{"float32", float32_gflops}};
    gemm[dtype_name(type)] = storage_gflops ? Json(*storage_gflops) : Json(nullptr);
    return {{"gemm_gflops", gemm}, {"read_gbytes_per_second", read_gbytes}};
  }

  /// What the floor is made of: the better of the two, since a kernel may widen what it reads.
  double gflops() const { return std::max(float32_gflops, storage_gflops.value_or(0)); }
};

/// Tells a person how far the run is, in the float operations of a rough forecast.
class Progress {
 public:
  explicit Progress(double total) : total_(total), line_("measuring", "GFLOP") {}

  void add(double flop) { show(done_ + flop); }
  /// A group that stopped early, or took more sweeps than thought.
  void reach(double flop) { show(flop); }
  double done() const { return done_; }

 private:
  void show(double done) {
    done_ = std::min(done, total_);
    line_.update(static_cast<int64_t>(done_ / kGiga), static_cast<int64_t>(total_ / kGiga));
  }

  double total_;
  double done_ = 0;
  ProgressLine line_;
};

/// What a call is thought to cost, in FLOP; attend by the rows that its lists could have.
double forecast(const bench::LayerShape& shape, const bench::Piece& piece, Part part) {
  double flop = 0;
  for (const bench::Request& request : piece.requests) {
    const double dense = dense_work(shape, {request}).flop;
    const auto listed = static_cast<double>(shape.top_k * shape.block_size);
    const double share = std::min(1.0, listed / static_cast<double>(request.k_len));
    if (part == Part::kDense) flop += dense;
    if (part == Part::kAttend) flop += dense * share;
    if (part == Part::kIndex) flop += index_work(shape, {request}).flop;
    const Work all = {dense, 0};
    if (part == Part::kBackward) flop += backward_work(shape, {request}, all.times(share)).flop;
    if (part == Part::kDenseBackward) flop += backward_work(shape, {request}, all).flop;
    if (part == Part::kKl) flop += kl_work(shape, {request}, all.times(share), true).flop;
    if (part == Part::kDenseKl) flop += kl_work(shape, {request}, all, false).flop;
  }
  return flop;
}

double forecast(const bench::LayerShape& shape, const Plan& plan, const std::vector<Part>& chain) {
  double flop = 0;
  for (const bench::Piece& piece : plan.pieces) {
    for (const Part part : chain) flop += forecast(shape, piece, part);
  }
  return flop;
}

class Run {
 public:
  Run(const BenchSettings& settings, const std::string& command)
      : settings_(settings),
        context_({.backend = settings.backend, .num_threads = settings.threads}) {
    for (const BenchCase& one : settings.cases) {
      plans_.push_back(plan_calls(one.requests, settings.plan));
      room_.grow(settings.shape, plans_.back().pieces);
    }
    check_support();
    check_memory();
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    char date[32];
    if (gmtime_r(&now, &parts) != nullptr && std::strftime(date, sizeof date, "%F", &parts) > 0) {
      json_["date"] = date;
    }
    json_["format"] = "msa-bench-1";
    json_["command"] = command;
    json_["version"] = version();
  }

  Json measure_all() {
    const bench::ReadBuffer buffer(context_.num_threads());
    const double idle_before = bench::idle_scaling(context_.num_threads());
    roofs_ = measure_roofs(buffer);
    add_setting();
    const auto workbench =
        make_host_workbench(context_, settings_.shape, room_, settings_.picks, settings_.clock,
                            settings_.warm ? nullptr : &buffer, settings_.training);
    double total = 0;
    for (const Plan& plan : plans_) total += planned_flop(plan);
    Progress progress(total);
    for (size_t n = 0; n < plans_.size(); ++n) {
      json_["cases"].push_back(measure_case(*workbench, n, progress));
    }
    json_["workspace_bytes"] = workbench->workspace_bytes();
    add_roofs(measure_roofs(buffer), buffer.bytes());
    add_machine(idle_before);
    if (!settings_.suite.empty()) add_weighted_means();
    return json_;
  }

 private:
  std::vector<std::vector<Part>> chains() const {
    std::vector<std::vector<Part>> all = {settings_.chain};
    if (settings_.dense) all.push_back({Part::kDense});
    return all;
  }

  void check_support() const {
    const std::map<Part, Op> ops = {{Part::kAppend, Op::kCacheAppend},
                                    {Part::kIndex, Op::kIndexForward},
                                    {Part::kAttend, Op::kAttentionForward},
                                    {Part::kDense, Op::kDenseAttentionForward},
                                    {Part::kBackward, Op::kAttentionBackward},
                                    {Part::kDenseBackward, Op::kDenseAttentionBackward},
                                    {Part::kKl, Op::kKlForwardBackward},
                                    {Part::kDenseKl, Op::kKlForwardBackward}};
    const bench::LayerShape& shape = settings_.shape;
    const Geometry geometry = {shape.q_heads, shape.kv_heads, shape.head_dim, shape.block_size,
                               shape.top_k};
    for (const auto& chain : chains()) {
      for (const Part part : chain) {
        const Support support = supports(context_, ops.at(part), geometry, shape.kv_type);
        if (!support.supported) throw UsageError(support.reason);
      }
    }
  }

  void check_memory() const {
    const double needed = workbench_bytes(settings_.shape, room_, settings_.training) + kOtherBytes;
    const double free = memory_state().available;
    if (needed <= free) return;
    throw UsageError(
        fmt::format("these shapes need {} of memory: got {} free, allowed what fits; shorter "
                    "contexts, smaller --batch or (sampled) smaller --chunk take less",
                    human_bytes(needed), human_bytes(free)));
  }

  Roofs measure_roofs(const bench::ReadBuffer& buffer) const {
    return Roofs::measure(settings_.shape.kv_type, buffer, context_.num_threads(),
                          std::min(kMostRoofRepeats, settings_.repeats));
  }

  void add_machine(double idle_before) {
    const int threads = context_.num_threads();
    json_["machine"] = {{"cpu", cpu_name()},
                        {"threads", threads},
                        {"last_cache_bytes", bench::last_cache_bytes()},
                        {"idle_scaling", idle_before},
                        {"idle_scaling_after", bench::idle_scaling(threads)}};
    json_["backend"] = {{"name", backend_name(context_.backend())},
                        {"description", context_.description()}};
  }

  /// What the machine can do, and how far from it each op is.
  void add_roofs(const Roofs& after, size_t buffer_bytes) {
    const DType type = settings_.shape.kv_type;
    const Json both = {{"before", roofs_.json(type)}, {"after", after.json(type)}};
    roofs_.raise_to(after);
    Json roofs = roofs_.json(type);
    roofs["measured"] = both;
    roofs["gemm_size"] = bench::kGemmSize;
    roofs["read_buffer_bytes"] = buffer_bytes;
    roofs["floor_gflops"] = roofs_.gflops();
    json_["roofs"] = roofs;
    for (Json& one : json_["cases"]) {
      double layer_floor = 0;  // its parts run one after another, each under its own roof
      for (Json& op : one["ops"]) {
        add_percents(op);
        if (op["op"] == sum_name()) op["floor_seconds"] = layer_floor;
        layer_floor += op["floor_seconds"].get<double>();
      }
      add_ratio(one);
    }
  }

  void add_percents(Json& op) const {
    const double gflops = op["gflops"];
    op["gemm_percent"] = {{"float32", 100 * gflops / roofs_.float32_gflops}};
    if (roofs_.storage_gflops) {
      op["gemm_percent"][dtype_name(settings_.shape.kv_type)] =
          100 * gflops / *roofs_.storage_gflops;
    }
    op["read_percent"] = 100 * op["gbytes_per_second"].get<double>() / roofs_.read_gbytes;
    const Work work = {op["flop"], op["bytes"]};
    op["floor_seconds"] = bench::floor_seconds(work, roofs_.gflops(), roofs_.read_gbytes);
  }

  void add_setting() {
    const bench::LayerShape& shape = settings_.shape;
    json_["layer"] = {{"name", shape.name},
                      {"q_heads", shape.q_heads},
                      {"kv_heads", shape.kv_heads},
                      {"head_dim", shape.head_dim},
                      {"index_dim", shape.head_dim},
                      {"block_size", shape.block_size},
                      {"top_k", shape.top_k},
                      {"q_type", dtype_name(shape.q_type)},
                      {"kv_type", dtype_name(shape.kv_type)}};
    json_["picks"] = {{"kind", pick_name()}, {"seed", settings_.picks.seed}};
    if (settings_.picks.kind == bench::PickKind::kKeep)
      json_["picks"]["keep"] = settings_.picks.keep;
    if (settings_.picks.kind == bench::PickKind::kRecorded) {
      json_["picks"]["layer"] = settings_.picks.layer;
    }
    json_["clock"] = settings_.clock == bench::Clock::kWall ? "wall" : "processor";
    json_["caches"] = settings_.warm ? "warm" : "cold";
    json_["cases"] = Json::array();
  }

  std::string pick_name() const {
    switch (settings_.picks.kind) {
      case bench::PickKind::kIndex:
        return "index";
      case bench::PickKind::kRandom:
        return "random";
      case bench::PickKind::kKeep:
        return "keep";
      case bench::PickKind::kSink:
        return "sink";
      case bench::PickKind::kRecorded:
        return "recorded";
    }
    return "unknown";
  }

  /// Sweeps that fit into the time, were all ops at the roof of float32.
  double planned_sweeps(double flop) const {
    const double seconds = flop / (roofs_.float32_gflops * kGiga) + 1e-3;
    return std::clamp(settings_.seconds / seconds, 1.0, static_cast<double>(settings_.repeats));
  }

  double planned_flop(const Plan& plan) const {
    double flop = 0;
    for (const auto& chain : chains()) {
      const double sweep = forecast(settings_.shape, plan, chain);
      flop += sweep * planned_sweeps(sweep);
    }
    return flop;
  }

  Json measure_case(bench::Workbench& workbench, size_t number, Progress& progress) {
    const BenchCase& one = settings_.cases[number];
    const Plan& plan = plans_[number];
    Json json = {{"name", one.name},
                 {"phase", phase_name(one.phase)},
                 {"context", one.context},
                 {"queries", plan.num_queries},
                 {"batch", one.requests.size()},
                 {"weight", one.weight},
                 {"method", plan.sampled ? "sampled" : "whole"},
                 {"tile_queries", plan.tile_queries},
                 {"measured_queries", plan.measured_queries},
                 {"ops", Json::array()}};
    add_requests(json, one, plan);
    for (const auto& chain : chains()) {
      const double sweep = forecast(settings_.shape, plan, chain);
      const double end = progress.done() + sweep * planned_sweeps(sweep);
      const bench::Measurement result =
          measure(workbench, settings_.shape, plan, chain,
                  {.repeats = settings_.repeats,
                   .seconds = settings_.seconds,
                   .prepare = settings_.prepare && chain == settings_.chain},
                  [&](const bench::Piece& piece, Part part) {
                    progress.add(forecast(settings_.shape, piece, part));
                  });
      progress.reach(end);
      for (const auto& [part, timing] : result.parts) {
        json["ops"].push_back(op_json(part_name(part), timing));
      }
      if (chain.size() > 1) json["ops"].push_back(op_json(sum_name(), result.sum));
    }
    return json;
  }

  /// Peers repeat the same calls: bench/peers/sdpa.py.
  static void add_requests(Json& json, const BenchCase& one, const Plan& plan) {
    const auto list = [](const std::vector<bench::Request>& requests) {
      Json pairs = Json::array();
      for (const bench::Request& request : requests) {
        pairs.push_back({request.q_len, request.k_len});
      }
      return pairs;
    };
    if (one.requests.size() <= kMostRequestsListed) json["requests"] = list(one.requests);
    if (!plan.sampled) return;
    json["tiles"] = Json::array();
    for (const bench::Piece& piece : plan.pieces) {
      json["tiles"].push_back({{"weight", piece.weight}, {"requests", list(piece.requests)}});
    }
  }

  /// Of a chain of several parts.
  const char* sum_name() const { return settings_.training ? "step" : "layer"; }

  static Json op_json(const std::string& name, const Timing& timing) {
    const bench::Summary summary = bench::summarise(timing.seconds);
    const Work& work = timing.work;
    const double gflops = work.flop / summary.median / kGiga;
    const double gbytes = work.bytes / summary.median / kGiga;
    Json json = {{"op", name},
                 {"seconds", summary.median},
                 {"least", summary.least},
                 {"most", summary.most},
                 {"spread", summary.spread()},
                 {"repeats", summary.count},
                 {"all_seconds", timing.seconds},
                 {"flop", work.flop},
                 {"bytes", work.bytes},
                 {"gflops", gflops},
                 {"gbytes_per_second", gbytes}};
    if (!timing.sample_seconds.empty()) {
      const double sampled = bench::summarise(timing.sample_seconds).median;
      json["sampled_seconds"] = sampled;
      json["sampling_difference"] = sampled / summary.median - 1;
    }
    return json;
  }

  /// How many times faster than dense, and how many times the roofs would allow.
  static void add_ratio(Json& json) {
    const Json* dense = nullptr;
    for (const Json& op : json["ops"]) {
      if (op["op"] == "dense") dense = &op;
    }
    if (dense == nullptr || json["ops"].size() == 1) return;
    const Json& sparse = json["ops"][json["ops"].size() - 2];  // the layer, or attend alone
    json["times_faster"] = (*dense)["seconds"].get<double>() / sparse["seconds"].get<double>();
    json["floor_times_faster"] =
        (*dense)["floor_seconds"].get<double>() / sparse["floor_seconds"].get<double>();
  }

  /// sum(weight * time) / sum(weight) over the suite, for each op.
  void add_weighted_means() {
    std::map<std::string, double> means;
    double weights = 0;
    for (const Json& one : json_["cases"]) weights += one["weight"].get<double>();
    for (const Json& one : json_["cases"]) {
      for (const Json& op : one["ops"]) {
        means[op["op"]] += one["weight"].get<double>() * op["seconds"].get<double>() / weights;
      }
    }
    json_["suite"] = {{"name", settings_.suite}, {"weighted_mean_seconds", means}};
  }

  const BenchSettings& settings_;
  Context context_;
  std::vector<Plan> plans_;
  bench::Room room_;
  Roofs roofs_;
  Json json_;
};

}  // namespace

nlohmann::json run_bench(const BenchSettings& settings, const std::string& command) {
  return Run(settings, command).measure_all();
}

}  // namespace msa::cli
