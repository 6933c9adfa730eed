#include "cli/model/runner_model.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

using runner::Decoder;
using runner::Model;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class RunnerReader : public Reader {
 public:
  RunnerReader(std::shared_ptr<const Model> model, const ReaderOptions& options, int32_t end)
      : options_(options),
        end_(end),
        block_size_(model->config().block_size),
        num_layers_(model->config().num_hidden_layers),
        num_groups_(model->config().num_key_value_heads),
        decoder_(std::move(model), decoder_options()) {}
  // The decoder's hook points back here.
  RunnerReader(const RunnerReader&) = delete;
  RunnerReader& operator=(const RunnerReader&) = delete;

  void read(std::span<const int32_t> tokens, const TokenProgress& progress) override {
    decoder_.append(tokens, progress);
  }

  Answer ask(std::span<const int32_t> question, int64_t max_answer_tokens) override {
    const int64_t document = decoder_.length();
    Answer answer;
    watched_ = document + static_cast<int64_t>(question.size()) - 1;
    reads_.assign(static_cast<size_t>(options_.dense ? 0 : num_layers_ * num_groups_), {});
    decoder_.append(question);
    watched_ = -1;
    answer.reads = std::move(reads_);
    runner::GenerateOptions options;
    options.max_new_tokens = max_answer_tokens;
    options.stop_tokens = {end_};
    const auto start = std::chrono::steady_clock::now();
    const runner::Generated generated = generate(decoder_, options);
    answer.decode_seconds = seconds_since(start);
    answer.ended = generated.reason == runner::StopReason::kStopToken;
    answer.num_tokens = static_cast<int64_t>(generated.tokens.size());
    answer.text = decoder_.model().tokenizer().decode(generated.tokens);
    decoder_.rollback(document);
    return answer;
  }

  int64_t length() const override { return decoder_.length(); }

  ReaderTimes times() const override {
    const runner::Timings& t = decoder_.timings();
    return {t.index_us * 1e-6, t.attention_us * 1e-6, t.dense_attention_us * 1e-6,
            t.linear_us * 1e-6, t.other_us * 1e-6};
  }
  void reset_times() override { decoder_.reset_timings(); }

 private:
  runner::DecoderOptions decoder_options() {
    runner::DecoderOptions options;
    options.attention =
        options_.dense ? runner::AttentionMode::kDense : runner::AttentionMode::kSparse;
    options.max_tokens = options_.max_tokens;
    options.selection_hook = [this](int64_t layer, int64_t first, int64_t count,
                                    const MutableTensor& ids) { see(layer, first, count, ids); };
    return options;
  }

  /// Overwrites the choice when the control asks for it, and notes it for the watched token.
  void see(int64_t layer, int64_t first, int64_t count, const MutableTensor& ids) {
    const int64_t top_k = ids.shape[2];
    const auto row = [&](int64_t group, int64_t token) {
      auto* base = static_cast<int32_t*>(ids.data);
      return std::span<int32_t>(base + group * ids.stride[0] + token * ids.stride[1],
                                static_cast<size_t>(top_k));
    };
    for (int64_t group = 0; group < num_groups_; ++group) {
      if (options_.random_blocks) {
        for (int64_t token = 0; token < count; ++token) {
          random_block_ids(options_.random_seed, layer, group, first + token, block_size_,
                           row(group, token));
        }
      }
      if (watched_ < first || watched_ >= first + count) continue;
      std::vector<int32_t>& seen = reads_[static_cast<size_t>(layer * num_groups_ + group)];
      for (const int32_t block : row(group, watched_ - first)) {
        if (block < 0) break;
        seen.push_back(block);
      }
    }
  }

  ReaderOptions options_;
  int32_t end_;
  int64_t block_size_;
  int64_t num_layers_;
  int64_t num_groups_;
  int64_t watched_ = -1;
  BlockReads reads_;
  Decoder decoder_;
};

class RunnerModel : public LanguageModel {
 public:
  explicit RunnerModel(std::shared_ptr<const Model> model) : model_(std::move(model)) {
    special_ = {special_token(*model_, "<|begin|>"), special_token(*model_, "<|user|>"),
                special_token(*model_, "<|assistant|>"), special_token(*model_, "<|end|>")};
  }

  std::vector<int32_t> encode(std::string_view text) const override {
    return model_->tokenizer().encode(text);
  }
  std::string decode(std::span<const int32_t> ids) const override {
    return model_->tokenizer().decode(ids);
  }
  SpecialTokens special() const override { return special_; }
  ModelShape shape() const override {
    const runner::ModelConfig& config = model_->config();
    return {config.num_hidden_layers, config.num_key_value_heads, config.block_size, config.top_k,
            config.max_position_embeddings};
  }
  std::unique_ptr<Reader> open(const ReaderOptions& options) const override {
    return std::make_unique<RunnerReader>(model_, options, special_.end);
  }

 private:
  std::shared_ptr<const Model> model_;
  SpecialTokens special_;
};

}  // namespace

int32_t special_token(const Model& model, std::string_view name) {
  const std::optional<int32_t> id = model.tokenizer().special(name);
  if (!id) {
    throw UsageError(fmt::format(
        "the model's tokenizer.json has no special token {}, which prompts need", name));
  }
  return *id;
}

std::unique_ptr<LanguageModel> make_language_model(std::shared_ptr<const Model> model) {
  return std::make_unique<RunnerModel>(std::move(model));
}

std::shared_ptr<const Model> load_model(const std::filesystem::path& folder) {
  return Model::load(Context(), folder);
}

}  // namespace msa::cli
