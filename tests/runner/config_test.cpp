// config.json in both spellings, and everything that is refused by name.
#include "runner/config.h"

#include "tests/runner/fixture.h"

namespace msa::runner::test {
namespace {

ModelConfig read(const Json& config) {
  const TempFolder folder;
  folder.write("config.json", config.dump());
  return read_config(folder.path());
}

void expect_tiny(const ModelConfig& config) {
  EXPECT_EQ(config.model_type, "minimax_m3_vl_text");
  EXPECT_EQ(config.vocab_size, 50);
  EXPECT_EQ(config.hidden_size, 24);
  EXPECT_EQ(config.intermediate_size, 40);
  EXPECT_EQ(config.num_hidden_layers, 3);
  EXPECT_EQ(config.num_attention_heads, 4);
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rotary_dim, 8);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.max_position_embeddings, 4096);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.swiglu_alpha, 1.702);
  EXPECT_EQ(config.swiglu_limit, 7.0);
  EXPECT_EQ(config.index_dim, 8);
  EXPECT_EQ(config.block_size, 4);
  EXPECT_EQ(config.top_k, 3);
  EXPECT_EQ(config.layers,
            (std::vector<LayerKind>{LayerKind::kFullAttention, LayerKind::kSparseAttention,
                                    LayerKind::kSparseAttention}));
}

TEST(Config, ReadsBothSpellings) {
  expect_tiny(read(tiny_config()));
  expect_tiny(read(published_config(tiny_config())));
}

TEST(Config, RotaryDimComesFromRopeParametersFirst) {
  Json config = tiny_config();
  config["rotary_dim"] = 16;  // what Transformers leaves at its default and does not read
  EXPECT_EQ(read(config).rotary_dim, 8);
  config["rope_parameters"].erase("partial_rotary_factor");
  config["rotary_dim"] = 4;
  EXPECT_EQ(read(config).rotary_dim, 4);
}

TEST(Config, AModelOfFullAttentionNeedsNoIndex) {
  Json config = tiny_config();
  config["layer_types"] = {"full_attention", "full_attention", "full_attention"};
  for (const char* key : {"index_n_heads", "index_head_dim", "index_block_size",
                          "index_topk_blocks", "index_local_blocks"}) {
    config.erase(key);
  }
  const ModelConfig read_back = read(config);
  EXPECT_EQ(read_back.index_dim, 0);
  EXPECT_GT(read_back.block_size, 0);
}

struct BadConfig {
  const char* name;
  bool published;
  const char* patch;  // RFC 7386 merge patch
  std::vector<std::string> parts;
};

TEST(Config, RefusesByName) {
  const BadConfig cases[] = {
      {"type", false, R"({"model_type": "llama"})", {"model_type", "\"llama\""}},
      {"no type", false, R"({"model_type": null})", {"model_type", "got none"}},
      {"architecture",
       false,
       R"({"architectures": ["LlamaForCausalLM"]})",
       {"architectures", "LlamaForCausalLM"}},
      {"activation", false, R"({"hidden_act": "gelu"})", {"hidden_act", "\"gelu\""}},
      {"bias", false, R"({"attention_bias": true})", {"attention_bias", "got true"}},
      {"window", false, R"({"sliding_window": 4096})", {"sliding_window", "got 4096"}},
      {"quantised", false, R"({"quantization_config": {"bits": 4}})", {"quantization_config"}},
      {"vision", false, R"({"vision_config": {"a": 4}})", {"vision_config"}},
      {"norm", false, R"({"use_gemma_norm": false})", {"use_gemma_norm", "got false"}},
      {"experts",
       false,
       R"({"mlp_layer_types": ["dense", "sparse", "dense"]})",
       {"layer 1", "mixture of experts", "mlp_layer_types"}},
      {"experts by absence",
       false,
       R"({"mlp_layer_types": null})",
       {"layer 0", "mixture of experts", "absent"}},
      {"experts published",
       true,
       R"({"moe_layer_freq": [0, 0, 1]})",
       {"layer 2", "mixture of experts", "moe_layer_freq"}},
      {"mlp kind",
       false,
       R"({"mlp_layer_types": ["dense", "gated", "dense"]})",
       {"mlp_layer_types[1]", "\"gated\""}},
      {"layer kind",
       false,
       R"({"layer_types": ["full_attention", "linear_attention", "full_attention"]})",
       {"layer_types[1]", "\"linear_attention\""}},
      {"layer count",
       false,
       R"({"layer_types": ["full_attention"]})",
       {"layer_types", "list of 3 layers"}},
      {"layer string", false, R"({"layer_types": "full_attention"})", {"layer_types"}},
      {"index heads",
       false,
       R"({"index_n_heads": 4})",
       {"index_n_heads", "got 4", "num_key_value_heads = 2"}},
      {"local", false, R"({"index_local_blocks": 2})", {"index_local_blocks", "got 2"}},
      {"no local", false, R"({"index_local_blocks": 0})", {"index_local_blocks", "got 0"}},
      {"init",
       true,
       R"({"sparse_attention_config": {"sparse_init_block": 1}})",
       {"sparse_init_block", "got 1"}},
      {"score",
       true,
       R"({"sparse_attention_config": {"sparse_score_type": "mean"}})",
       {"sparse_score_type", "\"mean\"", "\"max\""}},
      {"disagree", true, R"({"index_topk_blocks": 5})", {"disagree", "5", "3"}},
      {"freq",
       true,
       R"({"sparse_attention_config": {"sparse_attention_freq": [1, 1]}})",
       {"sparse_attention_freq", "3 layers"}},
      {"freq value",
       true,
       R"({"sparse_attention_config": {"sparse_attention_freq": [1, 1, 2]}})",
       {"sparse_attention_freq", "got 2"}},
      {"index value",
       true,
       R"({"sparse_attention_config": {"sparse_disable_index_value": [0, 1, 0]}})",
       {"sparse_disable_index_value[2]"}},
      {"sparse off",
       true,
       R"({"sparse_attention_config": {"use_sparse_attention": false}})",
       {"use_sparse_attention"}},
      {"rope type",
       false,
       R"({"rope_parameters": {"rope_type": "yarn"}})",
       {"rope_type", "\"yarn\""}},
      {"scaling",
       false,
       R"({"rope_scaling": {"type": "linear", "factor": 2}})",
       {"type", "\"linear\""}},
      {"theta", false, R"({"rope_parameters": {"rope_theta": 0}})", {"rope_theta", "got 0"}},
      {"no theta",
       false,
       R"({"rope_parameters": {"rope_theta": null}})",
       {"rope_theta", "missing"}},
      {"factor",
       false,
       R"({"rope_parameters": {"partial_rotary_factor": 1.5}})",
       {"partial_rotary_factor", "got 1.5"}},
      {"rotary odd", true, R"({"rotary_dim": 7})", {"rotary dim", "got 7"}},
      {"rotary wide", true, R"({"rotary_dim": 12})", {"rotary dim", "got 12", "to 8"}},
      {"vocab", false, R"({"vocab_size": 0})", {"vocab_size", "got 0"}},
      {"no vocab", false, R"({"vocab_size": null})", {"vocab_size", "missing"}},
      {"string", false, R"({"hidden_size": "24"})", {"hidden_size", "\"24\""}},
      {"fraction", false, R"({"hidden_size": 24.5})", {"hidden_size", "24.5"}},
      {"negative", false, R"({"num_hidden_layers": -3})", {"num_hidden_layers", "got -3"}},
      {"huge", false, R"({"num_hidden_layers": 100000})", {"num_hidden_layers", "100000"}},
      {"groups", false, R"({"num_attention_heads": 5})", {"groups", "5", "2"}},
      {"positions",
       false,
       R"({"max_position_embeddings": 99999999})",
       {"max_position_embeddings", "4194240"}},
      {"tied", false, R"({"tie_word_embeddings": 1})", {"tie_word_embeddings", "got 1"}},
      {"eps", false, R"({"rms_norm_eps": 0})", {"rms_norm_eps"}},
      {"alpha", false, R"({"swiglu_alpha": "x"})", {"swiglu_alpha"}},
      {"no mlp", false, R"({"dense_intermediate_size": null})", {"dense_intermediate_size"}},
      {"nested", false, R"({"sparse_attention_config": [1]})", {"sparse_attention_config"}},
      {"rope list", false, R"({"rope_parameters": [1]})", {"rope_parameters"}},
  };
  for (const BadConfig& bad : cases) {
    SCOPED_TRACE(bad.name);
    Json config = bad.published ? published_config(tiny_config()) : tiny_config();
    config.merge_patch(Json::parse(bad.patch));
    std::vector<std::string> parts = bad.parts;
    parts.push_back("[config]");
    expect_error([&] { read(config); }, parts);
  }
}

TEST(Config, SurvivesRandomDamage) {
  const std::string good = published_config(tiny_config()).dump();
  const TempFolder folder;
  uint64_t state = 1;
  int refused = 0;
  for (int round = 0; round < 500; ++round) {
    std::string bytes = good;
    state = state * 6364136223846793005u + 1442695040888963407u;
    bytes[(state >> 33) % bytes.size()] = static_cast<char>(state >> 25);
    folder.write("config.json", bytes);
    try {
      const ModelConfig config = read_config(folder.path());
      EXPECT_EQ(config.layers.size(), static_cast<size_t>(config.num_hidden_layers));
      EXPECT_LE(config.rotary_dim, config.head_dim);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 300);
}

TEST(Config, RefusesBrokenFiles) {
  const TempFolder folder;
  expect_error([&] { read_config(folder.path()); }, {"[config]", "cannot read"});
  folder.write("config.json", "");
  expect_error([&] { read_config(folder.path()); }, {"[config]", "not JSON"});
  folder.write("config.json", "{\"vocab_size\": 1e999}");
  expect_error([&] { read_config(folder.path()); }, {"[config]", "out of range"});
  folder.write("config.json", std::string(2 << 20, ' '));
  expect_error([&] { read_config(folder.path()); }, {"[config]", "too large"});
}

}  // namespace
}  // namespace msa::runner::test
