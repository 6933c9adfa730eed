// The demo and the evaluation, with a model of a few lines in place of the real one.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/demo/demo.h"
#include "cli/demo/report.h"
#include "cli/eval/evaluate.h"
#include "cli/eval/summary.h"
#include "cli/parts/usage_error.h"
#include "tests/cli/fake_model.h"

namespace msa::cli {
namespace {

using testing::FakeModel;

/// Plants nothing itself: what the haystack holds does not matter here.
std::vector<SourceText> hay() {
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "line " + std::to_string(i) + " of plain hay\n";
  return {{"hay", text}};
}

/// Answers as `quiz` says when the document holds the fact, and "unknown" otherwise.
testing::Oracle knowing(const std::vector<Quiz>& quizzes) {
  std::map<std::string, std::pair<std::string, std::string>> answers;
  for (const Quiz& quiz : quizzes) {
    for (const Question& question : quiz.questions) {
      std::string joined;
      for (const std::string& value : question.expected) {
        joined += (joined.empty() ? "" : ", ") + value;
      }
      answers[question.text] = {quiz.lines[question.lines[0]].text, joined};
    }
  }
  return [answers](const std::string& document, const std::string& question) {
    const auto& [line, answer] = answers.at(question);
    return document.find(line) == std::string::npos ? "unknown" : " " + answer;
  };
}

Quiz door_and_cat() {
  return typed_quiz({{"door code", "4711", ""}, {"cat", "Whiskers", ""}, {"bus", "42B", ""}});
}

TEST(Demos, FindAllFacts) {
  const Quiz quiz = door_and_cat();
  const FakeModel model(knowing({quiz}));
  const Haystack haystack(model, hay());
  const DemoResult result =
      run_demo(model, haystack, quiz, {.length = 8192, .seed = 3, .in_order = true}, {});
  EXPECT_TRUE(result.all_right());
  EXPECT_EQ(model.log().documents, 1);
  EXPECT_EQ(model.log().questions, 3);
  EXPECT_EQ(model.log().options[0].max_tokens, 8192);
  const std::string text = demo_text(result, model.shape(), {});
  EXPECT_NE(text.find("3 of 3 facts found"), std::string::npos);
  EXPECT_NE(text.find("door code"), std::string::npos);
  EXPECT_NE(text.find("4711"), std::string::npos);
  const nlohmann::json json = demo_json(result, model.shape());
  EXPECT_TRUE(json.at("all_right").get<bool>());
  EXPECT_EQ(json.at("facts").size(), 3u);
  EXPECT_EQ(json.at("facts")[0].at("answer"), "4711");
  EXPECT_EQ(json.at("facts")[0].at("readers"), 2) << "both groups of layer 1";
}

TEST(Demos, ShowTheFactThatWasMissed) {
  const Quiz quiz = door_and_cat();
  const FakeModel model([](const std::string&, const std::string& question) -> std::string {
    return question.find("cat") == std::string::npos ? "4711" : "Whiskers";
  });
  const Haystack haystack(model, hay());
  const DemoResult result = run_demo(model, haystack, quiz, {.length = 8192}, {});
  EXPECT_FALSE(result.all_right());
  EXPECT_EQ(telling_fact(result), 2u);
  const std::string text = demo_text(result, model.shape(), {.strips = {2}});
  EXPECT_NE(text.find("2 of 3 facts found"), std::string::npos);
  EXPECT_NE(text.find("WRONG"), std::string::npos);
  EXPECT_NE(text.find("What is bus?"), std::string::npos);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    EXPECT_LE(end - begin, 100u) << text.substr(begin, end - begin);
    begin = end + 1;
  }
}

TEST(Demos, DenseIsRunWholeWhenAffordable) {
  const Quiz quiz = door_and_cat();
  const FakeModel model(knowing({quiz}));
  const Haystack haystack(model, hay());
  DemoOptions options{.length = 8192, .dense = true, .dense_budget_seconds = 1000};
  const DemoResult result = run_demo(model, haystack, quiz, options, {});
  ASSERT_TRUE(result.dense.has_value());
  EXPECT_FALSE(result.dense_estimate.has_value());
  EXPECT_EQ(result.dense.value().tokens_read, static_cast<int64_t>(result.document.tokens.size()));
  for (const DemoAnswer& answer : result.dense.value().answers) EXPECT_TRUE(answer.right);
  EXPECT_EQ(demo_text(result, model.shape(), {}).find("extrapolated"), std::string::npos);
}

TEST(Demos, DenseIsCutShortAndSaysSo) {
  const Quiz quiz = door_and_cat();
  const FakeModel model(knowing({quiz}));
  const Haystack haystack(model, hay());
  // The fake's dense time for N tokens is 1e-3 N + 1e-6 N^2 seconds: 16384 of them take 285.
  DemoOptions options{.length = 16384, .dense = true, .dense_budget_seconds = 100};
  const DemoResult result = run_demo(model, haystack, quiz, options, {});
  ASSERT_TRUE(result.dense_estimate.has_value());
  const auto tokens = static_cast<double>(result.document.tokens.size());
  EXPECT_LT(result.dense.value().tokens_read, 9000);
  EXPECT_GE(result.dense.value().tokens_read, 4096);
  EXPECT_NEAR(result.dense_estimate.value().attention_seconds, 1e-6 * tokens * tokens, 1e-6);
  EXPECT_NEAR(result.dense_estimate.value().prefill_seconds, 1e-3 * tokens + 1e-6 * tokens * tokens,
              1e-6);
  const std::string text = demo_text(result, model.shape(), {});
  EXPECT_NE(text.find("EXTRAPOLATED"), std::string::npos);
  EXPECT_NE(text.find("not asked"), std::string::npos);
  EXPECT_TRUE(demo_json(result, model.shape()).contains("dense_extrapolated"));
}

EvalOptions eval_options(Task task) {
  EvalOptions options;
  options.quiz.task = task;
  options.quiz.facts = 6;
  options.quiz.distractors = 9;
  options.lengths = {6000, 9000};
  options.documents = 4;
  options.seed = 11;
  options.variants = {
      {"sparse", "none"}, {"dense", "none"}, {"sparse", "removed"}, {"sparse", "random-blocks"}};
  return options;
}

/// The quizzes that evaluate() draws for these options.
std::vector<Quiz> quizzes_of(const EvalOptions& options) {
  std::vector<Quiz> quizzes;
  for (int64_t document = 0; document < options.documents; ++document) {
    Random random(options.seed, static_cast<uint64_t>(document) * 2);
    quizzes.push_back(make_quiz(options.quiz, random));
  }
  return quizzes;
}

TEST(Evaluations, CountEveryTrialOfEveryTask) {
  for (const Task task : {Task::kNeedle, Task::kMultikey, Task::kMultivalue, Task::kTracking}) {
    const EvalOptions options = eval_options(task);
    const FakeModel model(knowing(quizzes_of(options)));
    const Haystack haystack(model, hay());
    const EvalResult result = evaluate(model, haystack, options, {});
    EXPECT_EQ(result.trials.size(), 2u * 4 * 4 * 6);
    for (const Summary& summary : summarise(result, options)) {
      const bool removed = options.variants[summary.variant].control == "removed";
      EXPECT_EQ(summary.all.total, 24);
      EXPECT_EQ(summary.all.right, removed ? 0 : 24) << task_name(task);
      int64_t by_depth = 0;
      for (const Count& count : summary.by_depth) by_depth += count.total;
      EXPECT_EQ(by_depth, 24);
      // Layer 1 of the fake reads all blocks and layer 0 none but the local one.
      const bool reads = !removed && options.variants[summary.variant].attention == "sparse";
      ASSERT_EQ(summary.layer_read.size(), reads ? 2u : 0u);
      if (reads) {
        EXPECT_EQ(summary.layer_read[1], 1.0);
      }
      if (reads) {
        EXPECT_LT(summary.layer_read[0], 0.2);
      }
    }
    const std::vector<Paired> pairs = pair_up(result, options);
    ASSERT_EQ(pairs.size(), 2u);
    EXPECT_EQ(pairs[0].both, 24);
  }
}

TEST(Evaluations, VariantsSeeTheSameDocuments) {
  const EvalOptions options = eval_options(Task::kNeedle);
  const FakeModel model(knowing(quizzes_of(options)));
  const Haystack haystack(model, hay());
  const EvalResult result = evaluate(model, haystack, options, {});
  const testing::FakeLog& log = model.log();
  ASSERT_EQ(log.texts.size(), 32u);
  for (size_t document = 0; document < 8; ++document) {
    const size_t first = document * 4;
    EXPECT_EQ(log.texts[first], log.texts[first + 1]);
    EXPECT_EQ(log.texts[first], log.texts[first + 3]);
    EXPECT_NE(log.texts[first], log.texts[first + 2]);
    EXPECT_TRUE(log.options[first + 1].dense);
    EXPECT_TRUE(log.options[first + 3].random_blocks);
    if (document > 0) {
      EXPECT_NE(log.texts[first], log.texts[first - 4]);
    }
  }
  const EvalResult again = evaluate(model, haystack, options, {});
  for (size_t i = 0; i < result.trials.size(); ++i) {
    EXPECT_EQ(result.trials[i].fact, again.trials[i].fact);
    EXPECT_EQ(result.trials[i].depth, again.trials[i].depth);
  }
}

TEST(Evaluations, TypedFactsAndReports) {
  EvalOptions options = eval_options(Task::kNeedle);
  options.typed = {{"door code", "4711", ""}, {"cat", "Whiskers", "Who is the cat?"}};
  options.lengths = {6000};
  options.documents = 1;
  const FakeModel model([](const std::string& document, const std::string& question) {
    return document.find("4711") != std::string::npos && question == "What is door code?" ? "4711"
                                                                                          : "?";
  });
  const Haystack haystack(model, hay());
  const EvalResult result = evaluate(model, haystack, options, {});
  const nlohmann::json json = summary_json(result, options);
  EXPECT_EQ(json.at("results")[0].at("right"), 1);
  EXPECT_EQ(json.at("results")[0].at("trials"), 2);
  EXPECT_EQ(json.at("trials").size(), 8u);
  EXPECT_EQ(json.at("paired")[0].at("both"), 1);
  const std::string text = summary_text(result, options);
  EXPECT_NE(text.find("sparse, removed"), std::string::npos);
  EXPECT_NE(text.find("50.0 %"), std::string::npos);
  EXPECT_NE(text.find("+0.0 points"), std::string::npos);
  EXPECT_NE(text.find("missed fact"), std::string::npos);
  EXPECT_NE(text.find("cat = Whiskers"), std::string::npos);
}

TEST(Evaluations, LengthsBeyondTheModelAreRefused) {
  EvalOptions options = eval_options(Task::kNeedle);
  FakeModel model([](const std::string&, const std::string&) { return ""; });
  model.shape().max_tokens = 8000;
  const Haystack haystack(model, hay());
  try {
    evaluate(model, haystack, options, {});
    FAIL() << "9000 tokens were accepted";
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(),
                 "--length: got 9000 tokens, allowed at most 8000 (the model's positions)");
  }
}

TEST(RandomBlocks, AreVisibleDistinctAndHoldTheLocalOne) {
  std::vector<int32_t> ids(4);
  std::map<int32_t, int> seen;
  for (int64_t position = 0; position < int64_t{64} * 20; position += 7) {
    random_block_ids(5, 1, 2, position, 64, ids);
    const auto local = static_cast<int32_t>(position / 64);
    const auto count = static_cast<size_t>(std::min(4, local + 1));
    for (size_t i = 0; i < ids.size(); ++i) {
      if (i >= count) {
        EXPECT_EQ(ids[i], -1);
      }
      if (i > 0 && i < count) {
        EXPECT_GT(ids[i], ids[i - 1]);
      }
    }
    EXPECT_EQ(ids[count - 1], local);
    for (size_t i = 0; i < count; ++i) ++seen[ids[i]];
  }
  EXPECT_EQ(seen.size(), 20u);
  std::vector<int32_t> same(4);
  random_block_ids(5, 1, 2, 1000, 64, ids);
  random_block_ids(5, 1, 2, 1000, 64, same);
  EXPECT_EQ(ids, same);
  random_block_ids(6, 1, 2, 1000, 64, same);
  EXPECT_NE(ids, same);
}

}  // namespace
}  // namespace msa::cli
