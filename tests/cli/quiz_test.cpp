// Facts, phrasings and scores of the tool.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <set>
#include <string>

#include "cli/quiz/quiz.h"
#include "cli/quiz/score.h"
#include "tests/cli/support.h"

namespace msa::cli {
namespace {

using testing::error_of;

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// The words of eight letters and more of a template.
std::vector<std::string> long_words(const std::string& form) {
  std::vector<std::string> found;
  std::string word;
  for (const char c : form + " ") {
    if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
      word += c;
      continue;
    }
    if (word.size() >= 8) found.push_back(lower(word));
    word.clear();
  }
  return found;
}

TEST(Phrasings, TrainedOnesAreEmbedded) {
  const Phrasings& phrasings = trained_phrasings();
  EXPECT_GE(phrasings.forms.size(), 100u);
  EXPECT_GE(phrasings.multivalue.size(), 10u);
  EXPECT_GE(phrasings.chains.size(), 10u);
  EXPECT_GT(phrasings.limits.fact_tokens, 0);
  for (const Form& form : phrasings.forms) {
    EXPECT_NE(form.fact.find("{key}"), std::string::npos) << form.id;
    EXPECT_NE(form.fact.find("{value}"), std::string::npos) << form.id;
    EXPECT_NE(form.question.find("{key}"), std::string::npos) << form.id;
    EXPECT_EQ(form.question.find("{value}"), std::string::npos) << form.id;
  }
}

TEST(Phrasings, WordsAreNoneThatTrainingSaw) {
  std::set<std::string> trained;
  for (const std::string& word : trained_phrasings().train_words) trained.insert(lower(word));
  ASSERT_GT(trained.size(), 500u);
  const Words& lists = words();
  std::set<std::string> own;
  for (const auto* list : {&lists.adjectives, &lists.nouns, &lists.attributes, &lists.values}) {
    EXPECT_GE(list->size(), 50u);
    for (const std::string& word : *list) {
      EXPECT_EQ(trained.count(lower(word)), 0u) << word;
      EXPECT_TRUE(own.insert(lower(word)).second) << word << " is in two lists";
    }
  }
}

TEST(Phrasings, HeldoutFormsAreNoneThatTrainingSaw) {
  const std::vector<Form>& heldout = heldout_forms();
  std::set<std::string> trained;
  for (const std::string& word : trained_phrasings().train_words) trained.insert(lower(word));
  for (const Form& form : trained_phrasings().forms) {
    for (const std::string& word : long_words(form.fact)) trained.insert(word);
  }
  const auto first = [](const Form& form) { return form.kind == FormKind::kKeyFirst; };
  EXPECT_GE(std::count_if(heldout.begin(), heldout.end(), first), 25);
  EXPECT_GE(std::count_if(heldout.begin(), heldout.end(), std::not_fn(first)), 15);
  for (const Form& form : heldout) {
    EXPECT_NE(form.fact.find("{key}"), std::string::npos) << form.id;
    EXPECT_NE(form.fact.find("{value}"), std::string::npos) << form.id;
    EXPECT_NE(form.question.find("{key}"), std::string::npos) << form.id;
    // Training puts random words around facts too, but only words of its lists, made-up ones, and
    // letters up to seven.
    const std::vector<std::string> all = long_words(form.fact);
    EXPECT_TRUE(std::any_of(all.begin(), all.end(), [&](const std::string& word) {
      return trained.count(word) == 0;
    })) << form.fact;
  }
}

TEST(Phrasings, FillPutsValuesInAndSaysWhere) {
  const Filled filled =
      fill("<{key}>{value}</{key}> {other}", {{"key", "{value}"}, {"value", "7"}});
  EXPECT_EQ(filled.text, "<{value}>7</{value}> {other}");
  EXPECT_EQ(filled.value_begin, 9u);
  EXPECT_EQ(fill("{key}?", {{"key", "x"}}).value_begin, std::string::npos);
}

TEST(Quizzes, AreReproducibleAndDistinct) {
  for (const Task task : {Task::kNeedle, Task::kMultikey, Task::kMultivalue, Task::kTracking}) {
    const QuizOptions options{.task = task, .facts = 30, .distractors = 50};
    Random one(7);
    Random two(7);
    const Quiz quiz = make_quiz(options, one);
    const Quiz same = make_quiz(options, two);
    ASSERT_EQ(quiz.questions.size(), 30u);
    std::set<std::string> names;
    std::set<std::string> values;
    for (size_t i = 0; i < quiz.questions.size(); ++i) {
      const Question& question = quiz.questions[i];
      EXPECT_EQ(question.text, same.questions[i].text);
      EXPECT_EQ(question.expected, same.questions[i].expected);
      EXPECT_TRUE(names.insert(question.name).second);
      EXPECT_NE(question.text.find(question.name), std::string::npos);
      for (const std::string& value : question.expected) {
        EXPECT_TRUE(values.insert(value).second);
        EXPECT_EQ(question.text.find(value), std::string::npos);
      }
    }
  }
}

TEST(Quizzes, LinesHoldTheirValues) {
  Random random(3);
  const Quiz quiz = make_quiz({.task = Task::kMultikey, .facts = 5, .distractors = 31}, random);
  EXPECT_EQ(quiz.lines.size(), 36u);
  for (const Question& question : quiz.questions) {
    const Line& line = quiz.lines[question.lines[0]];
    EXPECT_EQ(
        line.text.compare(line.value_begin, question.expected[0].size(), question.expected[0]), 0);
    EXPECT_NE(line.text.find(question.name), std::string::npos);
  }
  const Quiz multi = make_quiz({.task = Task::kMultivalue, .facts = 4}, random);
  for (const Question& question : multi.questions) EXPECT_EQ(question.expected.size(), 3u);
  const Quiz chains = make_quiz({.task = Task::kTracking, .facts = 4}, random);
  EXPECT_EQ(chains.in_order.size(), 4u);
  for (const Question& question : chains.questions) {
    ASSERT_EQ(question.lines.size(), 3u);
    EXPECT_NE(chains.lines[question.lines[2]].text.find(question.name), std::string::npos);
    EXPECT_NE(chains.lines[question.lines[0]].text.find(question.expected[0]), std::string::npos);
  }
}

TEST(Quizzes, KindOfFormIsObeyed) {
  Random random(3);
  for (const bool heldout : {false, true}) {
    const std::vector<Form> forms = heldout ? heldout_forms() : std::vector<Form>();
    const Quiz quiz =
        make_quiz({.facts = 40, .forms = FormChoice::kValueFirst, .phrasings = forms}, random);
    for (const Question& question : quiz.questions) {
      const Line& line = quiz.lines[question.lines[0]];
      EXPECT_LT(line.value_begin, line.text.find(question.name)) << line.text;
    }
  }
}

TEST(TypedFacts, AreParsed) {
  const TypedFact fact = parse_typed_fact("  the door code =  4711=x ");
  EXPECT_EQ(fact.key, "the door code");
  EXPECT_EQ(fact.value, "4711=x");
  EXPECT_EQ(fact.question, "");
  EXPECT_EQ(parse_typed_fact("a = b ? Who is a?").question, "Who is a?");
  const Quiz quiz = typed_quiz({fact, {"cat", "Tom", "Who is the cat?"}});
  EXPECT_EQ(quiz.lines[0].text, "the door code = 4711=x");
  EXPECT_EQ(quiz.questions[0].text, "What is the door code?");
  EXPECT_EQ(quiz.questions[1].text, "Who is the cat?");
}

TEST(TypedFacts, AreRefusedByName) {
  EXPECT_EQ(error_of([] { parse_typed_fact("door code 4711"); }),
            "fact 'door code 4711': got no '=', allowed KEY = VALUE");
  EXPECT_EQ(error_of([] { parse_typed_fact(" = 4711"); }),
            "fact ' = 4711': got an empty key, allowed KEY = VALUE");
  EXPECT_EQ(error_of([] { parse_typed_fact("door = "); }),
            "fact 'door = ': got an empty value, allowed KEY = VALUE");
  EXPECT_NE(error_of([] { parse_typed_fact("door = a\nb"); }).find("control character"),
            std::string::npos);
  EXPECT_NE(error_of([] { parse_typed_fact("door = \xFF"); }).find("UTF-8"), std::string::npos);
  EXPECT_NE(error_of([] { typed_quiz({{"a", "1", ""}, {"a", "2", ""}}); }).find("given before"),
            std::string::npos);
}

TEST(Scores, CompareValuesAsSets) {
  EXPECT_TRUE(is_right(" copper kettle", {"copper kettle"}));
  EXPECT_FALSE(is_right("copper", {"copper kettle"}));
  EXPECT_FALSE(is_right("", {"4711"}));
  EXPECT_FALSE(is_right("4711, 12", {"4711"}));
  EXPECT_TRUE(is_right("c, a, b", {"a", "b", "c"}));
  EXPECT_FALSE(is_right("a, b", {"a", "b", "c"}));
  EXPECT_FALSE(is_right("a, b, c, c", {"a", "b", "c"}));
  EXPECT_FALSE(is_right("a, a, b", {"a", "b", "c"}));
}

}  // namespace
}  // namespace msa::cli
