// What the runner takes from a model folder's config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace msa::runner {

enum class LayerKind { kFullAttention, kSparseAttention };

/// MiniMax-M3 text model; names as in the published configuration.
struct ModelConfig {
  std::string model_type;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;  // Hq
  int64_t num_key_value_heads = 0;  // Hkv
  int64_t head_dim = 0;             // D
  int64_t rotary_dim = 0;           // first dims that RoPE turns
  double rope_theta = 0;
  double rms_norm_eps = 0;
  int64_t max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  double swiglu_alpha = 0;  // 1.702
  double swiglu_limit = 0;  // 7
  int64_t index_dim = 0;    // Di
  int64_t block_size = 0;   // B
  int64_t top_k = 0;        // K
  std::vector<LayerKind> layers;
};

/// Reads and checks folder/config.json; refuses by name what the runner does not have.
ModelConfig read_config(const std::filesystem::path& folder);
/// The same of the file's text: the entry that fuzzing drives.
ModelConfig parse_config(std::string_view text);

}  // namespace msa::runner
