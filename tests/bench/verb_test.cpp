// `msa bench` from outside: the table, JSON and CSV, and what it refuses.
#include <fmt/format.h>

#include "cli/inspect/picks.h"
#include "tests/cli/tool_fixture.h"

namespace msa::cli::testing {
namespace {

using BenchVerb = ToolTest;

/// Seconds at most: some kilobytes of context, once.
constexpr const char* kQuick = "bench --context 512 --queries all 1 --repeats 2 --seconds 0.01 ";

const Json& op_of(const Json& one, const std::string& name) {
  for (const Json& op : one.at("ops")) {
    if (op.at("op") == name) return op;
  }
  throw std::runtime_error("no op " + name);
}

TEST_F(BenchVerb, JsonAndCsvHoldWhatTheTableShows) {
  const std::string command = std::string(kQuick) + "--append --chunk 64 ";
  Outcome outcome = run(command);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  for (const char* part : {"mini: 16 query heads", "roofs", "prefill 512", "decode 1 at 512",
                           "append", "index", "attend", "layer", "dense", "than dense"}) {
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << "\n" << outcome.out;
  }
  outcome = run(command + "--json");
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json json = Json::parse(outcome.out);
  EXPECT_EQ(json.at("format"), "msa-bench-1");
  EXPECT_EQ(json.at("command"),
            "msa bench --context 512 --queries all 1 --chunk 64 --append --repeats 2 --seconds "
            "0.01");
  EXPECT_EQ(json.at("machine").at("threads"), 1);
  EXPECT_GT(json.at("roofs").at("gemm_gflops").at("float32"), 0);
  EXPECT_GT(json.at("roofs").at("read_gbytes_per_second"), 0);
  EXPECT_GT(json.at("roofs").at("read_buffer_bytes"), json.at("machine").at("last_cache_bytes"));
  ASSERT_EQ(json.at("cases").size(), 2u);
  const Json& prefill = json.at("cases")[0];
  EXPECT_EQ(prefill.at("method"), "whole");
  EXPECT_EQ(prefill.at("queries"), 512);
  // The library's own counts: 512 * 513 / 2 visible tokens.
  EXPECT_EQ(op_of(prefill, "dense").at("flop"), 4.0 * 16 * 64 * 512 * 513 / 2);
  EXPECT_EQ(op_of(prefill, "index").at("flop"), 0);  // 8 blocks, of which it keeps 16
  EXPECT_EQ(op_of(prefill, "append").at("flop"), 0);
  // Up to K * B tokens sparse attention is dense attention.
  EXPECT_EQ(op_of(prefill, "attend").at("flop"), op_of(prefill, "dense").at("flop"));
  for (const Json& one : json.at("cases")) {
    for (const Json& op : one.at("ops")) {
      const double seconds = op.at("seconds");
      EXPECT_GT(seconds, 0);
      EXPECT_LE(op.at("least"), seconds);
      EXPECT_GE(op.at("most"), seconds);
      EXPECT_EQ(op.at("all_seconds").size(), op.at("repeats"));
      EXPECT_NEAR(op.at("gflops").get<double>() * seconds * 1e9, op.at("flop").get<double>(),
                  1e-6 * op.at("flop").get<double>());
    }
    EXPECT_NEAR(one.at("times_faster").get<double>(),
                op_of(one, "dense").at("seconds").get<double>() /
                    op_of(one, "layer").at("seconds").get<double>(),
                1e-9);
  }
  outcome = run(command + "--csv");
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 1 + 2 * 5);
  EXPECT_NE(outcome.out.find("\"prefill 512\",\"prefill\",\"whole\",512,512,1,1.0,\"index\","),
            std::string::npos)
      << outcome.out;
}

TEST_F(BenchVerb, SampledIsCalledSampled) {
  const std::string sampled =
      "bench index --context 2K --queries all --chunk 64 --samples 4 "
      "--repeats 1 --seconds 0 --json ";
  Outcome outcome = run(sampled);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json json = Json::parse(outcome.out);
  const Json& one = json.at("cases")[0];
  EXPECT_EQ(one.at("method"), "sampled");
  EXPECT_EQ(one.at("measured_queries"), 256);
  EXPECT_EQ(one.at("queries"), 2048);
  EXPECT_EQ(one.at("tiles").size(), 4u);
  EXPECT_EQ(one.at("tiles")[0].at("weight"), 8);
  EXPECT_EQ(op_of(one, "index").at("flop"), 2.0 * 4 * 64 * (2048 * 2049 - 1024 * 1025) / 2);
  EXPECT_FALSE(one.contains("times_faster"));
  outcome = run(sampled + "--whole");
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json whole = Json::parse(outcome.out);
  EXPECT_EQ(whole.at("cases")[0].at("method"), "whole");
  EXPECT_TRUE(op_of(whole.at("cases")[0], "index").contains("sampling_difference"));
  outcome = run("bench index --context 2K --queries all --chunk 64 --samples 4 --repeats 1");
  EXPECT_NE(outcome.out.find("prefill 2K ~"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("~ sampled: 4 tiles of 64 queries"), std::string::npos);
}

TEST_F(BenchVerb, EveryTypeBackendAndKindOfPicks) {
  const std::string small =
      "--context 256 --queries 3 --repeats 1 --seconds 0 --q-heads 4 --kv-heads 2 --head-dim 16 "
      "--block-size 8 --top-k 4 --csv ";
  for (const std::string backend : {"reference", "cpu"}) {
    for (const std::string type : {"float32", "bfloat16", "float16"}) {
      const Outcome outcome =
          run(fmt::format("bench --picks keep --backend {} --type {} --q-type {} --warm {}",
                          backend, type, type, small));
      EXPECT_EQ(outcome.status, 0) << outcome.err;
      EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 1 + 4) << outcome.out;
    }
  }
  for (const std::string picks : {"index", "random", "sink"}) {
    const Outcome outcome = run(fmt::format("bench attend --no-dense --picks {} {}", picks, small));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("\"attend\""), std::string::npos);
  }
}

TEST_F(BenchVerb, PicksOfAModelAreReadAsTheyAre) {
  // Two groups, three rows at the end of 40 tokens, blocks of 8, top 2.
  const Picks picks = {.block_size = 8,
                       .k_len = 40,
                       .num_groups = 2,
                       .num_rows = 3,
                       .top_k = 2,
                       .layers = {{3, {0, 4, 1, 4, 2, 4, 3, 4, 4, -1, 0, 4}}}};
  const std::vector<std::byte> bytes = picks_bytes(picks);
  folder_->write("real.picks",
                 std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  const std::string command =
      "bench attend --no-dense --picks real.picks --repeats 1 --json --q-heads 4 --kv-heads 2 "
      "--head-dim 16 --block-size 8 ";
  const Outcome outcome = run(command + "--top-k 2");
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json json = Json::parse(outcome.out);
  EXPECT_EQ(json.at("picks").at("kind"), "recorded");
  EXPECT_EQ(json.at("picks").at("layer"), 3);
  // Rows see 6, 7 and 8 tokens of the local block, which all list, and 8 of five others.
  EXPECT_EQ(op_of(json.at("cases")[0], "attend").at("flop"), 4.0 * 2 * 16 * (2 * 21 + 5 * 8));
  expect_refused(command + "--top-k 4", "got picks of 2 KV heads, blocks of 8, top 2");
  expect_refused(command + "--top-k 2 --picks-layer 4", "--picks-layer: got 4, allowed 3 to 3");
}

TEST_F(BenchVerb, SuitesHaveAWeightedMean) {
  folder_->write("suite.csv", "batch,nominal_kv_len,weight\n2,100,30\n4,200,10\n");
  const Outcome outcome = run("bench --suite suite.csv --shape mini --repeats 1 --json");
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json json = Json::parse(outcome.out);
  double mean = 0;
  for (const Json& one : json.at("cases")) {
    mean += one.at("weight").get<double>() / 40 * op_of(one, "layer").at("seconds").get<double>();
  }
  EXPECT_NEAR(json.at("suite").at("weighted_mean_seconds").at("layer").get<double>(), mean, 1e-12);
}

TEST_F(BenchVerb, AFullDiskIsAnError) {
  const Outcome outcome = run(std::string(kQuick) + "--json", "> /dev/full");
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.err, "msa: cannot write to standard output: No space left on device\n");
}

TEST_F(BenchVerb, BadInputIsOneLine) {
  expect_refused("bench fly", "got op 'fly', allowed layer, index, attend, dense, append");
  expect_refused("bench --context 0", "--context: got '0'");
  expect_refused("bench --context 8M", "--context: got '8M'");
  expect_refused("bench --context 1K --queries 2K", "--queries: got 2K, allowed at most the 1024");
  expect_refused("bench --queries many", "--queries: got 'many'");
  expect_refused("bench --q-heads 6", "--q-heads: got 6, allowed multiples of the 4 KV heads");
  expect_refused("bench --shape huge", "got 'huge', allowed mini, production");
  expect_refused("bench --type int8", "got 'int8'");
  expect_refused("bench --picks best", "got 'best', allowed index, random, keep, sink, or a file");
  expect_refused("bench --picks hay.txt --context 1K", "the file has its own context");
  expect_refused("bench --picks hay.txt", "hay.txt");
  expect_refused("bench --picks-layer 1", "allowed with --picks FILE");
  expect_refused("bench --keep 2", "--keep: got '2'");
  expect_refused("bench --backend cuda", "--backend: got cuda, allowed reference, cpu");
  expect_refused("bench --head-dim 12", "head dim 12, allowed multiples of 8");
  expect_refused("bench index --append", "--append: got it with index, allowed with layer");
  expect_refused("bench --suite prefill --context 1K", "allowed alone");
  expect_refused("bench --suite /nonexistent", "/nonexistent: cannot read");
  expect_refused("bench --threads 0", "--threads: got '0'");
  expect_refused("bench --json --csv", "--json, --csv: got both, allowed one of them");
  expect_refused("bench --context 4M --batch 4096 --queries 1", "these shapes need");
}

}  // namespace
}  // namespace msa::cli::testing
