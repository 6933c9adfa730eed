// Haystacks, and documents with facts in them.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "cli/quiz/document.h"
#include "cli/quiz/haystack.h"
#include "cli/quiz/quiz.h"
#include "tests/cli/fake_model.h"
#include "tests/cli/support.h"

namespace msa::cli {
namespace {

using testing::error_of;
using testing::FakeModel;

FakeModel silent_model() {
  return FakeModel([](const std::string&, const std::string&) { return "?"; });
}

std::vector<SourceText> hay(int lines) {
  std::string text;
  for (int i = 0; i < lines; ++i) text += "line " + std::to_string(i) + " of plain hay\n";
  return {{"hay", text}};
}

TEST(Haystacks, CutExactlyAndRepeatInAnotherOrder) {
  const FakeModel model = silent_model();
  const Haystack haystack(model, hay(1000));
  Random random(1);
  const HaystackCut part = haystack.cut(1234, true, random);
  EXPECT_EQ(part.tokens.size(), 1234u);
  EXPECT_EQ(part.repeats, 0);
  EXPECT_EQ(model.decode(part.tokens).substr(0, 7), "line 0 ");
  const HaystackCut all = haystack.cut(haystack.num_tokens() * 3, true, random);
  EXPECT_EQ(all.repeats, 2);
  const std::string text = model.decode(all.tokens);
  const auto size = static_cast<size_t>(haystack.num_tokens());
  EXPECT_NE(text.substr(0, size), text.substr(size, size));
  const HaystackCut other = haystack.cut(1234, false, random);
  EXPECT_NE(model.decode(other.tokens), model.decode(part.tokens));
}

TEST(Haystacks, EmptyOnesAreRefused) {
  const FakeModel model = silent_model();
  EXPECT_NE(error_of([&] { Haystack(model, {{"empty", ""}}); }), "");
  EXPECT_NE(error_of([] { read_project_texts("/nonexistent"); }).find("--file"), std::string::npos);
}

TEST(Haystacks, LeaveOutTheModelsCardAndFactsThatArePlanted) {
  const auto root = std::filesystem::path(::testing::TempDir()) / "msa_haystack_test";
  std::filesystem::create_directories(root / "models" / "mini");
  std::filesystem::create_directories(root / "docs");
  std::ofstream(root / "models" / "mini" / "README.md") << "door code = 4711\n";
  std::ofstream(root / "docs" / "a.md")
      << "one\nthe door code = 4711 here\ndoor code\noutdoor codes\n";
  std::ofstream(root / "docs" / "b.json") << "{}\n";
  std::vector<SourceText> texts = read_project_texts(root);
  ASSERT_EQ(texts.size(), 1u);
  remove_lines(texts, "door code", "4711");
  EXPECT_EQ(texts[0].text, "one\ndoor code\noutdoor codes\n");
  remove_lines(texts, "door code", "");
  EXPECT_EQ(texts[0].text, "one\noutdoor codes\n");
  std::filesystem::remove_all(root);
}

TEST(Documents, HaveExactlyTheLengthAndEveryLineOnItsOwn) {
  const FakeModel model = silent_model();
  const Haystack haystack(model, hay(300));
  for (const int64_t length : {2500, 4096, 20000}) {
    Random random(5);
    const Quiz quiz = make_quiz({.task = Task::kTracking, .facts = 8}, random);
    const Document document = make_document(model, haystack, quiz, {.length = length}, random);
    EXPECT_EQ(static_cast<int64_t>(document.tokens.size()) + document.question_tokens +
                  document.answer_tokens,
              length);
    EXPECT_EQ(document.tokens[0], model.special().begin);
    const std::span<const int32_t> tokens(document.tokens);
    double last = -1;
    for (size_t i = 0; i < quiz.lines.size(); ++i) {
      const Planted& planted = document.lines[i];
      const auto begin = static_cast<size_t>(planted.begin);
      const auto size = static_cast<size_t>(planted.end - planted.begin);
      EXPECT_EQ(model.decode(tokens.subspan(begin, size)), quiz.lines[i].text + "\n");
      if (begin > 1) {
        EXPECT_EQ(model.decode(tokens.first(begin)).back(), '\n');
      }
      if (quiz.lines[i].value_begin != std::string::npos) {
        const size_t value = quiz.lines[i].value_begin / 4;
        EXPECT_EQ(planted.value_token, planted.begin + static_cast<int64_t>(value));
      }
      EXPECT_EQ(planted.block, planted.value_token / model.shape().block_size);
      if (i % 3 == 0) last = -1;
      EXPECT_GT(planted.depth, last) << "the lines of a chain stand in their order";
      last = planted.depth;
    }
  }
}

TEST(Documents, SpreadFactsEvenly) {
  const FakeModel model = silent_model();
  const Haystack haystack(model, hay(3000));
  Random random(5);
  const Quiz quiz = make_quiz({.facts = 10}, random);
  const Document document = make_document(model, haystack, quiz, {.length = 60000}, random);
  std::vector<double> depths;
  for (const Planted& planted : document.lines) depths.push_back(planted.depth);
  std::sort(depths.begin(), depths.end());
  for (size_t i = 0; i < depths.size(); ++i) {
    EXPECT_GT(depths[i], static_cast<double>(i) / 10 - 0.02);
    EXPECT_LT(depths[i], static_cast<double>(i + 1) / 10 + 0.02);
  }
}

TEST(Documents, PutLineEndsIntoAHaystackWithoutAny) {
  const FakeModel model = silent_model();
  const Haystack haystack(model, {{"one line", std::string(5000, 'x')}});
  Random random(5);
  const Quiz quiz = make_quiz({.facts = 5}, random);
  const Document document = make_document(model, haystack, quiz, {.length = 3000}, random);
  EXPECT_EQ(static_cast<int64_t>(document.tokens.size()) + document.question_tokens +
                document.answer_tokens,
            3000);
  const std::string text = model.decode(document.tokens);
  for (const Line& line : quiz.lines) {
    const size_t at = text.find(line.text + "\n");
    ASSERT_NE(at, std::string::npos);
    EXPECT_TRUE(at == 0 || text[at - 1] == '\n') << line.text;
  }
}

TEST(Documents, WithoutTheFactsAreAsLong) {
  const FakeModel model = silent_model();
  const Haystack haystack(model, hay(300));
  Random random(5);
  const Quiz quiz = make_quiz({.facts = 5}, random);
  Random same = random;
  const Document with = make_document(model, haystack, quiz, {.length = 4000}, random);
  const Document without =
      make_document(model, haystack, quiz, {.length = 4000, .plant = false}, same);
  EXPECT_EQ(with.tokens.size(), without.tokens.size());
  const std::string text = model.decode(without.tokens);
  for (const Question& question : quiz.questions) {
    EXPECT_EQ(text.find(question.expected[0]), std::string::npos);
  }
}

TEST(Documents, RefuseWhatDoesNotFit) {
  FakeModel model = silent_model();
  const Haystack haystack(model, hay(300));
  Random random(5);
  const Quiz quiz = typed_quiz({{"door", "4711", ""}});
  EXPECT_NE(error_of([&] {
              make_document(model, haystack, quiz, {.length = 1}, random);
            }).find("--length: got 1 tokens, allowed at least"),
            std::string::npos);
  const Quiz longest = typed_quiz({{"door", std::string(65, '7'), ""}});
  EXPECT_NE(error_of([&] {
              make_document(model, haystack, longest, {.length = 4000}, random);
            }).find("got 17 tokens, allowed 16"),
            std::string::npos);
  model.shape().block_size = 2;
  EXPECT_NE(error_of([&] {
              make_document(model, haystack, quiz, {.length = 4000}, random);
            }).find("fact 'door = 4711': got 3 tokens, allowed 2"),
            std::string::npos);
}

}  // namespace
}  // namespace msa::cli
