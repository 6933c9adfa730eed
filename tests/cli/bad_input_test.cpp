// What a person may get wrong: each is one line that names what was got and what is allowed, status
// 2, and nothing on standard output.
#include <fmt/format.h>

#include "tests/cli/tool_fixture.h"

namespace msa::cli::testing {
namespace {

using BadInput = ToolTest;

TEST_F(BadInput, BadArgumentsAreOneLine) {
  expect_refused("", "allowed demo, run, eval, inspect, info, doctor, verify, bench");
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
  expect_refused("eval tracking --phrasings-file x", "allowed with needle and multikey");
  expect_refused("eval needle --phrasings heldout --phrasings-file x", "--phrasings");
  expect_refused("eval needle --distractors 5", "allowed with multikey");
  expect_refused("eval needle --documents 0", "--documents: got '0'");
  expect_refused("run --temperature 0 --top-p 0.5 --prompt x", "--temperature");
  expect_refused("run --temperature nan --prompt x", "got 'nan'");
  expect_refused("run --prompt x --prompt-file y", "several prompts");
  expect_refused("run --question x", "both together");
  expect_refused("inspect --prompt x --prompt-file y", "got two prompts");
  expect_refused("inspect --prompt x --length 8K", "got them with a prompt");
  expect_refused("inspect --prompt x --png /nonexistent/x.png", "--png: cannot write /nonexistent");
  expect_refused("inspect --prompt x --picks '" + folder_->path().string() + "'",
                 "--picks: cannot");
  expect_refused("inspect " + model() + "--prompt ''", "empty prompt");
  expect_refused("inspect " + model() + "--prompt x --layer 7", "--layer: got 7");
  expect_refused("inspect " + hay() + "--length 1", "--length: got 1 tokens");
  expect_refused("info --model /nonexistent", "got '/nonexistent'");
  expect_refused("info --model '" + path("hay.txt") + "'", "allowed a folder");
}

TEST_F(BadInput, BadFilesAreNamed) {
  expect_refused("demo " + model() + "--file /nonexistent", "/nonexistent: cannot read");
  expect_refused("demo " + model() + "--file '" + folder_->path().string() + "'",
                 "got a directory");
  expect_refused("demo " + model() + "--file '" + path("nul.txt") + "'", "NUL byte at offset 1");
  expect_refused("demo " + model() + "--file '" + path("latin1.txt") + "'",
                 "byte 0xE9 at offset 3");
  expect_refused("demo " + model() + "--file '" + path("empty.txt") + "'", "haystack is empty");
  expect_refused("eval needle " + hay() + "--facts-file '" + path("empty.txt") + "'", "no facts");
  const auto phrasings = [&](const std::string& text, const std::string& error) {
    folder_->write("forms.json", text);
    expect_refused("eval needle " + hay() + "--phrasings-file '" + path("forms.json") + "'", error);
  };
  phrasings("{", "got no phrasings");
  phrasings(R"({"forms": []})", "got no phrasings");
  phrasings(R"({"forms": [{"id": "a", "fact": "{key} {value}"}]})", "without the text 'question'");
  phrasings(R"({"forms": [{"id": "a", "fact": "{key}", "question": "{key}"}]})", "{value} once");
  phrasings(R"({"forms": [{"id": "a", "fact": "{key} {value}", "question": "?"}]})", "with {key}");
  expect_refused("run " + model() + "--prompt ''", "empty prompt");
  expect_refused("run " + model() + "< /dev/null", "standard input: got an empty prompt");
  expect_refused("run " + model() + "--prompt \"$(printf 'a\\377')\"", "byte 0xFF");
}

TEST_F(BadInput, BadFactsAreNamed) {
  expect_refused("demo " + hay() + "--fact 'door code 4711'", "got no '='");
  expect_refused("demo " + hay() + "--fact ' = 4711'", "empty key");
  expect_refused("demo " + hay() + "--fact 'door ='", "empty value");
  expect_refused("demo " + hay() + "--fact 'a = 1' --fact 'a = 2'", "given before");
  expect_refused("demo " + hay() + "--fact \"$(printf 'a = b\\tc')\"", "control character");
  expect_refused("demo " + hay() + "--fact 'a = " + std::string(200, 'x') + "'", "allowed");
  expect_refused("demo " + hay() + "--length 1 --fact 'a = 1'", "--length: got 1 tokens");
}

/// A model of one fault: what `change` does to its configuration, weights and tokenizer.
struct ModelParts {
  Json config;
  runner::test::TensorMap weights;
  Json tokenizer;
};

TEST_F(BadInput, BrokenModelsAreNamed) {
  const ModelParts good = {
      .config = Json::parse(read_whole(path("config.json"))),
      .weights = runner::test::random_weights(Json::parse(read_whole(path("config.json")))),
      .tokenizer = Json::parse(read_whole(path("tokenizer.json")))};
  const runner::test::TempFolder broken;
  const auto refuse = [&](auto change, const std::string& part) {
    ModelParts parts = good;
    change(parts);
    runner::test::write_model(broken, parts.config, parts.weights);
    broken.write("tokenizer.json", parts.tokenizer.dump());
    for (const std::string verb : {"info", "demo", "eval needle", "run --prompt x"}) {
      expect_refused(verb + " --model '" + broken.path().string() + "'", part);
    }
  };
  const std::string first = good.weights.begin()->first;
  refuse([](ModelParts& m) { m.config["model_type"] = "llama"; }, "got \"llama\", allowed");
  refuse([](ModelParts& m) { m.config["hidden_act"] = "gelu"; }, "got \"gelu\", allowed \"silu\"");
  refuse([](ModelParts& m) { m.config["mlp_layer_types"][1] = "sparse"; }, "mixture of experts");
  refuse([](ModelParts& m) { m.config["hidden_size"] = -1; }, "hidden_size is wrong: got -1");
  refuse([](ModelParts& m) { m.config.erase("head_dim"); }, "head_dim is missing");
  refuse([&](ModelParts& m) { m.weights.erase(first); }, "a tensor is missing: got no " + first);
  refuse([&](ModelParts& m) { m.weights[first].shape.push_back(1); }, "has the wrong shape");
  refuse([](ModelParts& m) { m.weights["extra"] = {{1}, {0}}; }, "not part of this architecture");
  refuse([](ModelParts& m) { m.tokenizer["model"]["type"] = "WordPiece"; },
         "got \"WordPiece\", allowed BPE");
  refuse([](ModelParts& m) { m.tokenizer["normalizer"] = {{"type", "NFC"}}; }, "normalizer");
}

TEST_F(BadInput, WeightFilesThatLieAreNamed) {
  const runner::test::TempFolder broken;
  broken.write("config.json", read_whole(path("config.json")));
  broken.write("tokenizer.json", read_whole(path("tokenizer.json")));
  const std::string info = "info --model '" + broken.path().string() + "'";
  expect_refused(info, "has no weights");
  const auto refuse = [&](const std::string& bytes, const std::string& part) {
    broken.write("model.safetensors", bytes);
    expect_refused(info, part);
  };
  const std::string whole = read_whole(path("model.safetensors"));
  refuse("", "is truncated: got 0 bytes");
  refuse(whole.substr(0, 100), "wrong header length");
  refuse(whole.substr(0, whole.size() - 1), "data_offsets[1] is wrong");
  refuse(whole + "x", "data that no tensor owns");
  refuse(std::string(8, '\xFF') + whole, "wrong header length: got 18446744073709551615");
  const auto header = [](const std::string& dtype, const std::string& shape) {
    return runner::test::safetensors_bytes(
        R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[0,4]}})",
        std::string(4, '\0'));
  };
  refuse(header("F7", "[1]"), "unknown dtype: got \"F7\"");
  refuse(header("F32", "[2]"), "wrong size: got 4 bytes of data_offsets, allowed 8");
  refuse(header("F32", "[4611686018427387904,4]"), "shape is wrong");
}

TEST_F(BadInput, PositionsOfTheModelAreTheLimit) {
  const runner::test::TempFolder small;
  Json config = Json::parse(read_whole(path("config.json")));
  config["max_position_embeddings"] = 512;
  small.write("config.json", config.dump());
  for (const std::string name : {"model.safetensors", "tokenizer.json"}) {
    small.write(name, read_whole(path(name)));
  }
  const std::string with = " --model '" + small.path().string() + "' ";
  expect_refused("demo" + with + "--length 1K", "got 1024 tokens, allowed at most 512");
  expect_refused("eval needle" + with + "--length 1K", "got 1024 tokens, allowed at most 512");
  expect_refused("run" + with + "--prompt-file hay.txt", "allowed at most 512 together");
  expect_refused("run" + with + "--prompt x --max-new-tokens 512", "allowed at most 512 together");
}

TEST_F(BadInput, OneLineWhateverTheNames) {
  expect_refused("demo " + model() + "--file \"$(printf 'no\\nsuch\\033file')\"",
                 "no\\x0Asuch\\x1Bfile: cannot read");
  expect_refused("run " + model() + "--prompt-file /dev/zero", "got more than 268435456 bytes");
  expect_refused("run " + model() + "--document empty.txt --question x", "got an empty document");
  folder_->write("surrogate.txt", "\xED\xA0\x80");
  expect_refused("run " + model() + "--prompt-file surrogate.txt", "byte 0xED at offset 0");
  folder_->write("cut.txt", "caf\xC3");
  expect_refused("run " + model() + "--prompt-file cut.txt", "byte 0xC3 at offset 3");
}

TEST_F(BadInput, TooLittleMemoryIsOneLine) {
  if (run("--version", "> out", "ulimit -v 2097152 && ").status != 0) {
    GTEST_SKIP() << "2 GB do not hold this program at all: sanitizers map terabytes";
  }
  // From too little to load the program (127, by the shell's loader) up to enough.
  // As JSON: text that was streamed before memory ran out is no fault.
  int refused = 0;
  int status = -1;
  for (int megabytes = 32; status != 0; megabytes += 8) {
    ASSERT_LT(megabytes, 2048);
    // Two threads: OpenMP must not be what finds that there is no room for the second.
    const std::string limit = fmt::format("ulimit -v {} && MSA_THREADS=2 ", megabytes * 1024);
    const Outcome outcome =
        run("run --json " + model() + "--prompt-file hay.txt --max-new-tokens 4", "> out", limit);
    status = outcome.status;
    if (status == 0 || status == 127) continue;
    ++refused;
    EXPECT_EQ(status, 2) << megabytes << " MB: " << outcome.err;
    EXPECT_EQ(outcome.out, "") << megabytes << " MB";
    EXPECT_EQ(outcome.err.rfind("msa: ", 0), 0u) << megabytes << " MB: " << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
  EXPECT_GT(refused, 0);
}

TEST_F(BadInput, AFullDiskOrAClosedPipeIsAnError) {
  const std::string line = "msa: cannot write to standard output: No space left on device\n";
  const std::string small = hay() + "--length 1K --seed 1 ";
  for (const std::string& command :
       {std::string("--help"), std::string("--version"), "info " + model() + "--json",
        "demo " + small + "--json", "demo " + small, "eval needle " + small + "--facts 2 --json",
        "run " + model() + "--prompt x --max-new-tokens 50",
        "run " + model() + "--prompt x --json"}) {
    const Outcome full = run(command, "> /dev/full");
    EXPECT_EQ(full.status, 2) << command;
    EXPECT_EQ(full.err, line) << command;
  }
  const Outcome closed = run("info " + model(), ">&-");
  EXPECT_EQ(closed.status, 2);
  EXPECT_EQ(closed.err, "msa: cannot write to standard output: Bad file descriptor\n");
  // `true` leaves at once, while the model goes on writing.
  const std::string command = "cd '" + folder_->path().string() + "' && { '" MSA_TOOL "' run " +
                              model() + "--prompt x --max-new-tokens 2000 2> err; " +
                              "echo $? > status; } | true";
  ASSERT_EQ(std::system(command.c_str()), 0);  // NOLINT(bugprone-command-processor)
  EXPECT_EQ(read_whole(path("status")), "2\n");
  EXPECT_EQ(read_whole(path("err")), "msa: cannot write to standard output: Broken pipe\n");
}

}  // namespace
}  // namespace msa::cli::testing
