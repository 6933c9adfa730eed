// The weights of a model as the decoder uses them: linear layers packed, the rest float32.
//
// Tensors are found under both sets of names, those that Transformers writes and the published ones
// (docs/runner.md has the table), each with an optional "language_model." in front. Every tensor of
// the configuration must be there with its shape, and no other may be.
#pragma once

#include <filesystem>
#include <vector>

#include "runner/config.h"
#include "runner/layers/linear.h"
#include "runner/layers/memory.h"

namespace msa::runner {

struct LayerWeights {
  std::vector<float> input_norm;           // [hidden]
  std::vector<float> post_attention_norm;  // [hidden]
  std::vector<float> q_norm;               // [D]
  std::vector<float> k_norm;               // [D]
  std::vector<float> index_q_norm;         // [Di], sparse layers only
  std::vector<float> index_k_norm;         // [Di], sparse layers only
  Linear qkv;                              // hidden -> (Hq + 2 Hkv) D
  Linear index;                            // hidden -> (Hkv + 1) Di, sparse layers only
  Linear output;                           // Hq D -> hidden
  Linear gate_up;                          // hidden -> 2 intermediate
  Linear down;                             // intermediate -> hidden
};

struct Weights {
  std::vector<float> embedding;  // [vocab, hidden]
  std::vector<float> final_norm;
  Linear lm_head;  // hidden -> vocab
  std::vector<LayerWeights> layers;
  int64_t num_parameters = 0;

  size_t bytes() const;
};

Weights read_weights(const std::filesystem::path& folder, const ModelConfig& config,
                     DType linear_dtype);

}  // namespace msa::runner
