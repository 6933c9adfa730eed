#include "cli/bench/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "cli/inspect/picks.h"
#include "cli/parts/arguments.h"
#include "cli/parts/numbers.h"
#include "cli/parts/places.h"
#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

using bench::LayerShape;
using bench::Part;
using bench::PickKind;

constexpr int64_t kMostHeads = 1024;
constexpr int64_t kMostDim = 1024;
constexpr int64_t kMostBlock = 4096;
constexpr int64_t kDefaultContext = int64_t{64} << 10;
constexpr int64_t kTrainingContext = int64_t{32} << 10;
constexpr int64_t kReferenceContext = int64_t{2} << 10;  // plain loops in double

/// The small model's layer, and MiniMax-M3's.
const std::array<LayerShape, 2>& known_shapes() {
  static const std::array<LayerShape, 2> shapes = {{
      {.name = "mini", .q_heads = 16, .kv_heads = 4, .head_dim = 64, .block_size = 64, .top_k = 16},
      {.name = "production",
       .q_heads = 64,
       .kv_heads = 4,
       .head_dim = 128,
       .block_size = 128,
       .top_k = 16},
  }};
  return shapes;
}

DType type_of(const std::string& name) {
  if (name == "bfloat16") return DType::kBFloat16;
  return name == "float16" ? DType::kFloat16 : DType::kFloat32;
}

Backend backend_of(const std::string& name) {
  if (name == "cuda") {
    throw UsageError(
        "--backend: got cuda, allowed reference, cpu; the GPU's benchmark is the program "
        "cuda_bench of a build with -DMSA_CUDA=ON");
  }
  return name == "reference" ? Backend::kReference : Backend::kCpu;
}

LayerShape shape_of(const BenchOptions& options) {
  const std::string fallback = options.suite.empty() ? "mini" : "production";
  const std::string& name = options.shape.empty() ? fallback : options.shape;
  LayerShape shape = name == known_shapes()[0].name ? known_shapes()[0] : known_shapes()[1];
  bool changed = false;
  const auto set = [&changed](int64_t& size, int64_t given) {
    if (given == 0 || given == size) return;
    size = given;
    changed = true;
  };
  set(shape.q_heads, options.q_heads);
  set(shape.kv_heads, options.kv_heads);
  set(shape.head_dim, options.head_dim);
  set(shape.block_size, options.block_size);
  set(shape.top_k, options.top_k);
  if (changed) shape.name = "custom";
  if (shape.q_heads % shape.kv_heads != 0) {
    throw UsageError(fmt::format("--q-heads: got {}, allowed multiples of the {} KV heads",
                                 shape.q_heads, shape.kv_heads));
  }
  shape.kv_type = type_of(options.type);
  shape.q_type = type_of(options.q_type);
  return shape;
}

bench::Picks made_picks(const BenchOptions& options) {
  bench::Picks picks;
  if (options.picks == "random") picks.kind = PickKind::kRandom;
  if (options.picks == "keep") picks.kind = PickKind::kKeep;
  if (options.picks == "sink") picks.kind = PickKind::kSink;
  picks.keep = options.keep;
  picks.seed = options.seed.value_or(1);
  return picks;
}

bool is_training(const std::string& op) {
  return op == "step" || op == "backward" || op == "dense-backward" || op == "kl" ||
         op == "dense-kl";
}

std::vector<BenchCase> context_cases(const BenchOptions& options, Backend backend) {
  std::vector<int64_t> contexts = options.contexts;
  if (contexts.empty()) {
    const int64_t length = is_training(options.op) ? kTrainingContext : kDefaultContext;
    contexts = {backend == Backend::kReference ? kReferenceContext : length};
  }
  std::vector<std::string> queries = options.queries;
  if (queries.empty()) queries = {"all"};
  if (options.queries.empty() && !is_training(options.op)) queries.emplace_back("1");
  std::vector<BenchCase> cases;
  for (const int64_t context : contexts) {
    for (const std::string& text : queries) {
      const int64_t count = text == "all" ? 0 : parse_count("--queries", text, 1, kMostTokens);
      if (count > context) {
        throw UsageError(
            fmt::format("--queries: got {}, allowed at most the {} tokens of the "
                        "context, or all",
                        text, context));
      }
      cases.push_back(context_case(context, count, options.batch));
    }
  }
  return cases;
}

/// --suite prefill and decode are the project's; anything else is a file.
std::filesystem::path suite_file(const std::string& name) {
  return name == "prefill" || name == "decode" ? default_suites_folder() / (name + ".csv")
                                               : std::filesystem::path(name);
}

void take_suite(const BenchOptions& options, BenchSettings& settings) {
  if (!options.contexts.empty() || !options.queries.empty() || options.batch != 1) {
    throw UsageError(
        "--suite: got it beside --context, --queries or --batch, allowed alone: a suite has its "
        "own shapes");
  }
  Suite suite = read_suite(suite_file(options.suite));
  settings.suite = options.suite;
  settings.cases = std::move(suite.cases);
  // A tile of 256 queries fills every thread with tiles as large as in a long call; 32 of decode
  // are some seven requests, whose caches fit in memory at 256K.
  settings.plan.chunk = suite.is_decode ? 32 : 256;
  settings.plan.samples = suite.is_decode ? 2 : 4;
}

/// What a model chose (msa inspect --picks): one call of its last queries.
void take_recorded(const BenchOptions& options, BenchSettings& settings) {
  const std::string& file = options.picks;
  if (!std::filesystem::is_regular_file(file)) {
    throw UsageError(fmt::format(
        "--picks: got '{}', allowed index, random, keep, sink, or a file of msa inspect --picks",
        file));
  }
  if (!options.contexts.empty() || !options.queries.empty() || options.batch != 1 ||
      !options.suite.empty() || options.chunk != 0) {
    throw UsageError(
        "--picks: got a file beside --context, --queries, --batch, --suite or --chunk, allowed "
        "without them: the file has its own context and queries");
  }
  Picks picks = read_picks(file);
  const int64_t layer = options.picks_layer.value_or(picks.layers.begin()->first);
  const auto found = picks.layers.find(layer);
  if (found == picks.layers.end()) {
    throw UsageError(fmt::format("--picks-layer: got {}, allowed {} to {} where the file has them",
                                 layer, picks.layers.begin()->first, picks.layers.rbegin()->first));
  }
  const LayerShape& shape = settings.shape;
  if (picks.num_groups != shape.kv_heads || picks.block_size != shape.block_size ||
      picks.top_k != shape.top_k) {
    throw UsageError(fmt::format(
        "--picks: got picks of {} KV heads, blocks of {}, top {} for a layer of {}, {}, {}; "
        "allowed the same (--shape, --kv-heads, --block-size, --top-k)",
        picks.num_groups, picks.block_size, picks.top_k, shape.kv_heads, shape.block_size,
        shape.top_k));
  }
  settings.picks.kind = PickKind::kRecorded;
  settings.picks.recorded = std::move(found->second);
  settings.picks.layer = layer;
  settings.cases = {context_case(picks.k_len, picks.num_rows, 1)};
  settings.plan.chunk = picks.num_rows;
}

bool is_made(const std::string& picks) {
  return picks == "index" || picks == "random" || picks == "keep" || picks == "sink";
}

void choose_parts(const BenchOptions& options, BenchSettings& settings) {
  const std::string& op = options.op;
  if (op != "layer" && options.append) {
    throw UsageError(fmt::format("--append: got it with {}, allowed with layer", op));
  }
  if (op == "append" || options.append) settings.chain.push_back(Part::kAppend);
  if (op == "index" || op == "layer") settings.chain.push_back(Part::kIndex);
  if (op == "attend" || op == "layer") settings.chain.push_back(Part::kAttend);
  if (op == "dense") settings.chain.push_back(Part::kDense);
  if (op == "backward") settings.chain.push_back(Part::kBackward);
  if (op == "dense-backward") settings.chain.push_back(Part::kDenseBackward);
  if (op == "kl") settings.chain.push_back(Part::kKl);
  if (op == "dense-kl") settings.chain.push_back(Part::kDenseKl);
  if (op == "step") {
    settings.chain = {Part::kIndex, Part::kAttend, Part::kBackward, Part::kKl};
  }
  settings.training = is_training(op);
  settings.dense = !options.no_dense && (op == "layer" || op == "attend");
  settings.prepare = op != "layer" && op != "step";
}

}  // namespace

void add_bench_options(CLI::App& verb, BenchOptions& options) {
  verb.add_option_function<std::string>(
          "OP",
          [&options](const std::string& text) {
            const std::array allowed = {"layer", "index",    "attend",         "dense", "append",
                                        "step",  "backward", "dense-backward", "kl",    "dense-kl"};
            if (std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
              throw UsageError(
                  fmt::format("got op '{}', allowed {}", text, fmt::join(allowed, ", ")));
            }
            options.op = text;
          },
          "layer (index, then attend, and dense beside), index, attend, dense, append; of training "
          "step (index, attend, backward, kl), backward, dense-backward, kl, dense-kl")
      ->type_name("")
      ->default_str(options.op);
  add_counts(verb, "--context", options.contexts, 1, kMostTokens, "Tokens of a context")
      ->default_str("64K; 32K in training; 2K with the reference");
  verb.add_option("--queries", options.queries,
                  "How many of a context's last tokens ask: all (prefill, in chunks) or a count")
      ->type_name("all|N")
      ->default_str("all 1; all in training");
  add_count(verb, "--batch", options.batch, 1, 4096, "Requests in a call");
  verb.add_option("--suite", options.suite,
                  "prefill or decode: what a service sees (bench/suites); or a file like those")
      ->type_name("NAME");
  add_choice(verb, "--shape", options.shape, {"mini", "production"},
             "The small model's layer or MiniMax-M3's")
      ->default_str("mini; production with --suite");
  add_count(verb, "--q-heads", options.q_heads, 1, kMostHeads, "Query heads")
      ->default_str("the shape's");
  add_count(verb, "--kv-heads", options.kv_heads, 1, kMostHeads, "Key-value heads")
      ->default_str("the shape's");
  add_count(verb, "--head-dim", options.head_dim, 1, kMostDim, "D, and the index dim")
      ->default_str("the shape's");
  add_count(verb, "--block-size", options.block_size, 1, kMostBlock, "Tokens in a block")
      ->default_str("the shape's");
  add_count(verb, "--top-k", options.top_k, 1, kMostBlock, "Blocks for each query and group")
      ->default_str("the shape's");
  const std::vector<std::string> types = {"float32", "bfloat16", "float16"};
  add_choice(verb, "--type", options.type, types, "Storage of the caches");
  add_choice(verb, "--q-type", options.q_type, types, "Storage of queries and results");
  verb.add_option("--picks", options.picks,
                  "Blocks that attend reads: of the index branch on random data, at random, most "
                  "kept from query to query, at random with the first block in each, or of a model")
      ->type_name("index|random|keep|sink|FILE")
      ->default_str(options.picks);
  verb.add_option_function<std::string>(
          "--picks-layer",
          [&options](const std::string& text) {
            options.picks_layer = parse_count("--picks-layer", text, 0, kMostTokens);
          },
          "With --picks FILE: the layer")
      ->type_name("L")
      ->default_str("the file's first");
  add_real(verb, "--keep", options.keep, 0, 1, "With --picks keep: how likely a pick is kept");
  add_seed(verb, options.seed, "Of data, pages and picks")->default_str("1");
  add_choice(verb, "--backend", options.backend, {"reference", "cpu", "cuda"}, "The backend");
  add_count(verb, "--threads", options.threads, 1, 1024, "Threads")->default_str("all");
  add_count(verb, "--chunk", options.chunk, 1, kMostTokens, "Queries of a call")
      ->default_str("1024; in suites 256 or, for decode, 32; all in training");
  add_count(verb, "--samples", options.samples, 1, 4096,
            "Calls that stand for all when there are more")
      ->default_str("8; in suites 4 or, for decode, 2");
  verb.add_flag("--whole", options.whole,
                "Run every call, and say what sampling would have missed");
  verb.add_flag("--append", options.append, "layer: write the new tokens into the caches first");
  verb.add_flag("--no-dense", options.no_dense, "Leave dense attention out");
  add_count(verb, "--repeats", options.repeats, 1, 10000, "Most times that each is measured");
  add_real(verb, "--seconds", options.seconds, 0, 86400,
           "Each stops repeating after so long; once is the least");
  verb.add_flag("--warm", options.warm, "Leave the processor's caches as the last call left them");
  add_choice(verb, "--clock", options.clock, {"wall", "processor"},
             "processor: time over threads, for a machine that is not idle");
  verb.add_flag("--json", options.json, "Everything as JSON");
  verb.add_flag("--csv", options.csv, "A line for each case and op, for spreadsheets");
}

BenchSettings settle(const BenchOptions& options) {
  if (options.json && options.csv) throw UsageError("--json, --csv: got both, allowed one of them");
  BenchSettings settings;
  settings.backend = backend_of(options.backend);
  settings.threads = static_cast<int>(options.threads);
  settings.shape = shape_of(options);
  settings.picks = made_picks(options);
  choose_parts(options, settings);
  if (!is_made(options.picks)) {
    take_recorded(options, settings);
  } else if (options.suite.empty()) {
    settings.cases = context_cases(options, settings.backend);
  } else {
    take_suite(options, settings);
  }
  if (settings.training) settings.plan.chunk = kMostTokens;  // a step reads whole sequences
  if (options.chunk != 0) settings.plan.chunk = options.chunk;
  if (options.samples != 0) settings.plan.samples = options.samples;
  if (options.picks_layer && settings.picks.kind != PickKind::kRecorded) {
    throw UsageError("--picks-layer: got it without a file of picks, allowed with --picks FILE");
  }
  settings.plan.whole = options.whole;
  settings.repeats = static_cast<int>(options.repeats);
  settings.seconds = options.seconds;
  settings.warm = options.warm;
  settings.clock = options.clock == "wall" ? bench::Clock::kWall : bench::Clock::kProcessor;
  return settings;
}

}  // namespace msa::cli
