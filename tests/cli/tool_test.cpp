// The program itself, from outside: help, exit statuses, error lines, JSON, streams, full disks.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tests/cli/small_model.h"

namespace msa::cli {
namespace {

using runner::test::Json;
using runner::test::read_whole;

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

class ToolTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new runner::test::TempFolder();
    testing::write_small_model(*folder_);
    std::string hay;
    for (int i = 0; i < 500; ++i) hay += "line " + std::to_string(i) + " of plain hay\n";
    folder_->write("hay.txt", hay);
    folder_->write("empty.txt", "");
    folder_->write("nul.txt", std::string("a\0b", 3));
    folder_->write("latin1.txt", "caf\xE9\n");
  }
  static void TearDownTestSuite() { delete folder_; }

  static std::string path(const std::string& name) { return (folder_->path() / name).string(); }
  static std::string model() { return "--model '" + folder_->path().string() + "' "; }
  /// The haystack and the model of the tests.
  static std::string hay() { return model() + "--file '" + path("hay.txt") + "' "; }

  /// Runs `msa arguments`, from a folder that is not the project's.
  static Outcome run(const std::string& arguments, const std::string& redirect = "") {
    const std::string out = path("out");
    const std::string err = path("err");
    const std::string to = redirect.empty() ? "> '" + out + "'" : redirect;
    const std::string command = "cd '" + folder_->path().string() + "' && '" MSA_TOOL "' " +
                                arguments + " " + to + " 2> '" + err + "'";
    folder_->write("out", "");
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_whole(out), read_whole(err)};
  }

  /// One line on standard error that starts with "msa: " and holds `part`; status 2; no output.
  static void expect_refused(const std::string& arguments, const std::string& part) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, 2) << arguments;
    EXPECT_EQ(outcome.out, "") << arguments;
    EXPECT_EQ(outcome.err.rfind("msa: ", 0), 0u) << arguments << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(part), std::string::npos) << arguments << ": " << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }

  static runner::test::TempFolder* folder_;
};

runner::test::TempFolder* ToolTest::folder_ = nullptr;

TEST_F(ToolTest, HelpHasAnExampleForEveryVerb) {
  for (const std::string verb : {"", "demo", "run", "eval", "info"}) {
    const Outcome outcome = run(verb + " --help");
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_NE(outcome.out.find("Example"), std::string::npos) << verb;
    EXPECT_NE(outcome.out.find("\n  msa " + verb), std::string::npos) << verb;
  }
  EXPECT_NE(run("--help").out.find("Exit status: 0"), std::string::npos);
  EXPECT_EQ(run("--version").out.rfind("msa ", 0), 0u);
}

TEST_F(ToolTest, BadArgumentsAreOneLine) {
  expect_refused("", "allowed demo, run, eval, info");
  expect_refused("fly", "fly");
  expect_refused("demo --fly", "--fly");
  expect_refused("demo --length", "--length");
  expect_refused("demo --length 0", "got '0', allowed a whole number from 1");
  expect_refused("demo --length 5G", "got '5G'");
  expect_refused("demo --length 8M", "got '8M'");
  expect_refused("demo --seed -1", "--seed");
  expect_refused("demo --strips two", "got 'two', allowed one, all, none");
  expect_refused("eval", "task");
  expect_refused("eval fly", "got task 'fly', allowed needle");
  expect_refused("eval needle --control nothing", "got 'nothing'");
  expect_refused("eval needle --attention dense --control random-blocks", "selects no blocks");
  expect_refused("eval tracking --phrasings heldout", "allowed with needle and multikey");
  expect_refused("eval needle --distractors 5", "allowed with multikey");
  expect_refused("eval needle --documents 0", "--documents: got '0'");
  expect_refused("run --temperature 0 --top-p 0.5 --prompt x", "--temperature");
  expect_refused("run --temperature nan --prompt x", "got 'nan'");
  expect_refused("run --prompt x --prompt-file y", "several prompts");
  expect_refused("run --question x", "both together");
  expect_refused("info --model /nonexistent", "got '/nonexistent'");
  expect_refused("info --model '" + path("hay.txt") + "'", "allowed a folder");
}

TEST_F(ToolTest, BadFilesAreNamed) {
  expect_refused("demo " + model() + "--file /nonexistent", "/nonexistent: cannot read");
  expect_refused("demo " + model() + "--file '" + folder_->path().string() + "'",
                 "got a directory");
  expect_refused("demo " + model() + "--file '" + path("nul.txt") + "'", "NUL byte at offset 1");
  expect_refused("demo " + model() + "--file '" + path("latin1.txt") + "'",
                 "byte 0xE9 at offset 3");
  expect_refused("demo " + model() + "--file '" + path("empty.txt") + "'", "haystack is empty");
  expect_refused("eval needle " + hay() + "--facts-file '" + path("empty.txt") + "'", "no facts");
  expect_refused("run " + model() + "--prompt ''", "empty prompt");
  expect_refused("run " + model() + "< /dev/null", "standard input: got an empty prompt");
  expect_refused("run " + model() + "--prompt \"$(printf 'a\\377')\"", "byte 0xFF");
}

TEST_F(ToolTest, BadFactsAreNamed) {
  expect_refused("demo " + hay() + "--fact 'door code 4711'", "got no '='");
  expect_refused("demo " + hay() + "--fact ' = 4711'", "empty key");
  expect_refused("demo " + hay() + "--fact 'door ='", "empty value");
  expect_refused("demo " + hay() + "--fact 'a = 1' --fact 'a = 2'", "given before");
  expect_refused("demo " + hay() + "--fact \"$(printf 'a = b\\tc')\"", "control character");
  expect_refused("demo " + hay() + "--fact 'a = " + std::string(200, 'x') + "'", "allowed");
  expect_refused("demo " + hay() + "--length 1 --fact 'a = 1'", "--length: got 1 tokens");
}

TEST_F(ToolTest, DemoIsOneWhenFactsAreMissed) {
  const Outcome outcome = run("demo " + hay() + "--length 2K --seed 3 --dense");
  EXPECT_EQ(outcome.status, 1) << "random weights find nothing";
  EXPECT_EQ(outcome.err, "") << "no progress without a terminal";
  EXPECT_NE(outcome.out.find("seed 3"), std::string::npos);
  EXPECT_NE(outcome.out.find("0 of 6 facts found"), std::string::npos);
  EXPECT_NE(outcome.out.find("layer 2  group 1 |"), std::string::npos);
  EXPECT_EQ(outcome.out.find('\x1b'), std::string::npos) << "no colour without a terminal";
  const Outcome again = run("demo " + hay() + "--length 2K --seed 3 --json");
  EXPECT_EQ(again.status, 1);
  const Json json = Json::parse(again.out);
  EXPECT_EQ(json.at("facts").size(), 6u);
  EXPECT_EQ(json.at("seed"), 3);
  for (const Json& fact : json.at("facts")) {
    const std::string value = fact.at("expected");
    EXPECT_NE(outcome.out.find(value.substr(0, 12)), std::string::npos) << value;
  }
}

TEST_F(ToolTest, DemoRepeatsAShortHaystack) {
  folder_->write("short.txt", "a short haystack\nof two lines\n");
  const Outcome outcome =
      run("demo " + model() + "--file short.txt --length 1K --fact 'door code = 4711'");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.out.find("it repeats, in another order"), std::string::npos);
}

TEST_F(ToolTest, EvalCountsTrialsAndControls) {
  const std::string common = hay() + "--length 2K 3K --documents 2 --facts 3 --seed 5 ";
  const Outcome outcome =
      run("eval needle " + common + "--attention both --control removed random-blocks --json");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const Json json = Json::parse(outcome.out);
  EXPECT_EQ(json.at("results").size(), 8u);
  EXPECT_EQ(json.at("trials").size(), 48u);
  EXPECT_EQ(json.at("paired").size(), 2u);
  EXPECT_EQ(json.at("results")[0].at("block_read_by_layer").size(), 3u);
  const Outcome table = run("eval multikey " + common + "--distractors 5");
  EXPECT_EQ(table.status, 0);
  EXPECT_NE(table.out.find("0/6"), std::string::npos);
  EXPECT_EQ(run("eval multivalue " + common).status, 0);
  EXPECT_EQ(run("eval tracking " + common).status, 0);
  folder_->write("facts.txt", "# typed\ndoor code = 4711\ncat = Tom ? Who is the cat?\n");
  const Outcome typed = run("eval needle " + hay() + "--length 2K --facts-file facts.txt --json");
  EXPECT_EQ(Json::parse(typed.out).at("trials").size(), 2u);
}

TEST_F(ToolTest, RunStreamsReproducibly) {
  const std::string prompt = "run " + model() + "--prompt 'The door code is' --max-new-tokens 8 ";
  const Outcome greedy = run(prompt);
  EXPECT_EQ(greedy.status, 0) << greedy.err;
  EXPECT_EQ(greedy.out.back(), '\n');
  EXPECT_EQ(run(prompt).out, greedy.out);
  const Json json = Json::parse(run(prompt + "--json").out);
  EXPECT_EQ(json.at("prompt_tokens").get<int>() > 3, true);
  EXPECT_EQ(json.at("text").get<std::string>() + "\n", greedy.out);
  const std::string sampled = prompt + "--temperature 2 --top-p 0.95 --top-k 500 --seed ";
  EXPECT_EQ(run(sampled + "1").out, run(sampled + "1").out);
  EXPECT_NE(run(sampled + "1").out, run(sampled + "2").out);
  EXPECT_EQ(run("run " + model() + "--max-new-tokens 4 < hay.txt").status, 0);
  EXPECT_EQ(run("run " + model() +
                "--document hay.txt --question 'Who?' --max-new-tokens 4 "
                "--attention dense")
                .status,
            0);
  EXPECT_EQ(run("run " + model() + "--chat --prompt 'Who?' --max-new-tokens 4").status, 0);
  expect_refused("run " + model() + "--prompt x --max-new-tokens 2M", "allowed at most 1048576");
}

TEST_F(ToolTest, InfoTellsMachineAndModel) {
  const Json json = Json::parse(run("info " + model() + "--json").out);
  EXPECT_EQ(json.at("model").at("layers"), 3);
  EXPECT_EQ(json.at("model").at("block_size"), 64);
  // K and V of 2 heads of 16 and index-K of 8, in bfloat16, for each of 3 layers.
  EXPECT_EQ(json.at("model").at("cache_bytes_per_token"), 3 * (2 * 2 * 16 + 8) * 2);
  EXPECT_EQ(json.at("machine").at("backends").size(), 3u);
  const Outcome text = run("info " + model());
  EXPECT_EQ(text.status, 0);
  EXPECT_NE(text.out.find("reference"), std::string::npos);
}

TEST_F(ToolTest, AFullDiskOrAClosedPipeIsAnError) {
  const Outcome full = run("--help", "> /dev/full");
  EXPECT_EQ(full.status, 2);
  EXPECT_EQ(full.err, "msa: cannot write to standard output: No space left on device\n");
  const Outcome streamed = run("run " + model() + "--prompt x --max-new-tokens 50", "> /dev/full");
  EXPECT_EQ(streamed.status, 2);
  // `true` leaves at once, while the model goes on writing.
  const std::string command = "cd '" + folder_->path().string() + "' && { '" MSA_TOOL "' run " +
                              model() + "--prompt x --max-new-tokens 2000 2> err; " +
                              "echo $? > status; } | true";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(read_whole(path("status")), "2\n");
  EXPECT_EQ(read_whole(path("err")), "msa: cannot write to standard output: Broken pipe\n");
}

}  // namespace
}  // namespace msa::cli
