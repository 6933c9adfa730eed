#include "cli/eval/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "cli/parts/usage_error.h"
#include "cli/quiz/document.h"
#include "cli/quiz/score.h"

namespace msa::cli {
namespace {

class Evaluation {
 public:
  Evaluation(const LanguageModel& model, const Haystack& haystack, const EvalOptions& options,
             const EvalProgress& progress)
      : model_(model), haystack_(haystack), options_(options), progress_(progress) {
    for (const int64_t length : options.lengths) {
      check_length(model, length);
      total_ += length * options.documents * static_cast<int64_t>(options.variants.size());
    }
  }

  EvalResult run() {
    const auto start = std::chrono::steady_clock::now();
    for (const int64_t length : options_.lengths) {
      for (int64_t document = 0; document < options_.documents; ++document) {
        for (size_t variant = 0; variant < options_.variants.size(); ++variant) {
          run_document(length, document, variant);
          done_ += length;
        }
      }
    }
    result_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(result_);
  }

 private:
  /// The stream depends on the document alone: variants are paired, lengths share their facts.
  Quiz quiz_of(int64_t document) const {
    if (!options_.typed.empty()) return typed_quiz(options_.typed);
    Random random(options_.seed, static_cast<uint64_t>(document) * 2);
    return make_quiz(options_.quiz, random);
  }

  void run_document(int64_t length, int64_t number, size_t variant) {
    const Variant& wanted = options_.variants[variant];
    const Quiz quiz = quiz_of(number);
    Random random(options_.seed, static_cast<uint64_t>(number) * 2 + 1);
    // Where the lines would stand is known without them too: removed facts keep their depths.
    Random same_random = random;
    const Document planted = make_document(model_, haystack_, quiz, {.length = length}, random);
    const bool removed = wanted.control == "removed";
    const Document document = removed
                                  ? make_document(model_, haystack_, quiz,
                                                  {.length = length, .plant = false}, same_random)
                                  : planted;
    result_.most_repeats = std::max(result_.most_repeats, document.haystack_repeats);
    ReaderOptions reading;
    reading.dense = wanted.attention == "dense";
    reading.random_blocks = wanted.control == "random-blocks";
    reading.random_seed = options_.seed + static_cast<uint64_t>(number);
    reading.max_tokens = length;
    const std::unique_ptr<Reader> reader = model_.open(reading);
    reader->read(document.tokens, [&](int64_t done, int64_t) {
      if (progress_) progress_(done_ + done, total_);
    });
    for (const Question& question : quiz.questions) {
      Trial trial = ask(*reader, quiz, question, planted, !removed);
      trial.length = length;
      trial.document = number;
      trial.variant = variant;
      result_.trials.push_back(std::move(trial));
    }
  }

  Trial ask(Reader& reader, const Quiz& quiz, const Question& question, const Document& document,
            bool planted) const {
    const Answer answer =
        reader.ask(question_tokens(model_, question.text), document.answer_tokens);
    Trial trial;
    for (const std::string& value : question.expected) {
      trial.expected += (trial.expected.empty() ? "" : ", ") + value;
    }
    for (const size_t line : question.lines) {
      trial.fact += (trial.fact.empty() ? "" : " | ") + quiz.lines[line].text;
      trial.depth += document.lines[line].depth / static_cast<double>(question.lines.size());
    }
    trial.question = question.text;
    trial.answer = answer.text;
    trial.right = is_right(answer.text, question.expected);
    trial.kind = question.kind;
    if (planted && !answer.reads.empty()) {
      trial.blocks_read = blocks_read(answer.reads, question, document);
    }
    return trial;
  }

  std::vector<double> blocks_read(const BlockReads& reads, const Question& question,
                                  const Document& document) const {
    const ModelShape shape = model_.shape();
    std::vector<double> shares;
    for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
      double read = 0;
      for (const size_t line : question.lines) {
        const auto first = reads.begin() + layer * shape.num_groups;
        read += std::any_of(first, first + shape.num_groups, [&](const auto& blocks) {
          return std::find(blocks.begin(), blocks.end(), document.lines[line].block) !=
                 blocks.end();
        });
      }
      shares.push_back(read / static_cast<double>(question.lines.size()));
    }
    return shares;
  }

  const LanguageModel& model_;
  const Haystack& haystack_;
  const EvalOptions& options_;
  const EvalProgress& progress_;
  int64_t done_ = 0;
  int64_t total_ = 0;
  EvalResult result_;
};

}  // namespace

EvalResult evaluate(const LanguageModel& model, const Haystack& haystack,
                    const EvalOptions& options, const EvalProgress& progress) {
  return Evaluation(model, haystack, options, progress).run();
}

void check_length(const LanguageModel& model, int64_t length) {
  const int64_t most = model.shape().max_tokens;
  if (length > most) {
    throw UsageError(fmt::format(
        "--length: got {} tokens, allowed at most {} (the model's positions)", length, most));
  }
}

}  // namespace msa::cli
