// The runner behind the tool's interface: rollback, the blocks that are noted, the controls.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "cli/model/runner_model.h"
#include "tests/cli/small_model.h"

namespace msa::cli {
namespace {

constexpr int64_t kDocumentTokens = 900;
constexpr int64_t kRoom = 1024;

class RunnerModelTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new runner::test::TempFolder();
    testing::write_small_model(*folder_);
    model_ = make_language_model(load_model(folder_->path())).release();
    document_ = new std::vector<int32_t>(runner::test::random_tokens(kDocumentTokens, 4096));
  }
  static void TearDownTestSuite() {
    delete document_;
    delete model_;
    delete folder_;
  }

  static std::unique_ptr<Reader> read(ReaderOptions options) {
    options.max_tokens = kRoom;
    std::unique_ptr<Reader> reader = model_->open(options);
    reader->read(*document_, {});
    return reader;
  }
  static Answer ask(Reader& reader, const std::string& question) {
    return reader.ask(question_tokens(*model_, question), 12);
  }

  static runner::test::TempFolder* folder_;
  static LanguageModel* model_;
  static std::vector<int32_t>* document_;
};

runner::test::TempFolder* RunnerModelTest::folder_ = nullptr;
LanguageModel* RunnerModelTest::model_ = nullptr;
std::vector<int32_t>* RunnerModelTest::document_ = nullptr;

constexpr std::array<const char*, 3> kQuestions = {"What is the velvet orchard?", "quartz phone?",
                                                   "Tell me the tiny lantern serial."};

TEST_F(RunnerModelTest, RolledBackQuestionsAnswerLikeAFreshPrefill) {
  for (const bool dense : {false, true}) {
    const std::unique_ptr<Reader> shared = read({.dense = dense});
    for (const std::string question : kQuestions) {
      const Answer rolled_back = ask(*shared, question);
      EXPECT_EQ(shared->length(), kDocumentTokens);
      const Answer fresh = ask(*read({.dense = dense}), question);
      EXPECT_EQ(rolled_back.text, fresh.text);
      EXPECT_EQ(rolled_back.reads, fresh.reads);
      EXPECT_EQ(rolled_back.num_tokens, fresh.num_tokens);
    }
    EXPECT_NE(ask(*shared, kQuestions[0]).text, ask(*shared, kQuestions[1]).text);
  }
}

TEST_F(RunnerModelTest, NotesTheBlocksOfTheLastToken) {
  const Answer answer = ask(*read({}), kQuestions[0]);
  const ModelShape shape = model_->shape();
  ASSERT_EQ(answer.reads.size(), static_cast<size_t>(shape.num_layers * shape.num_groups));
  const auto last = static_cast<int32_t>(
      (kDocumentTokens + static_cast<int64_t>(question_tokens(*model_, kQuestions[0]).size()) - 1) /
      shape.block_size);
  for (const std::vector<int32_t>& blocks : answer.reads) {
    EXPECT_EQ(static_cast<int64_t>(blocks.size()), shape.top_k);
    EXPECT_TRUE(std::is_sorted(blocks.begin(), blocks.end()));
    EXPECT_EQ(blocks.back(), last) << "the local block";
  }
  EXPECT_TRUE(ask(*read({.dense = true}), kQuestions[0]).reads.empty());
}

TEST_F(RunnerModelTest, RandomBlocksStandForTheChoice) {
  const std::unique_ptr<Reader> reader = read({.random_blocks = true, .random_seed = 9});
  const Answer answer = ask(*reader, kQuestions[0]);
  const ModelShape shape = model_->shape();
  const int64_t position =
      kDocumentTokens + static_cast<int64_t>(question_tokens(*model_, kQuestions[0]).size()) - 1;
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    for (int64_t group = 0; group < shape.num_groups; ++group) {
      std::vector<int32_t> expected(static_cast<size_t>(shape.top_k));
      random_block_ids(9, layer, group, position, shape.block_size, expected);
      EXPECT_EQ(answer.reads[static_cast<size_t>(layer * shape.num_groups + group)], expected);
    }
  }
}

TEST_F(RunnerModelTest, TimesAreSplit) {
  const ReaderTimes sparse = read({})->times();
  EXPECT_GT(sparse.index, 0);
  EXPECT_GT(sparse.attend, 0);
  EXPECT_GT(sparse.linear, 0);
  EXPECT_EQ(sparse.dense, 0);
  const ReaderTimes dense = read({.dense = true})->times();
  EXPECT_EQ(dense.index, 0);
  EXPECT_GT(dense.dense, 0);
}

}  // namespace
}  // namespace msa::cli
