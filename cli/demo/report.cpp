#include "cli/demo/report.h"

#include <fmt/format.h>

#include <cmath>

#include "cli/parts/numbers.h"
#include "cli/parts/strip.h"
#include "cli/parts/table.h"
#include "cli/parts/text.h"

namespace msa::cli {
namespace {

using Json = nlohmann::json;

const Planted& first_line(const DemoResult& result, size_t question) {
  return result.document.lines[result.quiz.questions[question].lines[0]];
}

/// Blocks of document and question, of which the answer's first token reads some.
int64_t num_blocks(const DemoResult& result, const ModelShape& shape) {
  const auto tokens = static_cast<int64_t>(result.document.tokens.size());
  return (tokens + result.document.question_tokens) / shape.block_size + 1;
}

std::string verdict(const DemoAnswer& answer) {
  if (!answer.asked) return "not asked";
  return answer.right ? "right" : "WRONG";
}

/// Layers in which some group read the block: "0 2 3".
std::string layers_text(const BlockReads& reads, int64_t block, int64_t num_groups) {
  std::string text;
  for (size_t row = 0; row < reads.size(); row += static_cast<size_t>(num_groups)) {
    const auto first = reads.begin() + static_cast<std::ptrdiff_t>(row);
    if (count_readers({first, first + num_groups}, block) == 0) continue;
    text += fmt::format("{}{}", text.empty() ? "" : " ", row / static_cast<size_t>(num_groups));
  }
  return text.empty() ? "none" : text;
}

std::string facts_text(const DemoResult& result, const ModelShape& shape) {
  std::vector<Column> columns = {{"key", Align::kLeft, 24}, {"value", Align::kLeft, 16},
                                 {"depth", Align::kRight},  {"answer", Align::kLeft, 16},
                                 {"", Align::kLeft},        {"read by layer", Align::kLeft, 13}};
  if (result.dense) columns.push_back({"dense", Align::kLeft, 9});
  Table table(columns);
  for (size_t i = 0; i < result.quiz.questions.size(); ++i) {
    const Question& question = result.quiz.questions[i];
    const Planted& planted = first_line(result, i);
    const DemoAnswer& sparse = result.sparse.answers[i];
    std::vector<std::string> row = {
        question.name,
        question.expected[0],
        fmt::format("{:.0f} %", planted.depth * 100),
        std::string(trim(sparse.answer.text)),
        verdict(sparse),
        layers_text(sparse.answer.reads, planted.block, shape.num_groups)};
    if (result.dense) row.push_back(verdict(result.dense->answers[i]));
    table.add(row);
  }
  return table.text();
}

std::string rate(int64_t tokens, double seconds) {
  return seconds > 0 ? fmt::format("{:.0f}", static_cast<double>(tokens) / seconds) : "-";
}

void add_times(Table& table, const std::string& name, const DemoRun& run) {
  const double attention = run.prefill.attend + run.prefill.dense;
  table.add({name, short_count(run.tokens_read), human_seconds(run.prefill_seconds),
             rate(run.tokens_read, run.prefill_seconds), human_seconds(run.prefill.index),
             human_seconds(attention), human_seconds(run.prefill.linear),
             human_seconds(run.prefill.other), rate(run.decoded_tokens, run.decode_seconds)});
}

std::string times_text(const DemoResult& result) {
  Table table({{"attention", Align::kLeft, 22},
               {"tokens", Align::kRight},
               {"prefill", Align::kRight},
               {"tokens/s", Align::kRight},
               {"index", Align::kRight},
               {"attend", Align::kRight},
               {"linear", Align::kRight},
               {"other", Align::kRight},
               {"decode tok/s", Align::kRight}});
  add_times(table, "sparse", result.sparse);
  if (result.dense) add_times(table, "dense", *result.dense);
  const auto tokens = static_cast<int64_t>(result.document.tokens.size());
  if (result.dense_estimate) {
    const DenseEstimate& estimate = *result.dense_estimate;
    table.add({"dense, EXTRAPOLATED", short_count(tokens), human_seconds(estimate.prefill_seconds),
               rate(tokens, estimate.prefill_seconds), "-",
               human_seconds(estimate.attention_seconds), "-", "-", "-"});
  }
  std::string text = table.text();
  if (!result.dense) return text;
  const double sparse = result.sparse.prefill.index + result.sparse.prefill.attend;
  const double dense = result.dense_estimate ? result.dense_estimate->attention_seconds
                                             : result.dense->prefill.dense;
  text += fmt::format(
      "attention of the prefill: dense {}, sparse (index + attend) {}: {:.1f} times{}\n",
      human_seconds(dense), human_seconds(sparse), dense / sparse,
      result.dense_estimate ? ", extrapolated" : "");
  if (result.dense_estimate) {
    text += fmt::format(
        "Dense attention read only the first {} tokens; its time for all of them is extrapolated "
        "(attention\ngrows with the square, the rest with the length). Facts beyond were not "
        "asked.\n",
        result.dense->tokens_read);
  }
  return text;
}

Json times_json(const DemoRun& run) {
  return {{"tokens_read", run.tokens_read},
          {"prefill_seconds", run.prefill_seconds},
          {"index_seconds", run.prefill.index},
          {"attend_seconds", run.prefill.attend},
          {"dense_attention_seconds", run.prefill.dense},
          {"linear_seconds", run.prefill.linear},
          {"other_seconds", run.prefill.other},
          {"decoded_tokens", run.decoded_tokens},
          {"decode_seconds", run.decode_seconds}};
}

}  // namespace

size_t telling_fact(const DemoResult& result) {
  size_t best = 0;
  for (size_t i = 0; i < result.quiz.questions.size(); ++i) {
    if (!result.sparse.answers[i].right) return i;
    const auto from_middle = [&](size_t fact) {
      return std::abs(first_line(result, fact).depth - 0.5);
    };
    if (from_middle(i) < from_middle(best)) best = i;
  }
  return best;
}

std::string demo_text(const DemoResult& result, const ModelShape& shape,
                      const ReportOptions& options) {
  int64_t right = 0;
  for (const DemoAnswer& answer : result.sparse.answers) right += answer.right;
  std::string text = facts_text(result, shape);
  text += fmt::format("{} of {} facts found\n\n", right, result.quiz.questions.size());
  text += times_text(result);
  for (const size_t fact : options.strips) {
    const Planted& planted = first_line(result, fact);
    const Answer& answer = result.sparse.answers[fact].answer;
    StripOptions strip;
    strip.num_groups = shape.num_groups;
    strip.num_blocks = num_blocks(result, shape);
    strip.planted_block = planted.block;
    strip.colour = options.colour;
    const Question& question = result.quiz.questions[fact];
    text += fmt::format(
        "\nplanted: {}\nasked:   {}\nblocks read for the first token of the answer ({} blocks of "
        "{} "
        "tokens, from left to right;\neach group reads at most {}; v marks block {}, which has the "
        "value)\n",
        shorten(result.quiz.lines[question.lines[0]].text, 90), shorten(question.text, 90),
        strip.num_blocks, shape.block_size, shape.top_k, planted.block);
    text += draw_strip(answer.reads, strip);
  }
  return text;
}

Json demo_json(const DemoResult& result, const ModelShape& shape) {
  Json facts = Json::array();
  for (size_t i = 0; i < result.quiz.questions.size(); ++i) {
    const Question& question = result.quiz.questions[i];
    const Planted& planted = first_line(result, i);
    const DemoAnswer& sparse = result.sparse.answers[i];
    Json fact = {{"fact", result.quiz.lines[question.lines[0]].text},
                 {"question", question.text},
                 {"expected", question.expected[0]},
                 {"answer", std::string(trim(sparse.answer.text))},
                 {"right", sparse.right},
                 {"depth", planted.depth},
                 {"block", planted.block},
                 {"readers", count_readers(sparse.answer.reads, planted.block)},
                 {"blocks_read", sparse.answer.reads}};
    if (result.dense && result.dense->answers[i].asked) {
      fact["dense_answer"] = std::string(trim(result.dense->answers[i].answer.text));
      fact["dense_right"] = result.dense->answers[i].right;
    }
    facts.push_back(std::move(fact));
  }
  Json json = {{"tokens", result.document.tokens.size()},
               {"haystack_repeats", result.document.haystack_repeats},
               {"block_size", shape.block_size},
               {"blocks", num_blocks(result, shape)},
               {"top_k", shape.top_k},
               {"layers", shape.num_layers},
               {"groups", shape.num_groups},
               {"all_right", result.all_right()},
               {"facts", facts},
               {"sparse", times_json(result.sparse)}};
  if (!result.dense) return json;
  json["dense"] = times_json(*result.dense);
  if (result.dense_estimate) {
    json["dense_extrapolated"] = {{"from_tokens", result.dense->tokens_read},
                                  {"prefill_seconds", result.dense_estimate->prefill_seconds},
                                  {"attention_seconds", result.dense_estimate->attention_seconds}};
  }
  return json;
}

}  // namespace msa::cli
