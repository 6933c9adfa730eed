// One sequence: checks, chunks, and what happens to it when something goes wrong in the middle
// (nothing: it goes back to where it was).
#include <algorithm>

#include "runner/files/fail.h"
#include "runner/forward.h"
#include "runner/layers/caches.h"
#include "runner/runner.h"

namespace msa::runner {
namespace {

constexpr const char* kWhat = "decoder";
constexpr int64_t kMaxChunkTokens = 1 << 16;

void check_supported(const Context& context, Op op, const ModelConfig& config, DType dtype) {
  const bool index = op == Op::kIndexForward;
  const bool dense = op == Op::kDenseAttentionForward;
  const Geometry geometry = {.num_q_heads = index ? 0 : config.num_attention_heads,
                             .num_kv_heads = config.num_key_value_heads,
                             .head_dim = index ? config.index_dim : config.head_dim,
                             .block_size = dense ? 0 : config.block_size,
                             .top_k = dense ? 0 : config.top_k};
  const Support support = supports(context, op, geometry, dtype);
  if (!support.supported) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("[{}] {} is not supported by the {} backend: {}", kWhat, op_name(op),
                            backend_name(context.backend()), support.reason));
  }
}

/// Checks the options and rounds the chunk up to whole blocks.
DecoderOptions checked(const Model& model, DecoderOptions options) {
  const ModelConfig& config = model.config();
  require(options.max_tokens >= 1 && options.max_tokens <= config.max_position_embeddings, kWhat,
          "max_tokens is wrong: got {}, allowed 1 to {} (max_position_embeddings)",
          options.max_tokens, config.max_position_embeddings);
  require(options.chunk_tokens >= 1 && options.chunk_tokens <= kMaxChunkTokens, kWhat,
          "chunk_tokens is wrong: got {}, allowed 1 to {}", options.chunk_tokens, kMaxChunkTokens);
  require(options.cache_dtype == DType::kBFloat16 || options.cache_dtype == DType::kFloat32, kWhat,
          "cache_dtype is wrong: got {}, allowed bfloat16, float32",
          dtype_name(options.cache_dtype));
  const int64_t block = config.block_size;
  options.chunk_tokens = (options.chunk_tokens + block - 1) / block * block;
  const bool sparse = options.attention == AttentionMode::kSparse;
  for (LayerKind kind : {LayerKind::kFullAttention, LayerKind::kSparseAttention}) {
    if (std::find(config.layers.begin(), config.layers.end(), kind) == config.layers.end()) {
      continue;
    }
    if (sparse && kind == LayerKind::kSparseAttention) {
      check_supported(model.context(), Op::kIndexForward, config, DType::kFloat32);
      check_supported(model.context(), Op::kAttentionForward, config, DType::kFloat32);
    } else {
      check_supported(model.context(), Op::kDenseAttentionForward, config, DType::kFloat32);
    }
  }
  return options;
}

const LoadedModel& loaded(const Model& model) {
  const auto* result = dynamic_cast<const LoadedModel*>(&model);
  require(result != nullptr, kWhat,
          "the model is of another make: got one that is not from "
          "Model::load, allowed those");
  return *result;
}

}  // namespace

class Decoder::State {
 public:
  State(std::shared_ptr<const Model> shared, DecoderOptions chosen)
      : model(std::move(shared)),
        options(checked(*model, std::move(chosen))),
        caches(model->config(), options.max_tokens, options.cache_dtype,
               options.attention == AttentionMode::kSparse),
        forward(loaded(*model), options) {}

  void check_tokens(std::span<const int32_t> tokens) const {
    require(!tokens.empty(), kWhat, "there is nothing to read: got 0 tokens, allowed 1 or more");
    const int64_t room = options.max_tokens - caches.length();
    require(static_cast<int64_t>(tokens.size()) <= room, kWhat,
            "too many tokens: got {} after {}, allowed {} in all (max_tokens)", tokens.size(),
            caches.length(), options.max_tokens);
    const int64_t vocabulary = model->config().vocab_size;
    for (size_t n = 0; n < tokens.size(); ++n) {
      require(tokens[n] >= 0 && tokens[n] < vocabulary, kWhat,
              "token {} is not in the vocabulary: got id {}, allowed 0 to {}", n, tokens[n],
              vocabulary - 1);
    }
  }

  void read(std::span<const int32_t> tokens, const Progress& progress, const LogitsSink& sink) {
    const int64_t begin = caches.length();
    const auto total = static_cast<int64_t>(tokens.size());
    for (int64_t done = 0; done < total;) {
      // Chunks end at multiples of chunk_tokens in the sequence, so that how a text was cut does
      // not depend on how it was handed over.
      const int64_t position = begin + done;
      const int64_t to_boundary = options.chunk_tokens - position % options.chunk_tokens;
      const int64_t count = std::min(total - done, to_boundary);
      caches.extend(position + count);
      const LogitRows rows = sink                    ? LogitRows::kAll
                             : done + count == total ? LogitRows::kLast
                                                     : LogitRows::kNone;
      forward.run(tokens.subspan(static_cast<size_t>(done), static_cast<size_t>(count)), position,
                  rows, sink, caches);
      done += count;
      if (progress) progress(done, total);
    }
    const float* last = forward.last_logits();
    logits.assign(last, last + model->config().vocab_size);
  }

  std::shared_ptr<const Model> model;
  DecoderOptions options;
  PagedCaches caches;
  Forward forward;
  std::vector<float> logits;  // of the last token read; empty when it was forgotten
};

Decoder::Decoder(std::shared_ptr<const Model> model, DecoderOptions options) {
  require(model != nullptr, kWhat, "there is no model: got a null pointer, allowed Model::load's");
  state_ = std::make_unique<State>(std::move(model), std::move(options));
}
Decoder::Decoder(Decoder&&) noexcept = default;
Decoder& Decoder::operator=(Decoder&&) noexcept = default;
Decoder::~Decoder() = default;

const Model& Decoder::model() const { return *state_->model; }
const DecoderOptions& Decoder::options() const { return state_->options; }

void Decoder::append(std::span<const int32_t> tokens, const Progress& progress,
                     const LogitsSink& all_logits) {
  state_->check_tokens(tokens);
  const int64_t before = state_->caches.length();
  try {
    state_->read(tokens, progress, all_logits);
  } catch (...) {
    state_->caches.truncate(before);
    throw;
  }
}

std::span<const float> Decoder::logits() const {
  require(!state_->logits.empty(), kWhat,
          "there are no logits: got {} tokens and nothing read since a rollback, allowed after "
          "append",
          length());
  return state_->logits;
}

int64_t Decoder::length() const { return state_->caches.length(); }

void Decoder::rollback(int64_t length) {
  require(length >= 0 && length <= this->length(), kWhat,
          "rollback goes outside the sequence: got length {}, allowed 0 to {}", length,
          this->length());
  if (length == this->length()) return;
  state_->caches.truncate(length);
  state_->logits.clear();
}

size_t Decoder::cache_bytes() const { return state_->caches.bytes(); }
size_t Decoder::workspace_bytes() const { return state_->forward.workspace_bytes(); }
const Timings& Decoder::timings() const { return state_->forward.timings(); }
void Decoder::reset_timings() { state_->forward.timings() = {}; }

}  // namespace msa::runner
