// The demo: one document, a few facts in it, one question for each, and what it cost.
//
// With dense attention the cost of a prefill is  linear * N + attention * N * N.  The first tokens
// measure both; when the whole document would take too long, the longest affordable part is read
// and the rest of the time follows from that formula. Such figures are marked extrapolated, and
// facts beyond the part are not asked.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/model/language_model.h"
#include "cli/quiz/document.h"
#include "cli/quiz/haystack.h"
#include "cli/quiz/quiz.h"

namespace msa::cli {

struct DemoOptions {
  int64_t length = int64_t{32} << 10;
  uint64_t seed = 0;
  bool in_order = false;  ///< the haystack from its beginning (the user's own files)
  bool dense = false;
  double dense_budget_seconds = 60;  ///< a dense prefill expected to take longer is cut short
};

struct DemoAnswer {
  bool asked = false;
  bool right = false;
  Answer answer;
};

/// One way through the document.
struct DemoRun {
  std::vector<DemoAnswer> answers;  ///< one for each question of the quiz
  int64_t tokens_read = 0;          ///< of the document
  double prefill_seconds = 0;       ///< wall time of tokens_read
  ReaderTimes prefill;
  int64_t decoded_tokens = 0;
  double decode_seconds = 0;
};

/// What reading all of the document densely would take, from the part that was read.
struct DenseEstimate {
  double prefill_seconds = 0;
  double attention_seconds = 0;
};

struct DemoResult {
  Quiz quiz;
  Document document;
  DemoRun sparse;
  std::optional<DemoRun> dense;
  std::optional<DenseEstimate> dense_estimate;  ///< only when the dense run was cut short

  bool all_right() const;
};

/// `label` says what is being read.
using DemoProgress = std::function<void(const std::string& label, int64_t done, int64_t total)>;

DemoResult run_demo(const LanguageModel& model, const Haystack& haystack, const Quiz& quiz,
                    const DemoOptions& options, const DemoProgress& progress);

/// Time for `tokens`, from the times of a part of `read` tokens.
DenseEstimate estimate_dense(const ReaderTimes& part, int64_t read, int64_t tokens);

}  // namespace msa::cli
