#include "runner/weights.h"

#include <algorithm>
#include <set>
#include <string>

#include "runner/files/fail.h"
#include "runner/files/safetensors.h"

namespace msa::runner {
namespace {

constexpr const char* kWhat = "weights";

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// Hands out tensors by name and knows in the end which nobody asked for.
class Source {
 public:
  explicit Source(const std::filesystem::path& folder) : tensors_(TensorFolder::open(folder)) {
    const auto& all = tensors_.tensors();
    const bool prefixed = std::any_of(
        all.begin(), all.end(), [](const auto& entry) { return entry.first.starts_with(kPrefix); });
    if (prefixed) prefix_ = kPrefix;
  }

  bool has(const std::string& name) const { return tensors_.tensors().contains(prefix_ + name); }

  /// The tensor of the first name that is there, appended to `to`. Its shape must be `shape`.
  void append(const std::vector<std::string>& names, const std::vector<int64_t>& shape,
              std::vector<float>& to) {
    const auto found = std::find_if(names.begin(), names.end(),
                                    [this](const std::string& name) { return has(name); });
    require(found != names.end(), kWhat, "a tensor is missing: got no {}, allowed {}",
            prefix_ + names.front(), shape_text(shape));
    const std::string name = prefix_ + *found;
    const StoredTensor& tensor = tensors_.tensors().at(name);
    require(tensor.shape == shape, kWhat, "{} has the wrong shape: got {}, allowed {}", quote(name),
            shape_text(tensor.shape), shape_text(shape));
    require(used_.insert(name).second, kWhat, "{} is wanted twice: got 2, allowed 1", quote(name));
    const std::vector<float> values = to_float32(name, tensor);
    to.insert(to.end(), values.begin(), values.end());
    num_parameters_ += tensor.num_elements();
  }

  std::vector<float> vector(const std::vector<std::string>& names, int64_t size) {
    std::vector<float> values;
    append(names, {size}, values);
    return values;
  }

  void refuse_unused() const {
    std::string first;
    size_t count = 0;
    for (const auto& [name, tensor] : tensors_.tensors()) {
      if (used_.contains(name)) continue;
      if (count++ == 0) first = name;
    }
    require(count == 0, kWhat,
            "{} tensors are not part of this architecture: got {} first, allowed none", count,
            quote(first));
  }

  int64_t num_parameters() const { return num_parameters_; }

 private:
  static constexpr const char* kPrefix = "language_model.";
  TensorFolder tensors_;
  std::string prefix_;
  std::set<std::string> used_;
  int64_t num_parameters_ = 0;
};

LayerWeights read_layer(Source& source, const ModelConfig& config, size_t number, DType dtype) {
  const std::string layer = fmt::format("model.layers.{}.", number);
  const std::string attention = layer + "self_attn.";
  const int64_t hidden = config.hidden_size;
  const int64_t q_rows = config.num_attention_heads * config.head_dim;
  const int64_t kv_rows = config.num_key_value_heads * config.head_dim;
  LayerWeights weights;
  weights.input_norm = source.vector({layer + "input_layernorm.weight"}, hidden);
  weights.post_attention_norm = source.vector({layer + "post_attention_layernorm.weight"}, hidden);
  weights.q_norm = source.vector({attention + "q_norm.weight"}, config.head_dim);
  weights.k_norm = source.vector({attention + "k_norm.weight"}, config.head_dim);

  std::vector<float> rows;
  source.append({attention + "q_proj.weight"}, {q_rows, hidden}, rows);
  source.append({attention + "k_proj.weight"}, {kv_rows, hidden}, rows);
  source.append({attention + "v_proj.weight"}, {kv_rows, hidden}, rows);
  weights.qkv = Linear(rows.data(), q_rows + 2 * kv_rows, hidden, dtype);
  rows.clear();
  source.append({attention + "o_proj.weight"}, {hidden, q_rows}, rows);
  weights.output = Linear(rows.data(), hidden, q_rows, dtype);

  if (config.layers[number] == LayerKind::kSparseAttention) {
    const auto names = [&attention](const std::string& part, const std::string& kind) {
      return std::vector<std::string>{attention + "indexer." + part + "_" + kind + ".weight",
                                      attention + "index_" + part + "_" + kind + ".weight"};
    };
    weights.index_q_norm = source.vector(names("q", "norm"), config.index_dim);
    weights.index_k_norm = source.vector(names("k", "norm"), config.index_dim);
    const int64_t index_rows = config.num_key_value_heads * config.index_dim;
    rows.clear();
    source.append(names("q", "proj"), {index_rows, hidden}, rows);
    source.append(names("k", "proj"), {config.index_dim, hidden}, rows);
    weights.index = Linear(rows.data(), index_rows + config.index_dim, hidden, dtype);
  }

  const std::string mlp = layer + "mlp.";
  const int64_t inner = config.intermediate_size;
  rows.clear();
  if (source.has(mlp + "gate_proj.weight")) {
    source.append({mlp + "gate_proj.weight"}, {inner, hidden}, rows);
    source.append({mlp + "up_proj.weight"}, {inner, hidden}, rows);
  } else {
    source.append({mlp + "gate_up_proj.weight"}, {2 * inner, hidden}, rows);
  }
  weights.gate_up = Linear(rows.data(), 2 * inner, hidden, dtype);
  rows.clear();
  source.append({mlp + "down_proj.weight"}, {hidden, inner}, rows);
  weights.down = Linear(rows.data(), hidden, inner, dtype);
  return weights;
}

}  // namespace

size_t Weights::bytes() const {
  size_t floats = embedding.size() + final_norm.size();
  size_t packed = lm_head.bytes();
  for (size_t n = 0; n < layers.size(); ++n) {
    const LayerWeights& layer = layers[n];
    floats += layer.input_norm.size() + layer.post_attention_norm.size() + layer.q_norm.size() +
              layer.k_norm.size() + layer.index_q_norm.size() + layer.index_k_norm.size();
    packed += layer.qkv.bytes() + layer.output.bytes() + layer.gate_up.bytes() + layer.down.bytes();
    if (!layer.index_q_norm.empty()) packed += layer.index.bytes();
  }
  return floats * sizeof(float) + packed;
}

Weights read_weights(const std::filesystem::path& folder, const ModelConfig& config,
                     DType linear_dtype) {
  Source source(folder);
  Weights weights;
  source.append({"model.embed_tokens.weight"}, {config.vocab_size, config.hidden_size},
                weights.embedding);
  weights.final_norm = source.vector({"model.norm.weight"}, config.hidden_size);
  if (config.tie_word_embeddings) {
    weights.lm_head =
        Linear(weights.embedding.data(), config.vocab_size, config.hidden_size, linear_dtype);
  } else {
    std::vector<float> rows;
    source.append({"lm_head.weight"}, {config.vocab_size, config.hidden_size}, rows);
    weights.lm_head = Linear(rows.data(), config.vocab_size, config.hidden_size, linear_dtype);
  }
  for (size_t layer = 0; layer < config.layers.size(); ++layer) {
    weights.layers.push_back(read_layer(source, config, layer, linear_dtype));
  }
  source.refuse_unused();
  weights.num_parameters = source.num_parameters();
  return weights;
}

}  // namespace msa::runner
