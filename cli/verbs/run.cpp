// msa run: continues a prompt, or answers a question about a document, and streams the text.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/model/runner_model.h"
#include "cli/parts/arguments.h"
#include "cli/parts/output.h"
#include "cli/parts/progress.h"
#include "cli/parts/text.h"
#include "cli/parts/usage_error.h"
#include "cli/verbs/verbs.h"

namespace msa::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct RunArguments {
  std::string model;
  std::optional<std::string> prompt;
  std::string prompt_file;
  std::string document;
  std::string question;
  std::string attention = "sparse";
  int64_t max_new_tokens = 128;
  double temperature = 0;
  double top_p = 1;
  int64_t top_k = 0;
  std::optional<uint64_t> seed;
  bool chat = false;
  bool json = false;
};

void check_combination(const RunArguments& arguments) {
  const bool asks = !arguments.document.empty() || !arguments.question.empty();
  const int prompts = arguments.prompt.has_value() + !arguments.prompt_file.empty() + asks;
  if (prompts > 1) {
    throw UsageError(
        "got several prompts, allowed one of --prompt, --prompt-file, --document with "
        "--question, or standard input");
  }
  if (asks && (arguments.document.empty() || arguments.question.empty())) {
    throw UsageError("--document, --question: got one without the other, allowed both together");
  }
  if (asks && arguments.chat) {
    throw UsageError("--chat: got it with --document, which is a question already");
  }
  const bool sampled = arguments.top_p < 1 || arguments.top_k > 0 || arguments.seed.has_value();
  if (sampled && arguments.temperature == 0) {
    throw UsageError(
        "--top-p, --top-k, --seed: got them without --temperature above 0, at which "
        "decoding is greedy and does not use them");
  }
}

/// The prompt of one form or another; never empty.
std::string prompt_text(const RunArguments& arguments) {
  std::string text;
  std::string what = "--prompt";
  if (arguments.prompt) {
    text = checked_text(what, *arguments.prompt);
  } else if (!arguments.prompt_file.empty()) {
    what = arguments.prompt_file;
    text = read_text_file(arguments.prompt_file);
  } else {
    what = "standard input";
    if (input_is_terminal() && error_is_terminal()) print_error("Type the prompt, then Ctrl-D:");
    text = read_text(what, stdin);
  }
  if (text.empty()) throw UsageError(fmt::format("{}: got an empty prompt, allowed text", what));
  return text;
}

std::vector<int32_t> prompt_tokens(const RunArguments& arguments, const runner::Model& model) {
  std::vector<int32_t> tokens = {special_token(model, "<|begin|>")};
  const auto add = [&](std::string_view text) {
    const std::vector<int32_t> ids = model.tokenizer().encode(text);
    tokens.insert(tokens.end(), ids.begin(), ids.end());
  };
  const auto ask = [&](std::string_view question) {
    tokens.push_back(special_token(model, "<|user|>"));
    add(question);
    tokens.push_back(special_token(model, "<|assistant|>"));
  };
  if (!arguments.document.empty()) {
    const std::string document = read_text_file(arguments.document);
    if (document.empty()) {
      throw UsageError(fmt::format("{}: got an empty document, allowed text", arguments.document));
    }
    add(document);
    ask(checked_text("--question", arguments.question));
  } else if (arguments.chat) {
    ask(prompt_text(arguments));
  } else {
    add(prompt_text(arguments));
  }
  return tokens;
}

std::string reason_name(runner::StopReason reason) {
  switch (reason) {
    case runner::StopReason::kStopToken:
      return "end";
    case runner::StopReason::kMaxNewTokens:
      return "max_new_tokens";
    case runner::StopReason::kCacheFull:
      return "cache_full";
    case runner::StopReason::kCallback:
      break;
  }
  return "stopped";
}

runner::GenerateOptions generate_options(const RunArguments& arguments,
                                         const runner::Model& model) {
  runner::GenerateOptions options;
  options.max_new_tokens = arguments.max_new_tokens;
  options.stop_tokens = {special_token(model, "<|end|>")};
  options.sampler.temperature = static_cast<float>(arguments.temperature);
  options.sampler.top_p = static_cast<float>(arguments.top_p);
  options.sampler.top_k = static_cast<int32_t>(arguments.top_k);
  options.sampler.seed = seed_or_fresh(arguments.seed);
  return options;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int run(const RunArguments& arguments) {
  check_combination(arguments);
  const std::shared_ptr<const runner::Model> model = model_of(arguments.model);
  const std::vector<int32_t> prompt = prompt_tokens(arguments, *model);
  const int64_t needed = static_cast<int64_t>(prompt.size()) + arguments.max_new_tokens;
  const int64_t most = model->config().max_position_embeddings;
  if (needed > most) {
    throw UsageError(
        fmt::format("prompt and --max-new-tokens: got {} + {} tokens, allowed at most "
                    "{} together (the model's positions)",
                    prompt.size(), arguments.max_new_tokens, most));
  }
  runner::DecoderOptions reading;
  reading.attention = arguments.attention == "dense" ? runner::AttentionMode::kDense
                                                     : runner::AttentionMode::kSparse;
  reading.max_tokens = needed;
  runner::Decoder decoder(model, reading);
  const auto start = Clock::now();
  {
    ProgressLine line("reading", "tokens");
    decoder.append(prompt, [&](int64_t done, int64_t total) { line.update(done, total); });
  }
  const double prefill_seconds = seconds_since(start);
  const runner::GenerateOptions options = generate_options(arguments, *model);
  const bool answers = arguments.chat || !arguments.document.empty();
  Utf8Stream stream;
  std::string text;
  // Answers may begin with the space of their first token; it is not part of what they say.
  const auto show = [&](std::string piece) {
    if (answers && text.empty() && !piece.empty() && piece[0] == ' ') piece.erase(0, 1);
    text += piece;
    if (!arguments.json && !piece.empty()) print_now(piece);
  };
  const auto decoding = Clock::now();
  const runner::Generated generated = runner::generate(decoder, options, [&](int32_t token) {
    show(stream.push(model->tokenizer().decode({&token, 1})));
    return true;
  });
  show(stream.finish());
  if (!arguments.json) {
    if (text.empty() || text.back() != '\n') print("\n");
    return kSuccess;
  }
  nlohmann::json json = {{"text", text},
                         {"prompt_tokens", prompt.size()},
                         {"new_tokens", generated.tokens.size()},
                         {"stopped_by", reason_name(generated.reason)},
                         {"attention", arguments.attention},
                         {"prefill_seconds", prefill_seconds},
                         {"decode_seconds", seconds_since(decoding)},
                         {"backend", model->context().description()}};
  if (arguments.temperature > 0) json["seed"] = options.sampler.seed;
  print(json.dump(2) + "\n");
  return kSuccess;
}

}  // namespace

void add_run(CLI::App& app, Action& chosen) {
  CLI::App* verb = app.add_subcommand("run", "Continue a prompt or answer about a document");
  const auto arguments = std::make_shared<RunArguments>();
  verb->add_option("--prompt", arguments->prompt, "The prompt")->type_name("TEXT");
  verb->add_option("--prompt-file", arguments->prompt_file, "A text file with the prompt")
      ->type_name("F");
  verb->add_flag("--chat", arguments->chat, "The prompt is a question; the model answers it");
  verb->add_option("--document", arguments->document, "A text file to answer --question about")
      ->type_name("F");
  verb->add_option("--question", arguments->question, "The question about --document")
      ->type_name("TEXT");
  add_count(*verb, "--max-new-tokens", arguments->max_new_tokens, 1, kMostTokens,
            "Tokens to write at most");
  add_real(*verb, "--temperature", arguments->temperature, 0, 100, "0 is greedy");
  add_real(*verb, "--top-p", arguments->top_p, 1e-6, 1, "Sample from this share of probability");
  add_count(*verb, "--top-k", arguments->top_k, 0, 1 << 30,
            "Sample from so many tokens; 0 means all");
  add_seed(*verb, arguments->seed, "Seed of the sampling; fresh without it");
  add_choice(*verb, "--attention", arguments->attention, {"sparse", "dense"},
             "Selected blocks, or all tokens");
  add_model(*verb, arguments->model);
  verb->add_flag("--json", arguments->json, "Text, counts and times as JSON, at the end");
  verb->footer(
      "Without a prompt option the prompt is standard input.\n\nExamples:\n"
      "  msa run --prompt \"The door code is\" --max-new-tokens 20\n"
      "  msa run --document notes.txt --question \"What is the door code?\"\n"
      "  msa run --temperature 0.8 --seed 7 < notes.txt");
  verb->callback([arguments, &chosen] { chosen = [arguments] { return run(*arguments); }; });
}

}  // namespace msa::cli
