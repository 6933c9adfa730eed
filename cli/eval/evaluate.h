// Asks a quiz of every document, in every variant, and keeps each trial. A trial is one fact asked.
//
// A variant is the model as it is, the same weights with dense attention, or a control: the facts
// left out of the document (the answer must then be unknown), or random blocks in place of those
// selected. Variants see the same documents, so their trials are paired.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cli/model/language_model.h"
#include "cli/quiz/haystack.h"
#include "cli/quiz/quiz.h"

namespace msa::cli {

struct Variant {
  std::string attention = "sparse";  ///< "sparse" or "dense"
  std::string control = "none";      ///< "none", "removed" or "random-blocks"
};

struct EvalOptions {
  QuizOptions quiz;
  std::vector<TypedFact> typed;  ///< when not empty, these are asked instead of a fresh quiz
  std::vector<int64_t> lengths;
  int64_t documents = 20;
  uint64_t seed = 0;
  std::vector<Variant> variants;
};

struct Trial {
  int64_t length = 0;
  int64_t document = 0;
  size_t variant = 0;  ///< index into EvalOptions::variants
  std::string fact;    ///< the planted lines, joined by " | "
  std::string question;
  std::string expected;  ///< joined by ", "
  std::string answer;
  bool right = false;
  double depth = 0;  ///< 0 at the top; mean over the lines that the answer rests on
  ValueKind kind = ValueKind::kTyped;
  /// For each layer, the share of those lines' blocks that some group read in the step that
  /// predicts the first answer token. Empty for dense attention and for removed facts.
  std::vector<double> blocks_read;
};

struct EvalResult {
  std::vector<Trial> trials;
  int64_t most_repeats = 0;  ///< how often a document began the haystack again, at most
  double seconds = 0;
};

/// done and total count tokens read.
using EvalProgress = std::function<void(int64_t done, int64_t total)>;

EvalResult evaluate(const LanguageModel& model, const Haystack& haystack,
                    const EvalOptions& options, const EvalProgress& progress);

/// Throws UsageError when the model has no positions for so many tokens.
void check_length(const LanguageModel& model, int64_t length);

}  // namespace msa::cli
