// msa demo: plants facts in a long document, asks for each, shows answers, times and blocks read.
#include "cli/demo/demo.h"

#include <fmt/format.h>

#include <memory>
#include <optional>

#include "cli/demo/report.h"
#include "cli/model/runner_model.h"
#include "cli/parts/arguments.h"
#include "cli/parts/numbers.h"
#include "cli/parts/output.h"
#include "cli/parts/progress.h"
#include "cli/parts/usage_error.h"
#include "cli/verbs/verbs.h"

namespace msa::cli {
namespace {

constexpr int64_t kFreshFacts = 6;

struct DemoArguments {
  std::vector<std::string> files;
  std::vector<std::string> facts;
  int64_t length = int64_t{32} << 10;
  std::optional<uint64_t> seed;
  std::string model;
  std::string strips = "one";
  bool dense = false;
  bool json = false;
};

Quiz quiz_of(const std::vector<TypedFact>& typed, uint64_t seed) {
  if (!typed.empty()) return typed_quiz(typed);
  Random random(seed, 0);
  return make_quiz({.facts = kFreshFacts}, random);
}

std::string heading(const DemoArguments& arguments, const DemoResult& result,
                    const runner::Model& model, const Haystack& haystack, uint64_t seed) {
  const size_t facts = result.quiz.questions.size();
  std::string text =
      fmt::format("{} tokens of {}, {} fact{}, seed {}\n", result.document.tokens.size(),
                  haystack_name(arguments.files), facts, facts == 1 ? "" : "s", seed);
  if (result.document.haystack_repeats > 0) {
    text += fmt::format("The haystack has {} tokens: it repeats, in another order.\n",
                        haystack.num_tokens());
  }
  return text + model.context().description() + "\n\n";
}

std::vector<size_t> strips_of(const DemoArguments& arguments, const DemoResult& result) {
  if (arguments.strips == "none") return {};
  if (arguments.strips == "one") return {telling_fact(result)};
  std::vector<size_t> all;
  for (size_t i = 0; i < result.quiz.questions.size(); ++i) all.push_back(i);
  return all;
}

int demo(const DemoArguments& arguments) {
  const uint64_t seed = seed_or_fresh(arguments.seed);
  std::vector<TypedFact> typed;
  for (const std::string& fact : arguments.facts) typed.push_back(parse_typed_fact(fact));
  const Quiz quiz = quiz_of(typed, seed);
  const std::vector<SourceText> texts = haystack_texts(arguments.files, typed);
  const std::shared_ptr<const runner::Model> weights = model_of(arguments.model);
  const std::unique_ptr<LanguageModel> model = make_language_model(weights);
  const Haystack haystack(*model, texts);
  DemoOptions options;
  options.length = arguments.length;
  options.seed = seed;
  options.in_order = !arguments.files.empty();
  options.dense = arguments.dense;
  std::optional<ProgressLine> line;
  std::string shown;
  const DemoResult result = run_demo(
      *model, haystack, quiz, options, [&](const std::string& label, int64_t done, int64_t total) {
        if (label != shown) line.emplace(label, label == "asking" ? "facts" : "tokens");
        shown = label;
        line->update(done, total);
      });
  line.reset();
  if (arguments.json) {
    nlohmann::json json = demo_json(result, model->shape());
    json["seed"] = seed;
    json["haystack"] = haystack_name(arguments.files);
    json["backend"] = weights->context().description();
    print(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  } else {
    print(heading(arguments, result, *weights, haystack, seed));
    print(demo_text(result, model->shape(), {output_is_terminal(), strips_of(arguments, result)}));
  }
  return result.all_right() ? kSuccess : kFactMissed;
}

}  // namespace

void add_demo(CLI::App& app, Action& chosen) {
  CLI::App* verb = app.add_subcommand("demo", "Plant facts in a long document and ask for them");
  const auto arguments = std::make_shared<DemoArguments>();
  verb->add_option("--file", arguments->files, "Text files for the haystack")->type_name("F");
  verb->add_option("--fact", arguments->facts,
                   "A fact \"KEY = VALUE\" to plant and ask for; without one, fresh random facts")
      ->type_name("FACT");
  add_count(*verb, "--length", arguments->length, 1, kMostTokens,
            "Tokens of document, question and answer together");
  add_seed(*verb, arguments->seed, "Seed of facts, depths and haystack; fresh without it");
  add_model(*verb, arguments->model);
  add_choice(*verb, "--strips", arguments->strips, {"one", "all", "none"},
             "Draw the blocks read for one fact, for all, for none");
  verb->add_flag("--dense", arguments->dense, "The same with dense attention");
  verb->add_flag("--json", arguments->json, "Result as JSON");
  verb->footer(
      "Exit status 1 if a fact was missed.\n\nExamples:\n  msa demo\n"
      "  msa demo --length 64K --dense\n"
      "  msa demo --file notes.txt --fact \"the door code = 4711\" --fact \"my cat = Whiskers\"");
  verb->callback([arguments, &chosen] { chosen = [arguments] { return demo(*arguments); }; });
}

}  // namespace msa::cli
