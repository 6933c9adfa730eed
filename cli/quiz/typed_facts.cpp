// Facts that a person types: --fact and --facts-file.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "cli/parts/text.h"
#include "cli/parts/usage_error.h"
#include "cli/quiz/quiz.h"

namespace msa::cli {
namespace {

/// Typed facts are planted as they were typed; this trained form asks for them.
constexpr std::string_view kTypedFormId = "k01";

const Form& typed_form() {
  for (const Form& form : trained_phrasings().forms) {
    if (form.id == kTypedFormId) return form;
  }
  throw UsageError(fmt::format("training/tasks.json has no form '{}'", kTypedFormId));
}

[[noreturn]] void refuse(std::string_view text, std::string_view why) {
  throw UsageError(fmt::format("fact '{}': {}", shorten(printable(text), 60), why));
}

}  // namespace

TypedFact parse_typed_fact(std::string_view text) {
  if (!is_valid_utf8(text)) refuse(text, "got bytes that are not UTF-8, allowed KEY = VALUE");
  const auto control = [](char c) { return (c >= 0 && c < 0x20) || c == 0x7F; };
  if (std::any_of(text.begin(), text.end(), control)) {
    refuse(text, "got a control character, allowed one line of text KEY = VALUE");
  }
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) refuse(text, "got no '=', allowed KEY = VALUE");
  TypedFact fact;
  fact.key = trim(text.substr(0, equals));
  std::string_view rest = text.substr(equals + 1);
  const size_t mark = rest.find(" ? ");
  if (mark != std::string_view::npos) {
    fact.question = trim(rest.substr(mark + 3));
    rest = rest.substr(0, mark);
    if (fact.question.empty()) refuse(text, "got an empty question after ' ? '");
  }
  fact.value = trim(rest);
  if (fact.key.empty()) refuse(text, "got an empty key, allowed KEY = VALUE");
  if (fact.value.empty()) refuse(text, "got an empty value, allowed KEY = VALUE");
  return fact;
}

std::vector<TypedFact> read_typed_facts(const std::string& path) {
  const std::string text = read_text_file(path);
  std::vector<TypedFact> facts;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = trim(std::string_view(text).substr(begin, end - begin));
    if (!line.empty() && line[0] != '#') facts.push_back(parse_typed_fact(line));
    begin = end + 1;
  }
  if (facts.empty()) {
    throw UsageError(fmt::format("{}: got no facts, allowed lines KEY = VALUE", path));
  }
  return facts;
}

Quiz typed_quiz(const std::vector<TypedFact>& facts) {
  Quiz quiz;
  std::set<std::string> keys;
  for (const TypedFact& fact : facts) {
    if (!keys.insert(fact.key).second) {
      refuse(fact.key + " = " + fact.value, "got a key that was given before, allowed each once");
    }
    const Form& form = typed_form();
    const Filled line = fill(form.fact, {{"key", fact.key}, {"value", fact.value}});
    const std::string question =
        fact.question.empty() ? fill(form.question, {{"key", fact.key}}).text : fact.question;
    quiz.questions.push_back(
        {fact.key, question, {fact.value}, {quiz.lines.size()}, ValueKind::kTyped});
    quiz.lines.push_back({line.text, line.value_begin});
  }
  return quiz;
}

}  // namespace msa::cli
