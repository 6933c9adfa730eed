// Whole small models: against plain loops in double, under both sets of names, and folders that are
// not what their configuration says.
#include <cmath>

#include "runner/runner.h"
#include "tests/runner/plain_model.h"

namespace msa::runner::test {
namespace {

using Logits = std::vector<std::vector<float>>;

Context test_context(Backend backend) { return Context({.backend = backend, .num_threads = 2}); }

std::shared_ptr<const Model> load(const TempFolder& folder, Backend backend,
                                  DType linear_dtype = DType::kFloat32) {
  return Model::load(test_context(backend), folder.path(),
                     {.linear_dtype = linear_dtype, .with_tokenizer = false});
}

Logits all_logits(const std::shared_ptr<const Model>& model, const std::vector<int32_t>& tokens,
                  DecoderOptions options) {
  options.max_tokens = static_cast<int64_t>(tokens.size());
  Decoder decoder(model, options);
  Logits rows;
  const auto vocab = static_cast<size_t>(model->config().vocab_size);
  decoder.append(tokens, {}, [&](int64_t first, int64_t count, const float* logits) {
    EXPECT_EQ(first, static_cast<int64_t>(rows.size()));
    for (int64_t n = 0; n < count; ++n, logits += vocab) rows.emplace_back(logits, logits + vocab);
  });
  EXPECT_EQ(rows.size(), tokens.size());
  const std::span<const float> last = decoder.logits();
  EXPECT_TRUE(std::equal(last.begin(), last.end(), rows.back().begin()));
  return rows;
}

double worst(const Logits& got, const std::vector<std::vector<double>>& wanted) {
  double most = 0;
  for (size_t row = 0; row < got.size(); ++row) {
    for (size_t id = 0; id < got[row].size(); ++id) {
      const double distance = std::abs(static_cast<double>(got[row][id]) - wanted[row][id]);
      if (!(distance <= most)) most = distance;  // a NaN sticks
    }
  }
  return most;
}

class WholeModel : public testing::TestWithParam<Backend> {};

TEST_P(WholeModel, EqualsPlainLoopsInDouble) {
  const TempFolder folder;
  const Json config = tiny_config();
  const TensorMap weights = random_weights(config);
  write_model(folder, config, weights);
  const auto model = load(folder, GetParam());
  const auto tokens = random_tokens(70, 50);  // 18 blocks of 4, of which 3 are read
  for (bool dense : {false, true}) {
    const auto wanted = plain_logits(config, weights, tokens, dense);
    const DecoderOptions options = {
        .attention = dense ? AttentionMode::kDense : AttentionMode::kSparse,
        .cache_dtype = DType::kFloat32};
    EXPECT_LT(worst(all_logits(model, tokens, options), wanted), 2e-4) << dense;
  }
  // The two differ, so the selection did something.
  const auto sparse = plain_logits(config, weights, tokens, false);
  const auto dense = plain_logits(config, weights, tokens, true);
  double apart = 0;
  for (size_t id = 0; id < 50; ++id)
    apart = std::max(apart, std::abs(sparse[69][id] - dense[69][id]));
  EXPECT_GT(apart, 0.01);
}

TEST_P(WholeModel, TiedEmbeddingsAndBFloat16Files) {
  Json config = tiny_config();
  config["tie_word_embeddings"] = true;
  const TensorMap weights = random_weights(config, 3);
  const auto tokens = random_tokens(40, 50);
  const auto wanted = plain_logits(config, weights, tokens, false);
  for (const char* dtype : {"F32", "BF16", "F16"}) {
    const TempFolder folder;
    write_model(folder, config, weights, dtype);
    const auto rows =
        all_logits(load(folder, GetParam()), tokens, {.cache_dtype = DType::kFloat32});
    EXPECT_LT(worst(rows, wanted), 2e-4) << dtype;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, WholeModel, testing::Values(Backend::kReference, Backend::kCpu),
                         [](const auto& one) { return std::string(backend_name(one.param)); });

TEST(Model, PublishedNamesAndShardsGiveTheSameBits) {
  const Json config = tiny_config();
  const TensorMap weights = random_weights(config);
  const auto tokens = random_tokens(30, 50);
  const TempFolder transformers;
  write_model(transformers, config, weights);
  const auto model = load(transformers, Backend::kCpu);
  const Logits wanted = all_logits(model, tokens, {});

  const TempFolder published;
  write_model(published, published_config(config), published_names(weights));
  EXPECT_EQ(all_logits(load(published, Backend::kCpu), tokens, {}), wanted);

  const TempFolder sharded;
  sharded.write("config.json", config.dump());
  TensorMap halves[2];
  Json places;
  for (const auto& [name, tensor] : weights) {
    const size_t half = places.size() % 2;
    halves[half][name] = tensor;
    places[name] = half == 0 ? "model-1.safetensors" : "model-2.safetensors";
  }
  sharded.write("model-1.safetensors", safetensors_bytes(halves[0]));
  sharded.write("model-2.safetensors", safetensors_bytes(halves[1]));
  sharded.write("model.safetensors.index.json", Json{{"weight_map", places}}.dump());
  const auto from_shards = load(sharded, Backend::kCpu);
  EXPECT_EQ(all_logits(from_shards, tokens, {}), wanted);
  EXPECT_EQ(from_shards->num_parameters(), model->num_parameters());
  int64_t elements = 0;
  for (const auto& [name, tensor] : weights) {
    elements += static_cast<int64_t>(tensor.values.size());
  }
  EXPECT_EQ(model->num_parameters(), elements);
  EXPECT_GE(model->weight_bytes(), static_cast<size_t>(elements) * 4);
}

TEST(Model, RefusesTensorsThatDoNotFit) {
  const Json config = tiny_config();
  const TensorMap good = random_weights(config);
  const auto refuse = [&](const TensorMap& weights, const std::vector<std::string>& parts) {
    const TempFolder folder;
    write_model(folder, config, weights);
    expect_error([&] { load(folder, Backend::kReference); }, parts);
  };
  for (const auto& [name, tensor] : good) {
    SCOPED_TRACE(name);
    TensorMap weights = good;
    weights.erase(name);
    refuse(weights, {"[weights]", "missing", name});
    weights = good;
    weights[name].shape.push_back(1);
    refuse(weights, {"[weights]", "wrong shape", name, ", 1]"});
  }
  TensorMap weights = good;
  weights["model.layers.0.self_attn.q_proj.bias"] = {{1}, {0}};
  refuse(weights, {"[weights]", "not part of this architecture", "q_proj.bias"});
  weights = good;
  weights["model.layers.1.block_sparse_moe.gate.weight"] = {{1}, {0}};
  refuse(weights, {"[weights]", "block_sparse_moe.gate.weight"});
  weights = good;
  weights["model.layers.1.self_attn.index_q_proj.weight"] =
      good.at("model.layers.1.self_attn.indexer.q_proj.weight");
  refuse(weights, {"[weights]", "not part of", "index_q_proj"});
}

TEST(Model, RefusesAMissingOrTooLargeTokenizer) {
  const TempFolder folder;
  write_model(folder, tiny_config(), random_weights(tiny_config()));
  const Context context = test_context(Backend::kReference);
  expect_error([&] { Model::load(context, folder.path()); },
               {"[tokenizer]", "cannot read", "tokenizer.json"});
  folder.write("tokenizer.json",
               read_whole(std::filesystem::path(MSA_TEST_FOLDER) / "golden" / "tokenizer.json"));
  expect_error([&] { Model::load(context, folder.path()); },
               {"[model]", "more ids", "got 700", "at most 50"});
  expect_error([&] { load(folder, Backend::kReference)->tokenizer(); },
               {"[model]", "no tokenizer"});
  expect_error([&] { load(folder, Backend::kReference, DType::kFloat16); },
               {"[model]", "linear_dtype", "float16"});
}

TEST(Model, TooLittleMemoryIsNamedInBytes) {
  // Few weights, and caches of 4 MiB a token: more than any machine has.
  Json config = tiny_config();
  config["vocab_size"] = 2;
  config["hidden_size"] = 1;
  config["num_hidden_layers"] = 1;
  config["layer_types"] = {"full_attention"};
  config["mlp_layer_types"] = {"dense"};
  config["num_attention_heads"] = 1024;
  config["num_key_value_heads"] = 1024;
  config["head_dim"] = 1024;
  config["max_position_embeddings"] = 4194240;
  const TempFolder folder;
  write_model(folder, config, random_weights(config));
  const auto model = load(folder, Backend::kCpu);
  const auto create = [&] { Decoder(model, {.max_tokens = 4194240}); };
  expect_error(create, {"[memory]", "caches of 4194240 tokens", "got 17592186044416 bytes"});
  Decoder decoder(model, {.max_tokens = 100});
  decoder.append(std::vector<int32_t>{1});
  EXPECT_EQ(decoder.cache_bytes(), size_t{4} << 20 << 7);  // one page of 128 tokens
}

}  // namespace
}  // namespace msa::runner::test
