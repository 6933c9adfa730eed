// config.json of a MiniMax-M3 text model, in either spelling: the flat keys that Transformers
// writes (index_head_dim, layer_types, rope_parameters) and the published ones (a nested
// sparse_attention_config, rope_theta with rotary_dim). What the runner has no code for is refused
// by the name of the key.
#include "runner/config.h"

#include <algorithm>

#include "runner/files/json.h"

namespace msa::runner {
namespace {

constexpr const char* kWhat = "config";
constexpr uintmax_t kMaxConfigBytes = 1 << 20;
constexpr int64_t kMaxPositions = 4'194'240;

int64_t integer(const Json& object, const char* key, int64_t low, int64_t high) {
  const Json* value = json_member(object, key);
  require(value != nullptr, kWhat, "{} is missing: got none, allowed an integer from {} to {}", key,
          low, high);
  return json_integer(kWhat, key, *value, low, high);
}

double number(const Json& object, const char* key, double low, double high) {
  const Json* value = json_member(object, key);
  require(value != nullptr, kWhat, "{} is missing: got none, allowed a number above {}", key, low);
  return json_number(kWhat, key, *value, low, high);
}

/// A flat key, or else its name in sparse_attention_config.
int64_t sparse_integer(const Json& root, const Json& nested, const char* flat,
                       const char* published, int64_t low, int64_t high) {
  const bool has_nested = json_member(nested, published) != nullptr;
  if (has_nested && json_member(root, flat) != nullptr) {
    const int64_t a = integer(root, flat, low, high);
    const int64_t b = integer(nested, published, low, high);
    require(a == b, kWhat, "{} and {} disagree: got {} and {}, allowed one value", flat, published,
            a, b);
  }
  return has_nested ? integer(nested, published, low, high) : integer(root, flat, low, high);
}

/// Refuses a key whose value, where there is one, is not the only one that the runner has.
void only(const Json& object, const char* key, const Json& allowed) {
  const Json* value = json_member(object, key);
  if (value == nullptr || *value == allowed) return;
  fail(kWhat, "{} is not supported: got {}, allowed {}", key, describe_json(*value),
       describe_json(allowed));
}

void refuse_other_models(const Json& root) {
  const Json* type = json_member(root, "model_type");
  require(type != nullptr && json_is(*type, "minimax_m3_vl_text"), kWhat,
          "model_type is not supported: got {}, allowed \"minimax_m3_vl_text\"",
          type == nullptr ? "none" : describe_json(*type));
  if (const Json* list = json_member(root, "architectures")) {
    const bool known =
        list->is_array() && list->size() == 1 && json_is(list->front(), "MiniMaxM3VLForCausalLM");
    require(known, kWhat,
            "architectures is not supported: got {}, allowed [\"MiniMaxM3VLForCausalLM\"]",
            list->is_array() && list->size() == 1 ? describe_json(list->front())
                                                  : describe_json(*list));
  }
  if (const Json* activation = json_member(root, "hidden_act")) {
    // Transformers normalises the published "swigluoai" to "silu"; both mean SwiGLU-OAI here.
    require(json_is(*activation, "silu") || json_is(*activation, "swigluoai"), kWhat,
            "hidden_act is not supported: got {}, allowed \"silu\", \"swigluoai\"",
            describe_json(*activation));
  }
  only(root, "attention_bias", false);
  only(root, "qkv_bias", false);
  only(root, "mlp_bias", false);
  only(root, "use_gemma_norm", true);
  only(root, "use_qk_norm", true);
  only(root, "qk_norm_type", "per_head");
  only(root, "attention_output_gate", false);
  for (const char* key : {"sliding_window", "attention_sinks", "quantization_config",
                          "vision_config", "audio_config"}) {
    const Json* value = json_member(root, key);
    require(value == nullptr, kWhat, "{} is not supported: got {}, allowed none", key,
            value == nullptr ? "" : describe_json(*value));
  }
}

/// One flag a layer, from a list of numbers 0 and 1.
std::vector<bool> layer_flags(const char* key, const Json& list, int64_t num_layers) {
  require(list.is_array() && list.size() == static_cast<size_t>(num_layers), kWhat,
          "{} is wrong: got {}, allowed a list of {} layers", key, describe_json(list), num_layers);
  std::vector<bool> flags;
  for (const Json& value : list) flags.push_back(json_integer(kWhat, key, value, 0, 1) == 1);
  return flags;
}

void refuse_experts(const Json& root, int64_t num_layers) {
  const Json* types = json_member(root, "mlp_layer_types");
  const Json* frequency = json_member(root, "moe_layer_freq");
  std::vector<bool> experts(static_cast<size_t>(num_layers), true);  // what absence of both means
  if (types != nullptr) {
    require(types->is_array() && types->size() == experts.size(), kWhat,
            "mlp_layer_types is wrong: got {}, allowed a list of {} layers", describe_json(*types),
            num_layers);
    for (size_t layer = 0; layer < experts.size(); ++layer) {
      const Json& value = (*types)[layer];
      require(json_is(value, "dense") || json_is(value, "sparse"), kWhat,
              "mlp_layer_types[{}] is not supported: got {}, allowed \"dense\"", layer,
              describe_json(value));
      experts[layer] = json_is(value, "sparse");
    }
  } else if (frequency != nullptr) {
    experts = layer_flags("moe_layer_freq", *frequency, num_layers);
  }
  const auto first = std::find(experts.begin(), experts.end(), true);
  require(first == experts.end(), kWhat,
          "layer {} is a mixture of experts ({}), which the runner does not have: got \"sparse\", "
          "allowed \"dense\" for every layer",
          first - experts.begin(),
          types != nullptr       ? "mlp_layer_types"
          : frequency != nullptr ? "moe_layer_freq"
                                 : "mlp_layer_types is absent");
}

std::vector<LayerKind> read_layers(const Json& root, const Json& nested, int64_t num_layers) {
  std::vector<LayerKind> layers(static_cast<size_t>(num_layers), LayerKind::kFullAttention);
  if (const Json* types = json_member(root, "layer_types")) {
    require(types->is_array() && types->size() == layers.size(), kWhat,
            "layer_types is wrong: got {}, allowed a list of {} layers", describe_json(*types),
            num_layers);
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      const Json& value = (*types)[layer];
      require(json_is(value, "full_attention") || json_is(value, "minimax_m3_sparse"), kWhat,
              "layer_types[{}] is not supported: got {}, allowed \"full_attention\", "
              "\"minimax_m3_sparse\"",
              layer, describe_json(value));
      if (json_is(value, "minimax_m3_sparse")) layers[layer] = LayerKind::kSparseAttention;
    }
  } else if (const Json* frequency = json_member(nested, "sparse_attention_freq")) {
    const std::vector<bool> flags = layer_flags("sparse_attention_freq", *frequency, num_layers);
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      if (flags[layer]) layers[layer] = LayerKind::kSparseAttention;
    }
  }
  return layers;
}

/// Everything about the index branch; only called where a layer has one.
void read_sparse(const Json& root, const Json& nested, ModelConfig& config) {
  only(nested, "use_sparse_attention", true);
  only(nested, "sparse_score_type", "max");
  only(nested, "sparse_init_block", 0);
  only(root, "index_init_blocks", 0);
  const int64_t heads =
      sparse_integer(root, nested, "index_n_heads", "sparse_num_index_heads", 1, 1024);
  require(heads == config.num_key_value_heads, kWhat,
          "index_n_heads is not supported: got {}, allowed num_key_value_heads = {}", heads,
          config.num_key_value_heads);
  config.index_dim = sparse_integer(root, nested, "index_head_dim", "sparse_index_dim", 1, 1024);
  config.block_size =
      sparse_integer(root, nested, "index_block_size", "sparse_block_size", 1, 65536);
  config.top_k = sparse_integer(root, nested, "index_topk_blocks", "sparse_topk_blocks", 1, 4096);
  const int64_t local =
      sparse_integer(root, nested, "index_local_blocks", "sparse_local_block", 0, 4096);
  require(local == 1, kWhat, "index_local_blocks is not supported: got {}, allowed 1", local);
  if (const Json* values = json_member(nested, "sparse_disable_index_value")) {
    const std::vector<bool> disabled =
        layer_flags("sparse_disable_index_value", *values, config.num_hidden_layers);
    for (size_t layer = 0; layer < disabled.size(); ++layer) {
      require(disabled[layer] || config.layers[layer] == LayerKind::kFullAttention, kWhat,
              "sparse_disable_index_value[{}] is not supported: got 0, allowed 1 in a sparse layer",
              layer);
    }
  }
}

/// rope_parameters decides where it is given, as in Transformers; else rope_theta with
/// partial_rotary_factor or rotary_dim beside it.
void read_rope(const Json& root, ModelConfig& config) {
  static const Json kNone = Json::object();
  const Json* parameters = json_member(root, "rope_parameters");
  if (parameters == nullptr) parameters = &kNone;
  require(parameters->is_object(), kWhat, "rope_parameters is wrong: got {}, allowed an object",
          describe_json(*parameters));
  only(*parameters, "rope_type", "default");
  if (const Json* scaling = json_member(root, "rope_scaling")) {
    require(scaling->is_object(), kWhat, "rope_scaling is wrong: got {}, allowed an object",
            describe_json(*scaling));
    only(*scaling, "rope_type", "default");
    only(*scaling, "type", "default");
  }
  const bool has_theta = json_member(*parameters, "rope_theta") != nullptr;
  config.rope_theta = number(has_theta ? *parameters : root, "rope_theta", 1.0, 1e12);
  const char* factor_key = "partial_rotary_factor";
  const bool has_factor = json_member(*parameters, factor_key) != nullptr;
  if (has_factor || json_member(root, factor_key) != nullptr) {
    const double factor = number(has_factor ? *parameters : root, factor_key, 0.0, 1.0);
    config.rotary_dim = static_cast<int64_t>(static_cast<double>(config.head_dim) * factor);
  } else {
    const Json* dim = json_member(root, "rotary_dim");
    config.rotary_dim =
        dim == nullptr ? config.head_dim : json_integer(kWhat, "rotary_dim", *dim, 2, 65536);
  }
  const bool sparse = config.index_dim != 0;
  const int64_t most = sparse ? std::min(config.head_dim, config.index_dim) : config.head_dim;
  require(config.rotary_dim >= 2 && config.rotary_dim % 2 == 0 && config.rotary_dim <= most, kWhat,
          "the rotary dim is wrong: got {}, allowed an even number from 2 to {} (head dim {})",
          config.rotary_dim, most, config.head_dim);
}

}  // namespace

ModelConfig read_config(const std::filesystem::path& folder) {
  return parse_config(read_json_text(kWhat, folder / "config.json", kMaxConfigBytes));
}

ModelConfig parse_config(std::string_view text) {
  const Json root = parse_json_object(kWhat, "config.json", text);
  refuse_other_models(root);
  static const Json kNone = Json::object();
  const Json* nested = json_member(root, "sparse_attention_config");
  if (nested == nullptr) nested = &kNone;
  require(nested->is_object(), kWhat, "sparse_attention_config is wrong: got {}, allowed an object",
          describe_json(*nested));

  ModelConfig config;
  config.model_type = "minimax_m3_vl_text";
  config.vocab_size = integer(root, "vocab_size", 1, 1 << 24);
  config.hidden_size = integer(root, "hidden_size", 1, 65536);
  config.intermediate_size = integer(root, "dense_intermediate_size", 1, 1 << 20);
  config.num_hidden_layers = integer(root, "num_hidden_layers", 1, 1024);
  config.num_attention_heads = integer(root, "num_attention_heads", 1, 1024);
  config.num_key_value_heads = integer(root, "num_key_value_heads", 1, 1024);
  require(config.num_attention_heads % config.num_key_value_heads == 0, kWhat,
          "heads do not form groups: got {} num_attention_heads on {} num_key_value_heads, allowed "
          "a multiple",
          config.num_attention_heads, config.num_key_value_heads);
  config.head_dim = integer(root, "head_dim", 1, 1024);
  config.rms_norm_eps = number(root, "rms_norm_eps", 0.0, 1.0);
  config.max_position_embeddings = integer(root, "max_position_embeddings", 1, kMaxPositions);
  if (const Json* tied = json_member(root, "tie_word_embeddings")) {
    config.tie_word_embeddings = json_bool(kWhat, "tie_word_embeddings", *tied);
  }
  config.swiglu_alpha = number(root, "swiglu_alpha", 0.0, 100.0);
  config.swiglu_limit = number(root, "swiglu_limit", 0.0, 1e6);
  refuse_experts(root, config.num_hidden_layers);
  config.layers = read_layers(root, *nested, config.num_hidden_layers);
  if (std::count(config.layers.begin(), config.layers.end(), LayerKind::kSparseAttention) > 0) {
    read_sparse(root, *nested, config);
  } else {
    config.block_size = 128;  // only the page size of the caches, where no layer selects blocks
  }
  read_rope(root, config);
  return config;
}

}  // namespace msa::runner
