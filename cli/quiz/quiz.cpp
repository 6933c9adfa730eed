#include "cli/quiz/quiz.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

/// Draws texts until one is new. The lists hold over a million keys; asking for more than a part of
/// them is an error and not an endless loop.
template <typename Draw>
std::string draw_new(std::set<std::string>& used, std::string_view what, Draw draw) {
  constexpr int kTries = 10000;
  for (int i = 0; i < kTries; ++i) {
    std::string text = draw();
    if (used.insert(text).second) return text;
  }
  throw UsageError(fmt::format("too many facts: got {} distinct {}s, and no further one was found",
                               used.size(), what));
}

class QuizMaker {
 public:
  QuizMaker(const QuizOptions& options, Random& random) : options_(options), random_(random) {
    const std::vector<Form>& forms =
        options.phrasings.empty() ? trained_phrasings().forms : options.phrasings;
    for (const Form& form : forms) {
      const FormChoice kind =
          form.kind == FormKind::kKeyFirst ? FormChoice::kKeyFirst : FormChoice::kValueFirst;
      if (options.forms == FormChoice::kAny || options.forms == kind) forms_.push_back(&form);
    }
    if (forms_.empty()) throw UsageError("phrasings: got none of the kind that was asked for");
  }

  Quiz make() {
    for (int64_t i = 0; i < options_.facts; ++i) {
      switch (options_.task) {
        case Task::kNeedle:
          add_fact(*random_.pick(forms_), true);
          break;
        case Task::kMultikey:
          add_fact(multikey_form(), true);
          break;
        case Task::kMultivalue:
          add_multivalue();
          break;
        case Task::kTracking:
          add_chain();
          break;
      }
    }
    if (options_.task == Task::kMultikey) {
      for (int64_t i = 0; i < options_.distractors; ++i) add_fact(multikey_form(), false);
    }
    return std::move(quiz_);
  }

 private:
  std::string key() {
    return draw_new(keys_, "key", [&]() -> std::string {
      const Words& lists = words();
      switch (random_.below(4)) {
        case 0:
          return random_.pick(lists.adjectives) + " " + random_.pick(lists.nouns);
        case 1:
          return random_.pick(lists.nouns) + " " + random_.pick(lists.attributes);
        default:
          return random_.pick(lists.adjectives) + " " + random_.pick(lists.nouns) + " " +
                 random_.pick(lists.attributes);
      }
    });
  }

  /// Capital letters, more than any variable of training has, or two words with a line between.
  std::string variable() {
    constexpr size_t kLetters = 6;
    return draw_new(keys_, "variable", [&]() -> std::string {
      if (random_.below(2) == 0) return letters(kLetters);
      return random_.pick(words().nouns) + "_" + random_.pick(words().attributes);
    });
  }

  std::string letters(size_t count) {
    std::string text;
    while (text.size() < count) text += static_cast<char>('A' + random_.below(26));
    return text;
  }

  std::string digits(int64_t count) {
    std::string text(1, static_cast<char>('1' + random_.below(9)));
    while (static_cast<int64_t>(text.size()) < count) {
      text += static_cast<char>('0' + random_.below(10));
    }
    return text;
  }

  std::string value(ValueKind kind) {
    return draw_new(values_, "value", [&]() -> std::string {
      switch (kind) {
        case ValueKind::kNumber:
          return digits(6 + random_.below(2));
        case ValueKind::kCode:
          return letters(2) + "-" + digits(4);
        case ValueKind::kWord:
        case ValueKind::kTyped:
          break;
      }
      const Words& lists = words();
      // Single words run out at a hundred; a word of two is then the next thing that people write.
      const bool single = random_.below(2) == 0;
      return single ? random_.pick(lists.values)
                    : random_.pick(lists.adjectives) + " " + random_.pick(lists.values);
    });
  }

  ValueKind next_kind() {
    constexpr ValueKind kKinds[] = {ValueKind::kNumber, ValueKind::kCode, ValueKind::kWord};
    return kKinds[kind_turn_++ % 3];
  }

  size_t add_line(const Filled& filled) {
    quiz_.lines.push_back({filled.text, filled.value_begin});
    return quiz_.lines.size() - 1;
  }

  const Form& multikey_form() {
    if (!multikey_form_) multikey_form_ = random_.pick(forms_);
    return *multikey_form_;
  }

  void add_fact(const Form& form, bool asked) {
    const std::string name = key();
    const ValueKind kind = next_kind();
    const std::string text = value(kind);
    const size_t line = add_line(fill(form.fact, {{"key", name}, {"value", text}}));
    if (!asked) return;
    quiz_.questions.push_back(
        {name, fill(form.question, {{"key", name}}).text, {text}, {line}, kind});
  }

  void add_multivalue() {
    const Form& form = random_.pick(trained_phrasings().multivalue);
    const std::string name = key();
    const ValueKind kind = next_kind();
    Question question{name, fill(form.question, {{"key", name}}).text, {}, {}, kind};
    for (int64_t i = 0; i < kMultivalueValues; ++i) {
      const std::string text = value(kind);
      question.lines.push_back(add_line(fill(form.fact, {{"key", name}, {"value", text}})));
      question.expected.push_back(text);
    }
    quiz_.questions.push_back(std::move(question));
  }

  void add_chain() {
    const ChainForm& form = random_.pick(trained_phrasings().chains);
    const std::string number = value(ValueKind::kNumber);
    std::vector<size_t> lines;
    std::string name;
    for (int64_t i = 0; i < kChainNames; ++i) {
      const std::string other = name;
      name = variable();
      lines.push_back(
          add_line(i == 0 ? fill(form.assign, {{"name", name}, {"value", number}})
                          : Filled{fill(form.copy, {{"name", name}, {"other", other}}).text}));
    }
    quiz_.in_order.push_back(lines);
    quiz_.questions.push_back(
        {name, fill(form.question, {{"name", name}}).text, {number}, lines, ValueKind::kNumber});
  }

  const QuizOptions& options_;
  Random& random_;
  std::vector<const Form*> forms_;
  const Form* multikey_form_ = nullptr;
  std::set<std::string> keys_;
  std::set<std::string> values_;
  size_t kind_turn_ = 0;
  Quiz quiz_;
};

}  // namespace

std::string_view task_name(Task task) {
  switch (task) {
    case Task::kNeedle:
      return "needle";
    case Task::kMultikey:
      return "multikey";
    case Task::kMultivalue:
      return "multivalue";
    case Task::kTracking:
      break;
  }
  return "tracking";
}

std::string_view value_kind_name(ValueKind kind) {
  switch (kind) {
    case ValueKind::kNumber:
      return "number";
    case ValueKind::kCode:
      return "code";
    case ValueKind::kWord:
      return "word";
    case ValueKind::kTyped:
      break;
  }
  return "typed";
}

Quiz make_quiz(const QuizOptions& options, Random& random) {
  return QuizMaker(options, random).make();
}

}  // namespace msa::cli
