// The runner's public face: read a MiniMax-M3 text model from a Hugging Face folder, feed it tokens
// in chunks through paged caches, and generate.
//
//   auto model = Model::load(context, "models/msa-mini");
//   Decoder decoder(model, {.max_tokens = 65536});
//   decoder.append(model->tokenizer().encode("..."));
//   Generated answer = generate(decoder, {.max_new_tokens = 32});
//
// Everything throws msa::Error with one line that names what was got and what is allowed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "msa/msa.h"
#include "runner/config.h"
#include "runner/tokenizer.h"

namespace msa::runner {

struct ModelOptions {
  /// Type of the packed linear layers. kFloat32 is exact for float32 and bfloat16 files and the
  /// faster one on most CPUs; kBFloat16 halves the memory and is refused where the CPU has no
  /// bfloat16 products.
  DType linear_dtype = DType::kFloat32;
  /// false: tokenizer.json is not read, and tokenizer() throws.
  bool with_tokenizer = true;
};

/// Weights, configuration and tokenizer: immutable after load, shared by any number of decoders.
class Model {
 public:
  /// Reads config.json, *.safetensors and tokenizer.json from a folder. Tensors are checked against
  /// the configuration one by one: a missing, misshapen or extra one is an error.
  static std::shared_ptr<const Model> load(const Context& context,
                                           const std::filesystem::path& folder,
                                           const ModelOptions& options = {});
  virtual ~Model() = default;

  virtual const Context& context() const = 0;
  virtual const ModelConfig& config() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;
  virtual int64_t num_parameters() const = 0;
  virtual size_t weight_bytes() const = 0;  ///< in memory, as packed for the linear layers
};

enum class AttentionMode {
  kSparse,  ///< as the configuration says for each layer
  kDense,   ///< every layer attends to all visible tokens; no selection
};

/// Sees, and may overwrite, the block ids of one layer after the index branch chose them and before
/// attention reads them. `ids` is int32 [Hkv, num_tokens, K] for the tokens at positions
/// first_position ... first_position + num_tokens - 1.
using SelectionHook = std::function<void(int64_t layer, int64_t first_position, int64_t num_tokens,
                                         const MutableTensor& ids)>;

/// What one sparse layer's attention reads for the tokens at positions first_position ...
/// first_position + num_tokens - 1. Valid during the call.
struct SelectionView {
  int64_t layer = 0;
  int64_t first_position = 0;
  int64_t num_tokens = 0;
  Tensor q;           ///< float32 [num_tokens, Hq, D], after norm and RoPE
  Tensor k;           ///< [num_pages, B, Hkv, D], the tokens themselves included
  Tensor page_table;  ///< int32 [1, pages]
  Tensor block_ids;   ///< int32 [Hkv, num_tokens, K], as a selection hook left them
};
using SelectionProbe = std::function<void(const SelectionView&)>;

/// Gets logits float32 [num_tokens, vocab] of the tokens from first_position on; called one or more
/// times for each chunk, in order of position.
using LogitsSink =
    std::function<void(int64_t first_position, int64_t num_tokens, const float* logits)>;

/// Called after each chunk: tokens done and tokens to do in this append.
using Progress = std::function<void(int64_t done, int64_t total)>;

struct DecoderOptions {
  AttentionMode attention = AttentionMode::kSparse;
  int64_t max_tokens = 0;       ///< capacity of the caches; at most the model's max position
  int64_t chunk_tokens = 1024;  ///< prefill goes in chunks of this many tokens, rounded up to whole
                                ///< blocks; they end at multiples of it in the sequence
  DType cache_dtype = DType::kBFloat16;  ///< of K, V and index-K; kFloat32 for parity tests
  /// Sees every token of every sparse layer. Without it the last layer is worked out only for the
  /// tokens whose logits are wanted.
  SelectionHook selection_hook = {};
  /// Likewise, but only looks, and sees the queries and keys too.
  SelectionProbe selection_probe = {};
};

/// Where the time of all appends since the last reset went, in microseconds.
struct Timings {
  double index_us = 0;            ///< index_forward
  double attention_us = 0;        ///< attention_forward (selected blocks)
  double dense_attention_us = 0;  ///< dense_attention_forward
  double linear_us = 0;           ///< linear layers
  double other_us = 0;            ///< norms, RoPE, activation, cache writes, embedding
  double total_us() const {
    return index_us + attention_us + dense_attention_us + linear_us + other_us;
  }
};

/// One sequence: its paged K, V and index-K caches and how far it has been read. Not thread-safe;
/// several decoders on one model may run at the same time.
class Decoder {
 public:
  Decoder(std::shared_ptr<const Model> model, DecoderOptions options);
  Decoder(Decoder&&) noexcept;
  Decoder& operator=(Decoder&&) noexcept;
  ~Decoder();

  const Model& model() const;
  const DecoderOptions& options() const;
  /// Reads tokens after those already there: prefill, chunked prefill and decode are all this.
  /// Logits are made for the last token alone unless a sink asks for all. Whatever is thrown, also
  /// by the callbacks, the sequence stays as it was.
  void append(std::span<const int32_t> tokens, const Progress& progress = {},
              const LogitsSink& all_logits = {});
  /// float32 [vocab] for the last token read; throws when a rollback has forgotten it. Valid until
  /// the next append or rollback.
  std::span<const float> logits() const;
  /// Tokens in the caches.
  int64_t length() const;
  /// Forgets all tokens from `length` on; their pages are free again.
  void rollback(int64_t length);
  size_t cache_bytes() const;      ///< taken for K, V and index-K; kept after a rollback
  size_t workspace_bytes() const;  ///< activations and op workspace
  const Timings& timings() const;
  void reset_timings();

 private:
  class State;
  std::unique_ptr<State> state_;
};

struct SamplerOptions {
  float temperature = 0;  ///< 0 is greedy; ties go to the lower token id
  int32_t top_k = 0;      ///< 0: all tokens
  float top_p = 1;        ///< nucleus; 1: all tokens
  uint64_t seed = 0;
};

struct GenerateOptions {
  int64_t max_new_tokens = 128;
  std::vector<int32_t> stop_tokens = {};  ///< ends the text and is not part of it
  SamplerOptions sampler = {};
};

enum class StopReason { kStopToken, kMaxNewTokens, kCacheFull, kCallback };

struct Generated {
  std::vector<int32_t> tokens = {};
  StopReason reason = StopReason::kMaxNewTokens;
};

/// Continues from the decoder's last logits. on_token returns false to stop. The decoder has read
/// every token of the result but the last, and all of them after a stop token.
Generated generate(Decoder& decoder, const GenerateOptions& options,
                   const std::function<bool(int32_t token)>& on_token = {});

}  // namespace msa::runner
