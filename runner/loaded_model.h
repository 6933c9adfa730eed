// The one implementation of Model, for the decoder, which needs the weights.
#pragma once

#include <memory>
#include <optional>

#include "runner/runner.h"
#include "runner/weights.h"

namespace msa::runner {

class LoadedModel final : public Model {
 public:
  LoadedModel(const Context& context, const std::filesystem::path& folder,
              const ModelOptions& options);

  const Context& context() const override { return context_; }
  const ModelConfig& config() const override { return config_; }
  const Tokenizer& tokenizer() const override;
  int64_t num_parameters() const override { return weights_.num_parameters; }
  size_t weight_bytes() const override { return weights_.bytes(); }
  const Weights& weights() const { return weights_; }

 private:
  Context context_;
  ModelConfig config_;
  std::optional<Tokenizer> tokenizer_;
  Weights weights_;
};

}  // namespace msa::runner
