// The program itself, from outside: help, exit statuses, output of each verb, JSON.
#include <filesystem>

#include "cli/inspect/picks.h"
#include "tests/cli/tool_fixture.h"

namespace msa::cli::testing {
namespace {

TEST_F(ToolTest, HelpHasAnExampleForEveryVerb) {
  for (const std::string verb : {"", "demo", "run", "eval", "inspect", "info", "doctor"}) {
    const Outcome outcome = run(verb + " --help");
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_NE(outcome.out.find("Example"), std::string::npos) << verb;
    EXPECT_NE(outcome.out.find("\n  msa " + verb), std::string::npos) << verb;
  }
  EXPECT_NE(run("--help").out.find("Exit status: 0"), std::string::npos);
  EXPECT_EQ(run("--version").out.rfind("msa ", 0), 0u);
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
  folder_->write("forms.json",
                 R"({"forms": [{"id": "a", "fact": "{value} at {key}", "question": "{key}?"}]})");
  const Outcome own = run("eval needle " + common + "--phrasings-file forms.json --json");
  EXPECT_EQ(own.status, 0) << own.err;
  const Json trials = Json::parse(own.out).at("trials");
  for (const Json& trial : trials) {
    EXPECT_NE(trial.at("fact").get<std::string>().find(" at "), std::string::npos);
  }
  EXPECT_EQ(trials.size(), 12u);
}

TEST_F(ToolTest, InspectWritesPictureFiguresAndPicks) {
  const std::string common =
      "inspect " + hay() + "--length 2K --seed 4 --picks p --picks-rows 100 ";
  const Outcome outcome = run(common + "--png a.png");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "") << "no progress without a terminal";
  EXPECT_NE(outcome.out.find("groups take the block with the fact"), std::string::npos);
  EXPECT_NE(outcome.out.find("picture  a.png"), std::string::npos);
  const Picks picks = read_picks(path("p"));
  EXPECT_EQ(picks.layers.size(), 3u);
  EXPECT_EQ(picks.num_rows, 100);
  EXPECT_EQ(picks.num_groups, 2);
  EXPECT_EQ(picks.top_k, 4);
  EXPECT_EQ(picks.block_size, 64);
  const Json json = Json::parse(run(common + "--png b.png --layer 1 --json").out);
  EXPECT_EQ(json.at("tokens"), picks.k_len);
  EXPECT_EQ(json.at("groups").size(), 6u);
  for (const Json& group : json.at("groups")) {
    EXPECT_GT(group.at("score_recall"), 0.0);
    EXPECT_LE(group.at("score_recall"), 1.0);
    EXPECT_GE(group.at("neighbour_union_blocks").at("16"), 4.0);
  }
  EXPECT_GT(std::filesystem::file_size(path("a.png")), std::filesystem::file_size(path("b.png")));
  EXPECT_EQ(read_whole(path("a.png")).substr(1, 3), "PNG");
  const Outcome brief = run("inspect " + model() + "--prompt 'a few words' --png c.png");
  EXPECT_EQ(brief.status, 0) << brief.err;
  EXPECT_NE(brief.out.find("No query chose"), std::string::npos);
}

TEST_F(ToolTest, AFileIsWrittenWholeOrNotAtAll) {
  namespace fs = std::filesystem;
  const std::string common = "inspect " + hay() + "--length 2K --seed 4 --recall-rows 0 ";
  expect_refused(common + "--png /nonexistent/x.png", "there is no folder /nonexistent");
  expect_refused(common + "--png /dev/null", "no regular file");
  expect_refused(common + "--png x.png --picks '" + folder_->path().string() + "'",
                 "no regular file");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_FALSE(fs::exists(path("x.png")));
  // A limit on file sizes stands for a full disk: the old file stays, nothing is left beside it.
  fs::create_directory(path("old"));
  folder_->write("old/x.png", "old");
  const Outcome outcome = run(common + "--png old/x.png", "", "trap '' XFSZ; ulimit -f 1; ");
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.err.find("--png: cannot write old/x.png"), std::string::npos) << outcome.err;
  EXPECT_EQ(read_whole(path("old/x.png")), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(path("old")), fs::directory_iterator()), 1);
}

TEST_F(ToolTest, DoctorJudges) {
  const Outcome good = run("doctor " + model() + "--json");
  EXPECT_EQ(good.status, 0) << good.out;
  EXPECT_EQ(Json::parse(good.out).at("ready"), true);
  EXPECT_NE(run("doctor " + model()).out.find("The demo can run"), std::string::npos);
  const Outcome missing = run("doctor --model /nonexistent");
  EXPECT_EQ(missing.status, 1);
  EXPECT_NE(missing.out.find("PROBLEM model"), std::string::npos) << missing.out;
  const Outcome unset = run("doctor " + model(), "", "MSA_BACKEND=abacus ");
  EXPECT_EQ(unset.status, 1);
  EXPECT_NE(unset.out.find("Unset MSA_BACKEND"), std::string::npos) << unset.out;
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

}  // namespace
}  // namespace msa::cli::testing
