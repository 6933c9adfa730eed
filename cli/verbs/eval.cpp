// msa eval: asks for many facts in many documents and counts.
#include "cli/eval/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string_view>

#include "cli/eval/summary.h"
#include "cli/model/runner_model.h"
#include "cli/parts/arguments.h"
#include "cli/parts/numbers.h"
#include "cli/parts/output.h"
#include "cli/parts/progress.h"
#include "cli/parts/usage_error.h"
#include "cli/verbs/verbs.h"

namespace msa::cli {
namespace {

struct EvalArguments {
  std::string task;
  std::vector<int64_t> lengths = {int64_t{32} << 10};
  int64_t documents = 0;  // 0: 20 for fresh facts, 1 for typed ones
  int64_t facts = 10;
  int64_t distractors = 31;
  std::optional<uint64_t> seed;
  std::string phrasings = "trained";
  std::string kind = "any";
  std::string attention = "sparse";
  std::vector<std::string> controls;
  std::vector<std::string> files;
  std::string facts_file;
  std::string phrasings_file;
  std::string model;
  bool distractors_given = false;
  bool json = false;
};

constexpr std::array<std::string_view, 4> kTasks = {"needle", "multikey", "multivalue", "tracking"};

Task task_of(const std::string& name) {
  const auto place = std::find(kTasks.begin(), kTasks.end(), name);
  if (place == kTasks.end()) {
    throw UsageError(
        fmt::format("eval: got task '{}', allowed needle, multikey, multivalue, "
                    "tracking",
                    name));
  }
  return static_cast<Task>(place - kTasks.begin());
}

FormChoice form_choice(const std::string& kind) {
  if (kind == "key_first") return FormChoice::kKeyFirst;
  return kind == "value_first" ? FormChoice::kValueFirst : FormChoice::kAny;
}

std::vector<Variant> variants_of(const EvalArguments& arguments) {
  std::vector<Variant> variants;
  if (arguments.attention != "dense") variants.push_back({"sparse", "none"});
  if (arguments.attention != "sparse") variants.push_back({"dense", "none"});
  for (const std::string& control : arguments.controls) {
    if (control == "none") continue;
    if (control != "removed" && control != "random-blocks") {
      throw UsageError(
          fmt::format("--control: got '{}', allowed removed, random-blocks, none", control));
    }
    const bool dense = arguments.attention == "dense";
    if (dense && control == "random-blocks") {
      throw UsageError(
          "--control: got random-blocks with --attention dense, which selects no "
          "blocks; allowed with sparse or both");
    }
    variants.push_back({dense ? "dense" : "sparse", control});
  }
  return variants;
}

/// Options that would be ignored are refused: a figure must be of what was asked for.
void check_combination(const EvalArguments& arguments, Task task) {
  const bool forms = task == Task::kNeedle || task == Task::kMultikey;
  const bool trained = arguments.phrasings == "trained" && arguments.phrasings_file.empty();
  if (!forms && (!trained || arguments.kind != "any")) {
    throw UsageError(fmt::format(
        "--phrasings, --phrasings-file, --kind: got them with {}, allowed with needle and "
        "multikey",
        arguments.task));
  }
  if (task != Task::kMultikey && arguments.distractors_given) {
    throw UsageError(
        fmt::format("--distractors: got it with {}, allowed with multikey", arguments.task));
  }
  if (!arguments.facts_file.empty() &&
      (task != Task::kNeedle || !trained || arguments.kind != "any")) {
    throw UsageError(
        "--facts-file: got it with another task or phrasing, allowed with needle "
        "alone: typed facts are asked as typed");
  }
}

EvalOptions options_of(const EvalArguments& arguments) {
  EvalOptions options;
  options.quiz.task = task_of(arguments.task);
  check_combination(arguments, options.quiz.task);
  options.quiz.facts = arguments.facts;
  options.quiz.distractors = arguments.distractors;
  options.quiz.forms = form_choice(arguments.kind);
  if (arguments.phrasings == "heldout") options.quiz.phrasings = heldout_forms();
  if (!arguments.phrasings_file.empty()) {
    options.quiz.phrasings = read_forms(arguments.phrasings_file);
  }
  if (!arguments.facts_file.empty()) options.typed = read_typed_facts(arguments.facts_file);
  options.lengths = arguments.lengths;
  options.documents = arguments.documents;
  if (options.documents == 0) options.documents = options.typed.empty() ? 20 : 1;
  options.seed = seed_or_fresh(arguments.seed);
  options.variants = variants_of(arguments);
  return options;
}

std::string description(const EvalArguments& arguments, const EvalOptions& options) {
  std::string text = fmt::format("{}, ", arguments.task);
  if (!options.typed.empty()) {
    text += fmt::format("typed facts of {}, ", arguments.facts_file);
  } else if (options.quiz.task == Task::kMultikey) {
    text += fmt::format("{} distractors, ", options.quiz.distractors);
  }
  if (arguments.kind != "any") text += arguments.kind + ", ";
  if (arguments.phrasings == "heldout") text += "held-out phrasings, ";
  if (!arguments.phrasings_file.empty()) text += "phrasings of " + arguments.phrasings_file + ", ";
  const size_t facts =
      options.typed.empty() ? static_cast<size_t>(options.quiz.facts) : options.typed.size();
  return text + fmt::format("{} document{} x {} facts, seed {}, haystack: {}", options.documents,
                            options.documents == 1 ? "" : "s", facts, options.seed,
                            haystack_name(arguments.files));
}

int evaluate_verb(const EvalArguments& arguments) {
  const EvalOptions options = options_of(arguments);
  const std::vector<SourceText> texts = haystack_texts(arguments.files, options.typed);
  const std::shared_ptr<const runner::Model> weights = model_of(arguments.model);
  const std::unique_ptr<LanguageModel> model = make_language_model(weights);
  const Haystack haystack(*model, texts);
  EvalResult result;
  {
    ProgressLine line("evaluating", "tokens");
    result = evaluate(*model, haystack, options,
                      [&](int64_t done, int64_t total) { line.update(done, total); });
  }
  if (arguments.json) {
    nlohmann::json json = summary_json(result, options);
    json["task"] = arguments.task;
    json["phrasings"] = !options.typed.empty()              ? "typed"
                        : !arguments.phrasings_file.empty() ? arguments.phrasings_file
                                                            : arguments.phrasings;
    json["kind"] = arguments.kind;
    json["documents"] = options.documents;
    json["facts"] =
        options.typed.empty() ? static_cast<size_t>(options.quiz.facts) : options.typed.size();
    if (options.quiz.task == Task::kMultikey) json["distractors"] = options.quiz.distractors;
    json["seed"] = options.seed;
    json["haystack"] = haystack_name(arguments.files);
    json["haystack_tokens"] = haystack.num_tokens();
    json["backend"] = weights->context().description();
    print(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    return kSuccess;
  }
  print(description(arguments, options) + "\n");
  if (result.most_repeats > 0) {
    print(fmt::format("The haystack has {} tokens: longer documents repeat it, in another order.\n",
                      haystack.num_tokens()));
  }
  print(fmt::format("{}, {}\n\n", weights->context().description(), human_seconds(result.seconds)));
  print(summary_text(result, options));
  return kSuccess;
}

}  // namespace

void add_eval(CLI::App& app, Action& chosen) {
  CLI::App* verb = app.add_subcommand("eval", "Measure how many facts are found");
  const auto arguments = std::make_shared<EvalArguments>();
  verb->add_option("task", arguments->task, "needle, multikey, multivalue or tracking")
      ->required()
      ->type_name("TASK");
  add_counts(*verb, "--length", arguments->lengths, 1, kMostTokens,
             "Tokens of document, question and answer together; several may be given [32K]");
  add_count(*verb, "--documents", arguments->documents, 1, 100000, "Documents of each length")
      ->default_str("20, or 1 with --facts-file");
  add_count(*verb, "--facts", arguments->facts, 1, 10000, "Facts asked of each document");
  CLI::Option* distractors =
      add_count(*verb, "--distractors", arguments->distractors, 0, 10000,
                "multikey: lines of the same form with other keys, besides the facts asked");
  add_seed(*verb, arguments->seed, "Seed of facts, depths and haystacks; fresh without it");
  CLI::Option* phrasings =
      add_choice(*verb, "--phrasings", arguments->phrasings, {"trained", "heldout"},
                 "Phrasings that training saw, or some that it cannot produce");
  verb->add_option("--phrasings-file", arguments->phrasings_file,
                   "Your own phrasings, JSON like cli/heldout.json")
      ->type_name("F")
      ->excludes(phrasings);
  add_choice(*verb, "--kind", arguments->kind, {"any", "key_first", "value_first"},
             "Which comes first in the fact");
  add_choice(*verb, "--attention", arguments->attention, {"sparse", "dense", "both"},
             "Selected blocks, all tokens, or both on the same documents");
  verb->add_option("--control", arguments->controls,
                   "Also run without the facts (removed), or with random blocks in place of the "
                   "selected ones (random-blocks)")
      ->type_name("removed|random-blocks|none");
  verb->add_option("--file", arguments->files, "Text files for the haystack")->type_name("F");
  verb->add_option("--facts-file", arguments->facts_file,
                   "needle: ask these facts, lines KEY = VALUE or KEY = VALUE ? QUESTION")
      ->type_name("F");
  add_model(*verb, arguments->model);
  verb->add_flag("--json", arguments->json, "Result as JSON, with every trial");
  verb->footer(
      "A trial is one fact asked; an answer is right when it is the value and nothing else.\n\n"
      "Examples:\n  msa eval needle --length 8K 32K --seed 1\n"
      "  msa eval multikey --distractors 255 --attention both --documents 10\n"
      "  msa eval needle --control removed random-blocks\n"
      "  msa eval needle --facts-file facts.txt");
  verb->callback([arguments, distractors, &chosen] {
    arguments->distractors_given = distractors->count() > 0;
    chosen = [arguments] { return evaluate_verb(*arguments); };
  });
}

}  // namespace msa::cli
