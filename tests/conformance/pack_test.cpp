// Packs that are broken end in one line, and wrong numbers end in a failed rule.
#include "cli/verify/pack.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "cli/verify/verify.h"

namespace msa::cli {
namespace {

namespace fs = std::filesystem;

/// A folder with a copy of one small rule of the shipped pack.
class PackFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::path(testing::TempDir()) /
        ("pack_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    std::ifstream file(fs::path(MSA_PACK) / "index.json");
    nlohmann::json index = nlohmann::json::parse(file);
    for (const auto& rule : index.at("rules")) {
      if (rule.at("rule") == "index.minus_zero") rule_ = rule;
    }
    index["rules"] = nlohmann::json::array({rule_});
    index_ = index;
    for (const auto& name : rule_.at("files")) {
      fs::copy(fs::path(MSA_PACK) / name.get<std::string>(), folder_);
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& text) const { std::ofstream(folder_ / "index.json") << text; }

  RuleOutcome run() const {
    write(index_.dump());
    pack_ = std::make_unique<Pack>(Pack::open(folder_));
    const Context context({.backend = Backend::kReference, .num_threads = 1});
    return verify(*pack_, context, {&pack_->rules().front()}).outcomes.front();
  }

  /// The rule fails, for the pack's fault, and says so.
  void expect_broken(const std::string& part) const {
    const RuleOutcome outcome = run();
    EXPECT_EQ(outcome.status, RuleStatus::kFail);
    EXPECT_NE(outcome.detail.find(part), std::string::npos) << outcome.detail;
  }

  nlohmann::json& first_case() { return index_["rules"][0]["cases"][0]; }

  fs::path folder_;
  nlohmann::json rule_;
  nlohmann::json index_;
  mutable std::unique_ptr<Pack> pack_;
};

TEST_F(PackFolder, PassesAsItIs) { EXPECT_EQ(run().status, RuleStatus::kPass) << run().detail; }

TEST_F(PackFolder, AWrongArgumentFailsWithThePlace) {
  first_case()["arguments"]["scale"] = 1.0;  // the case is about a scale of 1e-30
  const RuleOutcome outcome = run();
  EXPECT_EQ(outcome.status, RuleStatus::kFail);
  EXPECT_NE(outcome.detail.find("block_ids["), std::string::npos) << outcome.detail;
  EXPECT_NE(outcome.detail.find("got "), std::string::npos) << outcome.detail;
}

TEST_F(PackFolder, AnUnknownOpIsNotRun) {
  index_["rules"][0]["op"] = "teleport";
  const RuleOutcome outcome = run();
  EXPECT_EQ(outcome.status, RuleStatus::kNotRun);
  EXPECT_EQ(outcome.detail, "op missing: teleport");
}

TEST_F(PackFolder, ARefusalThatDoesNotComeFails) {
  first_case()["refused"] = true;
  EXPECT_EQ(run().status, RuleStatus::kFail);
}

TEST_F(PackFolder, AnErrorIsAFailureAndNotASkip) {
  first_case()["arguments"]["block_size"] = 0;
  const RuleOutcome outcome = run();
  EXPECT_EQ(outcome.status, RuleStatus::kFail);
  EXPECT_NE(outcome.detail.find("block_size"), std::string::npos) << outcome.detail;
}

TEST_F(PackFolder, BrokenFilesAreRefused) {
  write("{");
  EXPECT_THROW(Pack::open(folder_), Error);
  EXPECT_THROW(Pack::open(folder_ / "nowhere"), Error);
  write(R"({"format": "msa-conformance", "version": 2, "rules": []})");
  EXPECT_THROW(Pack::open(folder_), Error);
  const std::string file = rule_.at("files")[0];
  fs::resize_file(folder_ / file, 100);
  expect_broken(file);
}

TEST_F(PackFolder, NamesStayInTheFolder) {
  for (const char* name : {"../x/y", "x", "/etc/passwd", ".x/y", "x/y/z"}) {
    first_case()["inputs"]["q_idx"]["tensor"] = name;
    expect_broken("a tensor's name is wrong");
  }
}

TEST_F(PackFolder, ViewsStayInTheirTensor) {
  auto& input = first_case()["inputs"]["k_idx"];
  const int64_t huge = int64_t{1} << 39;
  input["shape"] = {384, 64};
  input["offset"] = 0;
  for (const nlohmann::json& strides : {nlohmann::json({65, 1}), nlohmann::json({huge, 1})}) {
    input["strides"] = strides;
    expect_broken("view outside its tensor");
  }
  input["strides"] = {64, 1};
  input["offset"] = huge;
  expect_broken("view outside its tensor");
  input["strides"] = {64};
  expect_broken("1 strides for 2 axes");
  input["strides"] = {0, 1};
  input["shape"] = {huge, 64};
  expect_broken("wrong view");
  input["shape"] = {384, 64};
  input["strides"] = {-64, 1};
  write(index_.dump());
  EXPECT_THROW(Pack::open(folder_), Error);
}

TEST_F(PackFolder, ABrokenCaseIsNoRefusal) {
  first_case()["refused"] = true;
  first_case()["inputs"]["q_idx"]["tensor"] = "index.minus_zero/nothing";
  expect_broken("a tensor is missing");
}

}  // namespace
}  // namespace msa::cli
