#include "tests/runner/fixture.h"

#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>

namespace msa::runner::test {
namespace {

void append_number(std::string& bytes, uint64_t value, int count) {
  for (int i = 0; i < count; ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xFF);
}

/// The upper half of a float32; exact for values made of few bits.
uint64_t element_bits(float value, const std::string& dtype) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (dtype == "F32") return bits;
  if (dtype == "BF16") return bits >> 16;
  if (value == 0) return 0;  // F16, normal numbers only
  const uint32_t exponent = ((bits >> 23) & 0xFF) - 112;
  return ((bits >> 16) & 0x8000) | (exponent << 10) | ((bits >> 13) & 0x3FF);
}

}  // namespace

TempFolder::TempFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "msa-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
  path_ = pattern;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void TempFolder::write(const std::string& name, std::string_view contents) const {
  std::ofstream stream(path_ / name, std::ios::binary);
  stream.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  if (!stream.flush()) throw std::runtime_error("cannot write " + name);
}

std::string read_whole(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + file.string());
  std::ostringstream contents;
  contents << stream.rdbuf();
  return contents.str();
}

std::string safetensors_bytes(const std::string& header, const std::string& data) {
  std::string bytes;
  append_number(bytes, header.size(), 8);
  return bytes + header + data;
}

std::string safetensors_bytes(const TensorMap& tensors, const std::string& dtype) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const size_t begin = data.size();
    for (float value : tensor.values) {
      append_number(data, element_bits(value, dtype), dtype == "F32" ? 4 : 2);
    }
    header[name] = {
        {"dtype", dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  return safetensors_bytes(header.dump(), data);
}

Json tiny_config() {
  return {{"architectures", {"MiniMaxM3VLForCausalLM"}},
          {"model_type", "minimax_m3_vl_text"},
          {"vocab_size", 50},
          {"hidden_size", 24},
          {"dense_intermediate_size", 40},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 16},
          {"hidden_act", "silu"},
          {"swiglu_alpha", 1.702},
          {"swiglu_limit", 7.0},
          {"rms_norm_eps", 1e-6},
          {"max_position_embeddings", 4096},
          {"rope_parameters",
           {{"rope_type", "default"}, {"rope_theta", 10000.0}, {"partial_rotary_factor", 0.5}}},
          {"layer_types", {"full_attention", "minimax_m3_sparse", "minimax_m3_sparse"}},
          {"mlp_layer_types", {"dense", "dense", "dense"}},
          {"index_n_heads", 2},
          {"index_head_dim", 8},
          {"index_block_size", 4},
          {"index_topk_blocks", 3},
          {"index_local_blocks", 1},
          {"tie_word_embeddings", false}};
}

TensorMap random_weights(const Json& config, uint64_t seed) {
  std::mt19937_64 generator(seed);
  TensorMap tensors;
  // Multiples of 1/64 in (-scale, scale) with few bits, so that bfloat16 and float16 hold them too.
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, double scale) {
    int64_t count = 1;
    for (int64_t extent : shape) count *= extent;
    NamedTensor tensor{std::move(shape), {}};
    for (int64_t i = 0; i < count; ++i) {
      const double uniform = static_cast<double>(generator() >> 11) * 0x1p-53;
      const double steps = std::round((2 * uniform - 1) * scale * 64);
      tensor.values.push_back(static_cast<float>(steps / 64));
    }
    tensors[name] = std::move(tensor);
  };
  const auto size = [&config](const char* key) { return config.at(key).get<int64_t>(); };
  const int64_t hidden = size("hidden_size");
  const int64_t inner = size("dense_intermediate_size");
  const int64_t dim = size("head_dim");
  const int64_t num_q = size("num_attention_heads");
  const int64_t num_kv = size("num_key_value_heads");
  add("model.embed_tokens.weight", {size("vocab_size"), hidden}, 1.0);
  add("model.norm.weight", {hidden}, 0.3);
  if (!config.at("tie_word_embeddings").get<bool>()) {
    add("lm_head.weight", {size("vocab_size"), hidden}, 0.6);
  }
  const int64_t num_layers = size("num_hidden_layers");
  for (int64_t n = 0; n < num_layers; ++n) {
    const std::string layer = "model.layers." + std::to_string(n) + ".";
    const std::string attention = layer + "self_attn.";
    add(layer + "input_layernorm.weight", {hidden}, 0.3);
    add(layer + "post_attention_layernorm.weight", {hidden}, 0.3);
    add(attention + "q_proj.weight", {num_q * dim, hidden}, 0.4);
    add(attention + "k_proj.weight", {num_kv * dim, hidden}, 0.4);
    add(attention + "v_proj.weight", {num_kv * dim, hidden}, 0.4);
    add(attention + "o_proj.weight", {hidden, num_q * dim}, 0.3);
    add(attention + "q_norm.weight", {dim}, 0.3);
    add(attention + "k_norm.weight", {dim}, 0.3);
    if (config.at("layer_types").at(static_cast<size_t>(n)) == Json("minimax_m3_sparse")) {
      const int64_t index_dim = size("index_head_dim");
      add(attention + "indexer.q_proj.weight", {num_kv * index_dim, hidden}, 0.4);
      add(attention + "indexer.k_proj.weight", {index_dim, hidden}, 0.4);
      add(attention + "indexer.q_norm.weight", {index_dim}, 0.3);
      add(attention + "indexer.k_norm.weight", {index_dim}, 0.3);
    }
    add(layer + "mlp.gate_up_proj.weight", {2 * inner, hidden}, 0.5);
    add(layer + "mlp.down_proj.weight", {hidden, inner}, 0.3);
  }
  return tensors;
}

TensorMap published_names(const TensorMap& tensors) {
  TensorMap renamed;
  for (const auto& [name, tensor] : tensors) {
    std::string published = "language_model." + name;
    const size_t indexer = published.find("indexer.");
    if (indexer != std::string::npos) published.replace(indexer, 8, "index_");
    const size_t fused = published.find("gate_up_proj");
    if (fused == std::string::npos) {
      renamed[published] = tensor;
      continue;
    }
    const size_t half = tensor.values.size() / 2;
    const auto begin = tensor.values.begin();
    const std::vector<int64_t> shape = {tensor.shape[0] / 2, tensor.shape[1]};
    std::string gate = published;
    std::string up = published;
    gate.replace(fused, 12, "gate_proj");
    up.replace(fused, 12, "up_proj");
    renamed[gate] = {shape, {begin, begin + static_cast<int64_t>(half)}};
    renamed[up] = {shape, {begin + static_cast<int64_t>(half), tensor.values.end()}};
  }
  return renamed;
}

Json published_config(const Json& config) {
  Json published = config;
  Json frequency = Json::array();
  for (const Json& type : config.at("layer_types")) {
    frequency.push_back(type == Json("minimax_m3_sparse") ? 1 : 0);
  }
  published["sparse_attention_config"] = {{"use_sparse_attention", true},
                                          {"sparse_index_dim", config.at("index_head_dim")},
                                          {"sparse_num_index_heads", config.at("index_n_heads")},
                                          {"sparse_topk_blocks", config.at("index_topk_blocks")},
                                          {"sparse_block_size", config.at("index_block_size")},
                                          {"sparse_score_type", "max"},
                                          {"sparse_init_block", 0},
                                          {"sparse_local_block", 1},
                                          {"sparse_attention_freq", frequency}};
  for (const char* key :
       {"index_head_dim", "index_n_heads", "index_topk_blocks", "index_block_size",
        "index_local_blocks", "layer_types", "mlp_layer_types", "rope_parameters"}) {
    published.erase(key);
  }
  published["moe_layer_freq"] = Json::array();
  for (size_t n = 0; n < frequency.size(); ++n) published["moe_layer_freq"].push_back(0);
  published["hidden_act"] = "swigluoai";
  published["rope_theta"] = config.at("rope_parameters").at("rope_theta");
  published["rotary_dim"] = 8;
  return published;
}

void write_model(const TempFolder& folder, const Json& config, const TensorMap& tensors,
                 const std::string& dtype) {
  folder.write("config.json", config.dump());
  folder.write("model.safetensors", safetensors_bytes(tensors, dtype));
}

std::vector<int32_t> random_tokens(int64_t count, int64_t vocabulary, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(generator() % static_cast<uint64_t>(vocabulary)));
  }
  return tokens;
}

void expect_error(const std::function<void()>& body, const std::vector<std::string>& parts) {
  try {
    body();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_EQ(message.find('['), 0u) << message;
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks: " << part;
    }
    return;
  }
  ADD_FAILURE() << "nothing was thrown; wanted: " << (parts.empty() ? "" : parts.front());
}

}  // namespace msa::runner::test
