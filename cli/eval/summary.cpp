#include "cli/eval/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "cli/parts/table.h"
#include "cli/parts/text.h"

namespace msa::cli {
namespace {

using Json = nlohmann::json;

std::optional<size_t> plain_variant(const EvalOptions& options, const std::string& attention) {
  for (size_t i = 0; i < options.variants.size(); ++i) {
    const Variant& variant = options.variants[i];
    if (variant.attention == attention && variant.control == "none") return i;
  }
  return std::nullopt;
}

std::string variant_text(const Variant& variant) {
  return variant.control == "none" ? variant.attention : variant.attention + ", " + variant.control;
}

std::string layers_text(const Summary& summary) {
  if (summary.layer_read.empty()) return "-";
  std::string text;
  for (const double share : summary.layer_read) {
    text += fmt::format("{}{:.0f}", text.empty() ? "" : " ", share * 100);
  }
  return text + " %";
}

/// The first few facts that were missed without a control.
std::string misses_text(const EvalResult& result, const EvalOptions& options) {
  constexpr size_t kShown = 5;
  Table table({{"length", Align::kRight},
               {"attention"},
               {"missed fact", Align::kLeft, 48},
               {"answer", Align::kLeft, 24}});
  size_t misses = 0;
  for (const Trial& trial : result.trials) {
    const Variant& variant = options.variants[trial.variant];
    if (trial.right || variant.control != "none" || ++misses > kShown) continue;
    table.add({short_count(trial.length), variant.attention, trial.fact,
               std::string(trim(trial.answer))});
  }
  if (misses == 0) return "";
  std::string text(1, '\n');
  text += table.text();
  if (misses > kShown) text += fmt::format("and {} more; --json has all\n", misses - kShown);
  return text;
}

Json count_json(const Count& count) { return {{"right", count.right}, {"total", count.total}}; }

}  // namespace

std::vector<Summary> summarise(const EvalResult& result, const EvalOptions& options) {
  std::vector<Summary> summaries;
  for (const int64_t length : options.lengths) {
    for (size_t variant = 0; variant < options.variants.size(); ++variant) {
      Summary summary;
      summary.length = length;
      summary.variant = variant;
      int64_t with_reads = 0;
      for (const Trial& trial : result.trials) {
        if (trial.length != length || trial.variant != variant) continue;
        summary.all.add(trial.right);
        const auto bin = static_cast<size_t>(trial.depth * static_cast<double>(kDepthBins));
        summary.by_depth[std::min(bin, kDepthBins - 1)].add(trial.right);
        summary.by_kind[std::string(value_kind_name(trial.kind))].add(trial.right);
        if (trial.blocks_read.empty()) continue;
        ++with_reads;
        summary.layer_read.resize(trial.blocks_read.size());
        for (size_t layer = 0; layer < trial.blocks_read.size(); ++layer) {
          summary.layer_read[layer] += trial.blocks_read[layer];
        }
      }
      for (double& share : summary.layer_read) share /= static_cast<double>(with_reads);
      summaries.push_back(std::move(summary));
    }
  }
  return summaries;
}

std::vector<Paired> pair_up(const EvalResult& result, const EvalOptions& options) {
  const std::optional<size_t> sparse = plain_variant(options, "sparse");
  const std::optional<size_t> dense = plain_variant(options, "dense");
  std::vector<Paired> pairs;
  if (!sparse || !dense) return pairs;
  for (const int64_t length : options.lengths) {
    std::vector<bool> first;
    std::vector<bool> second;
    for (const Trial& trial : result.trials) {
      if (trial.length != length) continue;
      if (trial.variant == *sparse) first.push_back(trial.right);
      if (trial.variant == *dense) second.push_back(trial.right);
    }
    Paired paired;
    paired.length = length;
    for (size_t i = 0; i < first.size(); ++i) {
      paired.both += first[i] && second[i];
      paired.only_sparse += first[i] && !second[i];
      paired.only_dense += !first[i] && second[i];
      paired.neither += !first[i] && !second[i];
    }
    pairs.push_back(paired);
  }
  return pairs;
}

std::string summary_text(const EvalResult& result, const EvalOptions& options) {
  const std::vector<Summary> summaries = summarise(result, options);
  Table accuracy({{"length", Align::kRight},
                  {"attention"},
                  {"right", Align::kRight},
                  {"accuracy", Align::kRight},
                  {"95 % interval", Align::kRight},
                  {"block read, layer by layer"}});
  std::vector<Column> columns = {{"length", Align::kRight}, {"attention"}};
  for (size_t bin = 0; bin < kDepthBins; ++bin) {
    columns.push_back({fmt::format("{}-{}", bin * 10, bin * 10 + 10), Align::kRight});
  }
  Table depths(columns);
  Table kinds({{"length", Align::kRight},
               {"attention"},
               {"kind of value"},
               {"right", Align::kRight},
               {"accuracy", Align::kRight}});
  for (const Summary& summary : summaries) {
    const std::string length = short_count(summary.length);
    const std::string variant = variant_text(options.variants[summary.variant]);
    const Interval interval = wilson_interval(summary.all.right, summary.all.total);
    accuracy.add({length, variant, fmt::format("{}/{}", summary.all.right, summary.all.total),
                  percent(summary.all.share()),
                  fmt::format("{:.1f} to {:.1f} %", interval.low * 100, interval.high * 100),
                  layers_text(summary)});
    std::vector<std::string> row = {length, variant};
    for (const Count& count : summary.by_depth) {
      row.push_back(count.total == 0 ? "-" : fmt::format("{}/{}", count.right, count.total));
    }
    depths.add(row);
    for (const auto& [kind, count] : summary.by_kind) {
      kinds.add({length, variant, kind, fmt::format("{}/{}", count.right, count.total),
                 percent(count.share())});
    }
  }
  std::string text = accuracy.text();
  text += "\nright by depth of the fact in the document (% from its top)\n" + depths.text();
  text += "\nright by kind of value\n" + kinds.text();
  text += misses_text(result, options);
  for (const Paired& paired : pair_up(result, options)) {
    const int64_t total = paired.both + paired.only_sparse + paired.only_dense + paired.neither;
    text += fmt::format(
        "\n{}: sparse minus dense on the same documents: {:+.1f} points ({} right in both, {} only "
        "sparse,\n{} only dense, {} in neither)\n",
        short_count(paired.length),
        100.0 * static_cast<double>(paired.only_sparse - paired.only_dense) /
            static_cast<double>(total),
        paired.both, paired.only_sparse, paired.only_dense, paired.neither);
  }
  return text;
}

Json summary_json(const EvalResult& result, const EvalOptions& options) {
  Json results = Json::array();
  for (const Summary& summary : summarise(result, options)) {
    const Interval interval = wilson_interval(summary.all.right, summary.all.total);
    Json depths = Json::array();
    for (const Count& count : summary.by_depth) depths.push_back(count_json(count));
    Json kinds = Json::object();
    for (const auto& [kind, count] : summary.by_kind) kinds[kind] = count_json(count);
    results.push_back({{"length", summary.length},
                       {"attention", options.variants[summary.variant].attention},
                       {"control", options.variants[summary.variant].control},
                       {"right", summary.all.right},
                       {"trials", summary.all.total},
                       {"accuracy", summary.all.share()},
                       {"interval_95", {interval.low, interval.high}},
                       {"by_depth_tenth", depths},
                       {"by_kind", kinds},
                       {"block_read_by_layer", summary.layer_read}});
  }
  Json pairs = Json::array();
  for (const Paired& paired : pair_up(result, options)) {
    pairs.push_back({{"length", paired.length},
                     {"both", paired.both},
                     {"only_sparse", paired.only_sparse},
                     {"only_dense", paired.only_dense},
                     {"neither", paired.neither}});
  }
  Json trials = Json::array();
  for (const Trial& trial : result.trials) {
    trials.push_back({{"length", trial.length},
                      {"document", trial.document},
                      {"attention", options.variants[trial.variant].attention},
                      {"control", options.variants[trial.variant].control},
                      {"fact", trial.fact},
                      {"question", trial.question},
                      {"expected", trial.expected},
                      {"answer", trial.answer},
                      {"right", trial.right},
                      {"depth", trial.depth},
                      {"kind", value_kind_name(trial.kind)},
                      {"block_read_by_layer", trial.blocks_read}});
  }
  return {{"results", results},
          {"paired", pairs},
          {"haystack_repeats", result.most_repeats},
          {"seconds", result.seconds},
          {"trials", trials}};
}

}  // namespace msa::cli
