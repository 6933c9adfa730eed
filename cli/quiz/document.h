// A document of exactly so many tokens with the lines of a quiz planted in it.
//
//   <|begin|> haystack ... line ... haystack ... line ... haystack
//
// Lines stand alone, at depths spread evenly over the document with a random shift each, at the
// nearest line end of the haystack. Where there is none near, a line end is put in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/model/language_model.h"
#include "cli/parts/random.h"
#include "cli/quiz/haystack.h"
#include "cli/quiz/quiz.h"

namespace msa::cli {

/// Where a line of the quiz stands. `value_token` is the first token of its value (of the line,
/// when it has no value); `block` holds that token.
struct Planted {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t value_token = 0;
  int64_t block = 0;
  double depth = 0;  ///< value_token / tokens of the document
};

struct Document {
  std::vector<int32_t> tokens;
  std::vector<Planted> lines;  ///< one for each line of the quiz; empty when none is planted
  int64_t haystack_repeats = 0;
  int64_t answer_tokens = 0;    ///< room for the longest answer
  int64_t question_tokens = 0;  ///< of the longest question, with its special tokens
};

struct DocumentOptions {
  int64_t length = 0;     ///< tokens of document, longest question and longest answer together
  bool in_order = false;  ///< haystack from its beginning
  bool plant = true;      ///< false: the control without the facts
};

/// Refuses by name a line or value that is too long for the model's blocks or its training, and a
/// length that cannot hold the quiz.
Document make_document(const LanguageModel& model, const Haystack& haystack, const Quiz& quiz,
                       const DocumentOptions& options, Random& random);

}  // namespace msa::cli
