#include "cli/demo/demo.h"

#include <algorithm>
#include <chrono>

#include "cli/eval/evaluate.h"
#include "cli/quiz/score.h"

namespace msa::cli {
namespace {

using Clock = std::chrono::steady_clock;

/// Read before the cost of dense attention is judged.
constexpr int64_t kProbeTokens = 4096;

class Demo {
 public:
  Demo(const LanguageModel& model, const DemoOptions& options, const DemoProgress& progress,
       DemoResult& result)
      : model_(model), options_(options), progress_(progress), result_(result) {}

  void run_sparse() {
    const std::unique_ptr<Reader> reader = open(false);
    read_to(*reader, result_.sparse, document_tokens(), "reading with sparse attention");
    ask_all(*reader, result_.sparse);
  }

  void run_dense() {
    const std::unique_ptr<Reader> reader = open(true);
    DemoRun& run = result_.dense.emplace();
    int64_t tokens = document_tokens();
    const std::string label = "reading with dense attention";
    read_to(*reader, run, std::min(tokens, kProbeTokens), label);
    while (tokens > run.tokens_read && !affordable(run, tokens)) tokens /= 2;
    tokens = std::max(tokens, run.tokens_read);
    read_to(*reader, run, tokens, label);
    if (tokens < document_tokens()) {
      result_.dense_estimate = estimate_dense(run.prefill, tokens, document_tokens());
    }
    ask_all(*reader, run);
  }

 private:
  int64_t document_tokens() const { return static_cast<int64_t>(result_.document.tokens.size()); }

  std::unique_ptr<Reader> open(bool dense) const {
    ReaderOptions reading;
    reading.dense = dense;
    reading.max_tokens = options_.length;
    return model_.open(reading);
  }

  bool affordable(const DemoRun& run, int64_t tokens) const {
    return estimate_dense(run.prefill, run.tokens_read, tokens).prefill_seconds <=
           options_.dense_budget_seconds;
  }

  void read_to(Reader& reader, DemoRun& run, int64_t tokens, const std::string& label) const {
    if (tokens == run.tokens_read) return;
    const auto start = Clock::now();
    const std::span<const int32_t> all(result_.document.tokens);
    reader.read(all.subspan(static_cast<size_t>(run.tokens_read),
                            static_cast<size_t>(tokens - run.tokens_read)),
                [&](int64_t done, int64_t) {
                  if (progress_) progress_(label, run.tokens_read + done, document_tokens());
                });
    run.prefill_seconds += std::chrono::duration<double>(Clock::now() - start).count();
    run.prefill = reader.times();
    run.tokens_read = tokens;
  }

  void ask_all(Reader& reader, DemoRun& run) const {
    const std::vector<Question>& questions = result_.quiz.questions;
    for (size_t i = 0; i < questions.size(); ++i) {
      if (progress_) {
        progress_("asking", static_cast<int64_t>(i), static_cast<int64_t>(questions.size()));
      }
      DemoAnswer& asked = run.answers.emplace_back();
      const bool was_read = std::all_of(
          questions[i].lines.begin(), questions[i].lines.end(),
          [&](size_t line) { return result_.document.lines[line].end <= run.tokens_read; });
      if (!was_read) continue;
      asked.asked = true;
      asked.answer =
          reader.ask(question_tokens(model_, questions[i].text), result_.document.answer_tokens);
      asked.right = is_right(asked.answer.text, questions[i].expected);
      run.decoded_tokens += asked.answer.num_tokens;
      run.decode_seconds += asked.answer.decode_seconds;
    }
  }

  const LanguageModel& model_;
  const DemoOptions& options_;
  const DemoProgress& progress_;
  DemoResult& result_;
};

}  // namespace

bool DemoResult::all_right() const {
  return std::all_of(sparse.answers.begin(), sparse.answers.end(),
                     [](const DemoAnswer& answer) { return answer.right; });
}

DenseEstimate estimate_dense(const ReaderTimes& part, int64_t read, int64_t tokens) {
  const double ratio = static_cast<double>(tokens) / static_cast<double>(read);
  DenseEstimate estimate;
  estimate.attention_seconds = part.dense * ratio * ratio;
  estimate.prefill_seconds = (part.total() - part.dense) * ratio + estimate.attention_seconds;
  return estimate;
}

DemoResult run_demo(const LanguageModel& model, const Haystack& haystack, const Quiz& quiz,
                    const DemoOptions& options, const DemoProgress& progress) {
  check_length(model, options.length);
  DemoResult result;
  result.quiz = quiz;
  Random random(options.seed, 1);
  result.document = make_document(model, haystack, quiz,
                                  {.length = options.length, .in_order = options.in_order}, random);
  Demo demo(model, options, progress, result);
  demo.run_sparse();
  if (options.dense) demo.run_dense();
  return result;
}

}  // namespace msa::cli
