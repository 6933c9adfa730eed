// A quiz for one document: the lines to plant in it and the questions to ask about it.
//
//   needle      one line, one question, one value
//   multikey    the same, among lines of the same form with other keys that nobody asks for
//   multivalue  three lines with one key; the answer is all three values
//   tracking    x = 4711, y = x, z = y planted in this order; the answer for z is 4711
//
// Keys and values come from the tool's own words (Words), none of which training saw, and are
// distinct within a quiz.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cli/parts/random.h"
#include "cli/quiz/phrasings.h"

namespace msa::cli {

enum class Task { kNeedle, kMultikey, kMultivalue, kTracking };
enum class ValueKind { kNumber, kCode, kWord, kTyped };
enum class FormChoice { kKeyFirst, kValueFirst, kAny };

std::string_view task_name(Task task);
std::string_view value_kind_name(ValueKind kind);

/// A line to plant. `value_begin` is where its value starts, or npos when it has none.
struct Line {
  std::string text;
  size_t value_begin = std::string::npos;
};

struct Question {
  std::string name;                   ///< what tables show: the key
  std::string text;                   ///< what the model is asked
  std::vector<std::string> expected;  ///< a set; the answer joins it by ", "
  std::vector<size_t> lines;          ///< lines of the quiz that the answer rests on
  ValueKind kind = ValueKind::kTyped;
};

struct Quiz {
  std::vector<Line> lines;
  /// Groups of lines that must stand in the document in the order given (chains of variables).
  std::vector<std::vector<size_t>> in_order;
  std::vector<Question> questions;
};

struct QuizOptions {
  Task task = Task::kNeedle;
  int64_t facts = 10;       ///< questions
  int64_t distractors = 0;  ///< multikey: further lines of the form that is asked
  FormChoice forms = FormChoice::kAny;
  std::vector<Form> phrasings = {};  ///< needle and multikey; empty: those that training saw
};

inline constexpr int64_t kMultivalueValues = 3;
inline constexpr int64_t kChainNames = 3;

/// Throws UsageError when the words do not suffice for so many distinct keys.
Quiz make_quiz(const QuizOptions& options, Random& random);

/// "KEY = VALUE" or "KEY = VALUE ? QUESTION" as a person types it.
struct TypedFact {
  std::string key;
  std::string value;
  std::string question;  ///< empty: asked as training phrases it
};
/// Throws UsageError that quotes the fact: no "=", an empty key or value, control characters.
TypedFact parse_typed_fact(std::string_view text);
/// One fact for each line of a file; empty lines and lines that start with # are skipped.
std::vector<TypedFact> read_typed_facts(const std::string& path);
/// Throws UsageError on a key that comes twice.
Quiz typed_quiz(const std::vector<TypedFact>& facts);

}  // namespace msa::cli
