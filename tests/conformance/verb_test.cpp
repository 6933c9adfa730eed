// `msa verify` from outside, by a shell (hence system() and its NOLINT): lines, JSON, statuses.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace msa::cli {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

class VerifyVerb : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::path(testing::TempDir()) /
        ("verb_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  Outcome run(const std::string& arguments) const {
    const std::string command = "'" MSA_TOOL "' verify " + arguments + " > '" +
                                (folder_ / "out").string() + "' 2> '" + (folder_ / "err").string() +
                                "'";
    const int status = std::system(command.c_str());  // NOLINT(bugprone-command-processor)
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read("out"), read("err")};
  }

  std::string read(const std::string& name) const {
    std::stringstream text;
    text << std::ifstream(folder_ / name).rdbuf();
    return text.str();
  }

  fs::path folder_;
};

TEST_F(VerifyVerb, OneLineARule) {
  const Outcome outcome = run("--backend cpu --rule index.nan 'index.minus*'");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("\n  pass     index.nan\n"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("cpu: 2 passed, 0 failed, 0 not run\n"), std::string::npos);
}

TEST_F(VerifyVerb, AnOpThatIsNotThereIsNotAPass) {
  std::ifstream file(fs::path(MSA_PACK) / "index.json");
  nlohmann::json index = nlohmann::json::parse(file);
  for (auto& rule : index["rules"]) {
    if (rule["rule"] == "kl.log_r") rule["op"] = "later_op";
  }
  fs::create_directories(folder_ / "pack");
  fs::copy(fs::path(MSA_PACK) / "kl.log_r.safetensors", folder_ / "pack");
  std::ofstream(folder_ / "pack/index.json") << index.dump();
  const Outcome outcome =
      run("--backend cpu --rule kl.log_r --pack '" + (folder_ / "pack").string() + "'");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("  not run  kl.log_r: op missing: later_op\n"), std::string::npos)
      << outcome.out;
  EXPECT_NE(outcome.out.find("cpu: 0 passed, 0 failed, 1 not run\n"), std::string::npos);
}

TEST_F(VerifyVerb, ABrokenRuleIsStatusOne) {
  std::ifstream file(fs::path(MSA_PACK) / "index.json");
  nlohmann::json index = nlohmann::json::parse(file);
  for (auto& rule : index["rules"]) {
    if (rule["rule"] == "index.minus_zero") rule["cases"][0]["arguments"]["scale"] = 1.0;
  }
  fs::create_directories(folder_ / "pack");
  fs::copy(fs::path(MSA_PACK) / "index.minus_zero.safetensors", folder_ / "pack");
  std::ofstream(folder_ / "pack/index.json") << index.dump();
  const Outcome outcome = run("--backend reference --rule index.minus_zero --json --pack '" +
                              (folder_ / "pack").string() + "'");
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  const nlohmann::json json = nlohmann::json::parse(outcome.out);
  const nlohmann::json& rule = json.at("backends").at(0).at("rules").at(0);
  EXPECT_EQ(rule.at("status"), "FAIL");
  EXPECT_NE(rule.at("detail").get<std::string>().find("block_ids[0, 0, "), std::string::npos);
  EXPECT_EQ(json.at("backends").at(0).at("failed"), 1);
}

TEST_F(VerifyVerb, BadInputIsOneLine) {
  for (const char* arguments :
       {"--rule index.nonsense", "--backend tpu", "--pack nowhere", "--backend cuda --rule x"}) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, 2) << arguments;
    EXPECT_EQ(outcome.out, "") << arguments;
    EXPECT_EQ(outcome.err.rfind("msa: ", 0), 0u) << arguments << ": " << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

}  // namespace
}  // namespace msa::cli
