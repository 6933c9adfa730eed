#include "cli/inspect/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/parts/numbers.h"
#include "cli/parts/table.h"

namespace msa::cli {
namespace {

using Json = nlohmann::json;

/// The figures of one group, or the means of all.
struct Figures {
  std::array<Mean, kNumRecalls> recalls;
  Mean jaccard;
  std::array<Mean, kUnionSizes.size()> unions;
  Mean first_block;
};

Figures figures_of(const GroupSurvey& group) {
  return {group.recalls, group.jaccard, group.unions, group.first_block};
}

void add_mean(Mean& all, const Mean& one) {
  if (!one.empty()) all.add(one.value());
}

Figures mean_figures(const Survey& survey) {
  Figures all;
  for (const auto& [layer, groups] : survey.layers()) {
    for (const GroupSurvey& group : groups) {
      for (size_t n = 0; n < kNumRecalls; ++n) add_mean(all.recalls[n], group.recalls[n]);
      for (size_t n = 0; n < kUnionSizes.size(); ++n) add_mean(all.unions[n], group.unions[n]);
      add_mean(all.jaccard, group.jaccard);
      add_mean(all.first_block, group.first_block);
    }
  }
  return all;
}

std::string cell(const Mean& mean, int digits) {
  return mean.empty() ? "-" : fmt::format("{:.{}f}", mean.value(), digits);
}

std::vector<std::string> cells(const Figures& figures) {
  std::vector<std::string> row;
  for (const size_t kind : std::array<size_t, kNumRecalls>{1, 0, 3, 2})
    row.push_back(cell(figures.recalls[kind], 3));
  row.push_back(cell(figures.jaccard, 3));
  for (const Mean& mean : figures.unions) row.push_back(cell(mean, 1));
  row.push_back(figures.first_block.empty() ? "-" : percent(figures.first_block.value()));
  return row;
}

Json value(const Mean& mean) { return mean.empty() ? Json() : Json(mean.value()); }

Json figures_json(const Figures& figures) {
  Json unions = Json::object();
  for (size_t n = 0; n < kUnionSizes.size(); ++n) {
    unions[std::to_string(kUnionSizes[n])] = value(figures.unions[n]);
  }
  return {{"block_recall", value(figures.recalls[0])},
          {"score_recall", value(figures.recalls[1])},
          {"block_recall_without_local", value(figures.recalls[2])},
          {"score_recall_without_local", value(figures.recalls[3])},
          {"neighbour_jaccard", value(figures.jaccard)},
          {"neighbour_union_blocks", unions},
          {"first_block_share", value(figures.first_block)}};
}

}  // namespace

Readers readers_of(const Survey& survey, int64_t block) {
  const SurveyOptions& options = survey.options();
  Readers readers;
  for (const auto& [layer, ids] : survey.kept_ids()) {
    for (int64_t group = 0; group < options.num_groups; ++group) {
      const auto list = ids.begin() + ((group + 1) * options.kept_rows - 1) * options.top_k;
      ++readers.of;
      readers.count += std::count(list, list + options.top_k, block);
    }
  }
  return readers;
}

std::string survey_text(const Survey& survey) {
  std::vector<Column> columns = {
      {"layer", Align::kRight},   {"group", Align::kRight},   {"score", Align::kRight},
      {"block", Align::kRight},   {"score-l", Align::kRight}, {"block-l", Align::kRight},
      {"jaccard", Align::kRight}, {"of 4", Align::kRight},    {"of 8", Align::kRight},
      {"of 16", Align::kRight},   {"block 0", Align::kRight}};
  Table table(columns);
  const auto add = [&table](std::string layer, std::string group, const Figures& figures) {
    std::vector<std::string> row = {std::move(layer), std::move(group)};
    for (std::string& text : cells(figures)) row.push_back(std::move(text));
    table.add(std::move(row));
  };
  for (const auto& [layer, groups] : survey.layers()) {
    for (size_t group = 0; group < groups.size(); ++group) {
      add(std::to_string(layer), std::to_string(group), figures_of(groups[group]));
    }
  }
  add("mean", "", mean_figures(survey));
  const SurveyOptions& options = survey.options();
  std::string text = table.text() + "\n";
  if (options.num_tokens <= survey.first_choosing_position()) {
    return text + fmt::format(
                      "No query chose: {} blocks are visible at most, and each query has room for "
                      "{}.\n",
                      survey.num_blocks(), options.top_k);
  }
  text += fmt::format(
      "Queries from position {} on, which have more than {} blocks to choose from.\n"
      "score, block    recalls: attention mass and number of the {} best blocks that were taken\n"
      "score-l, ...    the same without the local block{}\n"
      "jaccard         blocks that two neighbouring queries share, of all that they take\n"
      "of 4, 8, 16     distinct blocks that so many neighbours take together\n"
      "block 0         queries that take the first block\n",
      survey.first_choosing_position(), options.top_k, options.top_k,
      survey.num_recall_rows() == 0
          ? ""
          : fmt::format("; recalls are of {} queries a layer", survey.num_recall_rows()));
  return text;
}

nlohmann::json survey_json(const Survey& survey) {
  const SurveyOptions& options = survey.options();
  Json groups = Json::array();
  for (const auto& [layer, surveys] : survey.layers()) {
    for (size_t group = 0; group < surveys.size(); ++group) {
      Json entry = figures_json(figures_of(surveys[group]));
      entry["layer"] = layer;
      entry["group"] = group;
      groups.push_back(std::move(entry));
    }
  }
  return {{"tokens", options.num_tokens},
          {"blocks", survey.num_blocks()},
          {"block_size", options.block_size},
          {"top_k", options.top_k},
          {"first_choosing_position", survey.first_choosing_position()},
          {"recall_rows", survey.num_recall_rows()},
          {"mean", figures_json(mean_figures(survey))},
          {"groups", groups}};
}

}  // namespace msa::cli
