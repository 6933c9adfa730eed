// msa inspect: reads a prompt and shows what the index selected, as a picture, figures and ids.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string_view>

#include "cli/inspect/picks.h"
#include "cli/inspect/report.h"
#include "cli/inspect/sheet.h"
#include "cli/inspect/survey.h"
#include "cli/model/runner_model.h"
#include "cli/parts/arguments.h"
#include "cli/parts/numbers.h"
#include "cli/parts/output.h"
#include "cli/parts/output_file.h"
#include "cli/parts/progress.h"
#include "cli/parts/text.h"
#include "cli/parts/usage_error.h"
#include "cli/picture/png.h"
#include "cli/quiz/document.h"
#include "cli/verbs/verbs.h"

namespace msa::cli {
namespace {

struct InspectArguments {
  std::string model;
  std::optional<std::string> prompt;
  std::string prompt_file;
  std::vector<std::string> files;
  std::string fact;
  int64_t length = int64_t{8} << 10;
  bool has_length = false;
  std::optional<uint64_t> seed;
  int64_t recall_rows = 128;
  std::vector<int64_t> layers;
  std::string png = "msa-inspect.png";
  std::string picks;
  int64_t picks_rows = 1024;
  bool json = false;
};

/// What is read, and where its fact stands.
struct Prompt {
  std::vector<int32_t> tokens;
  std::string name;
  std::string question;  ///< empty without a fact
  int64_t fact_block = -1;
  uint64_t seed = 0;
};

void check_combination(const InspectArguments& arguments) {
  const bool document = arguments.has_length || arguments.seed.has_value() ||
                        !arguments.fact.empty() || !arguments.files.empty();
  const bool prompt = arguments.prompt.has_value() || !arguments.prompt_file.empty();
  if (arguments.prompt && !arguments.prompt_file.empty()) {
    throw UsageError("got two prompts, allowed one of --prompt and --prompt-file");
  }
  if (prompt && document) {
    throw UsageError(
        "--length, --seed, --fact, --file: got them with a prompt, allowed for the document with a "
        "fact that is read without one");
  }
  check_writable("--png", arguments.png);
  if (!arguments.picks.empty()) check_writable("--picks", arguments.picks);
}

Prompt text_prompt(const InspectArguments& arguments, const runner::Model& model) {
  Prompt prompt;
  prompt.name = arguments.prompt ? "the prompt" : arguments.prompt_file;
  const std::string text = arguments.prompt ? checked_text("--prompt", *arguments.prompt)
                                            : read_text_file(arguments.prompt_file);
  if (text.empty()) {
    throw UsageError(fmt::format("{}: got an empty prompt, allowed text",
                                 arguments.prompt ? "--prompt" : arguments.prompt_file));
  }
  prompt.tokens = {special_token(model, "<|begin|>")};
  const std::vector<int32_t> ids = model.tokenizer().encode(text);
  prompt.tokens.insert(prompt.tokens.end(), ids.begin(), ids.end());
  return prompt;
}

/// The demo's document with one fact, and the question for it.
Prompt fact_prompt(const InspectArguments& arguments,
                   std::shared_ptr<const runner::Model> weights) {
  Prompt prompt;
  prompt.seed = seed_or_fresh(arguments.seed);
  std::vector<TypedFact> typed;
  if (!arguments.fact.empty()) typed.push_back(parse_typed_fact(arguments.fact));
  Random words(prompt.seed, 0);
  const Quiz quiz = typed.empty() ? make_quiz({.facts = 1}, words) : typed_quiz(typed);
  const std::unique_ptr<LanguageModel> model = make_language_model(std::move(weights));
  const Haystack haystack(*model, haystack_texts(arguments.files, typed));
  Random places(prompt.seed, 1);
  const Document document =
      make_document(*model, haystack, quiz,
                    {.length = arguments.length, .in_order = !arguments.files.empty()}, places);
  prompt.tokens = document.tokens;
  prompt.question = quiz.questions[0].text;
  const std::vector<int32_t> question = question_tokens(*model, prompt.question);
  prompt.tokens.insert(prompt.tokens.end(), question.begin(), question.end());
  prompt.fact_block = document.lines[quiz.questions[0].lines[0]].block;
  prompt.name = haystack_name(arguments.files);
  return prompt;
}

void check_length(const Prompt& prompt, const runner::ModelConfig& config) {
  const auto count = static_cast<int64_t>(prompt.tokens.size());
  if (count > config.max_position_embeddings) {
    throw UsageError(
        fmt::format("prompt: got {} tokens, allowed at most {} (the model's positions)", count,
                    config.max_position_embeddings));
  }
  if (std::count(config.layers.begin(), config.layers.end(), runner::LayerKind::kSparseAttention) ==
      0) {
    throw UsageError(
        "--model: got a model whose layers all read everything, allowed one that "
        "selects blocks");
  }
}

Survey read(const Prompt& prompt, const InspectArguments& arguments,
            const std::shared_ptr<const runner::Model>& model) {
  const runner::ModelConfig& config = model->config();
  const auto count = static_cast<int64_t>(prompt.tokens.size());
  SurveyOptions options;
  options.num_tokens = count;
  options.block_size = config.block_size;
  options.top_k = config.top_k;
  options.num_groups = config.num_key_value_heads;
  options.recall_rows = arguments.recall_rows;
  options.kept_rows = arguments.picks.empty() ? 1 : std::min(arguments.picks_rows, count);
  Survey survey(model->context(), options);
  runner::DecoderOptions reading;
  reading.max_tokens = count;
  reading.selection_probe = [&survey](const runner::SelectionView& view) { survey.see(view); };
  runner::Decoder decoder(model, reading);
  ProgressLine line("reading", "tokens");
  decoder.append(prompt.tokens, [&line](int64_t done, int64_t total) { line.update(done, total); });
  return survey;
}

std::vector<int64_t> drawn_layers(const InspectArguments& arguments, const Survey& survey) {
  std::vector<int64_t> all;
  for (const auto& [layer, groups] : survey.layers()) all.push_back(layer);
  if (arguments.layers.empty()) return all;
  for (const int64_t layer : arguments.layers) {
    if (survey.layers().contains(layer)) continue;
    throw UsageError(fmt::format("--layer: got {}, allowed a layer that selects blocks: {} to {}",
                                 layer, all.front(), all.back()));
  }
  return arguments.layers;
}

std::string grouped(int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (size_t n = 0; n < digits.size(); ++n) {
    if (n > 0 && (digits.size() - n) % 3 == 0) text += ',';
    text += digits[n];
  }
  return text;
}

std::string heading(const Prompt& prompt, const Survey& survey) {
  return fmt::format("{} tokens of {}: {} blocks of {}, {} for each query",
                     grouped(survey.options().num_tokens), printable(prompt.name),
                     grouped(survey.num_blocks()), survey.options().block_size,
                     survey.options().top_k);
}

std::string fact_line(const Prompt& prompt, const Survey& survey) {
  const Readers readers = readers_of(survey, prompt.fact_block);
  return fmt::format("Asked \"{}\", {} of {} groups take the block with the fact, block {}.",
                     printable(prompt.question), readers.count, readers.of, prompt.fact_block);
}

std::string_view text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_picture(const InspectArguments& arguments, const Prompt& prompt, const Survey& survey,
                   const std::vector<int64_t>& layers) {
  SheetOptions options;
  options.title = "What the index selected";
  options.lines = {heading(prompt, survey)};
  options.layers = layers;
  if (prompt.fact_block >= 0) {
    options.lines.push_back(fact_line(prompt, survey));
    options.marked_block = prompt.fact_block;
  }
  write_file("--png", arguments.png, text_of(png_bytes(draw_sheet(survey, options))));
}

void write_picks(const InspectArguments& arguments, const Survey& survey) {
  const SurveyOptions& options = survey.options();
  const std::vector<std::byte> bytes = picks_bytes({.block_size = options.block_size,
                                                    .k_len = options.num_tokens,
                                                    .num_groups = options.num_groups,
                                                    .num_rows = options.kept_rows,
                                                    .top_k = options.top_k,
                                                    .layers = survey.kept_ids()});
  write_file("--picks", arguments.picks, text_of(bytes));
}

nlohmann::json report_json(const InspectArguments& arguments, const Prompt& prompt,
                           const Survey& survey, const std::string& backend, double seconds) {
  nlohmann::json json = survey_json(survey);
  json["prompt"] = prompt.name;
  json["backend"] = backend;
  json["seconds"] = seconds;
  json["png"] = arguments.png;
  json["picks"] = arguments.picks.empty() ? nlohmann::json() : nlohmann::json(arguments.picks);
  if (prompt.fact_block >= 0) {
    const Readers readers = readers_of(survey, prompt.fact_block);
    json["seed"] = prompt.seed;
    json["fact"] = {{"question", prompt.question},
                    {"block", prompt.fact_block},
                    {"readers", readers.count},
                    {"groups", readers.of}};
  }
  return json;
}

int inspect(const InspectArguments& arguments) {
  check_combination(arguments);
  const std::shared_ptr<const runner::Model> model = model_of(arguments.model);
  const bool typed = arguments.prompt.has_value() || !arguments.prompt_file.empty();
  const Prompt prompt = typed ? text_prompt(arguments, *model) : fact_prompt(arguments, model);
  check_length(prompt, model->config());
  const auto start = std::chrono::steady_clock::now();
  const Survey survey = read(prompt, arguments, model);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_picture(arguments, prompt, survey, drawn_layers(arguments, survey));
  if (!arguments.picks.empty()) write_picks(arguments, survey);
  const std::string backend = model->context().description();
  if (arguments.json) {
    const nlohmann::json json = report_json(arguments, prompt, survey, backend, seconds);
    print(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    return kSuccess;
  }
  print(heading(prompt, survey) + "\n" + backend + ", " + human_seconds(seconds) + "\n");
  if (prompt.fact_block >= 0) {
    print(fact_line(prompt, survey) + fmt::format(" Seed {}.\n", prompt.seed));
  }
  print("\n" + survey_text(survey) + "\npicture  " + printable(arguments.png) + "\n");
  if (!arguments.picks.empty()) print("picks    " + printable(arguments.picks) + "\n");
  return kSuccess;
}

}  // namespace

void add_inspect(CLI::App& app, Action& chosen) {
  CLI::App* verb = app.add_subcommand("inspect", "Show which blocks the index selects");
  const auto arguments = std::make_shared<InspectArguments>();
  verb->add_option("--prompt", arguments->prompt, "The prompt")->type_name("TEXT");
  verb->add_option("--prompt-file", arguments->prompt_file, "A text file with the prompt")
      ->type_name("F");
  verb->add_option("--file", arguments->files,
                   "Without a prompt: text files for the document that the fact is planted in")
      ->type_name("F");
  verb->add_option("--fact", arguments->fact, "Its fact \"KEY = VALUE\"; without one, a random one")
      ->type_name("FACT");
  add_count(*verb, "--length", arguments->length, 1, kMostTokens, "Its tokens, with the question")
      ->each([arguments](const std::string&) { arguments->has_length = true; });
  add_seed(*verb, arguments->seed, "Seed of fact, depth and haystack; fresh without it");
  add_count(*verb, "--recall-rows", arguments->recall_rows, 0, kMostTokens,
            "Queries of each layer whose recalls are measured; 0 means none");
  add_counts(*verb, "--layer", arguments->layers, 0, 1024, "Draw these layers only");
  verb->add_option("--png", arguments->png, "Where the picture goes")
      ->type_name("F")
      ->default_str(arguments->png);
  verb->add_option("--picks", arguments->picks, "Save the ids of the last queries for benchmarks")
      ->type_name("F");
  add_count(*verb, "--picks-rows", arguments->picks_rows, 1, kMostTokens, "How many queries");
  add_model(*verb, arguments->model);
  verb->add_flag("--json", arguments->json, "The figures as JSON");
  verb->footer(
      "Examples:\n  msa inspect\n  msa inspect --length 32K --layer 3 4 --png layers.png\n"
      "  msa inspect --prompt-file notes.txt --picks notes.picks --json");
  verb->callback([arguments, &chosen] { chosen = [arguments] { return inspect(*arguments); }; });
}

}  // namespace msa::cli
