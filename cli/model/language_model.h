// What the verbs need of a language model: tokens, a document read once, questions asked about it.
// runner_model.cpp makes it from the runner; tests make it from a few lines.
//
// Prompt: <|begin|> document <|user|> question <|assistant|> answer <|end|>. All questions about a
// document are asked from the same caches: after each the reader rolls back to the end of the
// document, so the answer to one never depends on the others.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace msa::cli {

/// Text to tokens and back.
class Codec {
 public:
  virtual ~Codec() = default;
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
};

struct SpecialTokens {
  int32_t begin = 0;
  int32_t user = 0;
  int32_t assistant = 0;
  int32_t end = 0;
};

struct ModelShape {
  int64_t num_layers = 0;
  int64_t num_groups = 0;  ///< Hkv
  int64_t block_size = 0;  ///< B
  int64_t top_k = 0;       ///< K
  int64_t max_tokens = 0;  ///< max position
};

/// Block ids that each (layer, group) read for one token: reads[layer * num_groups + group].
using BlockReads = std::vector<std::vector<int32_t>>;

/// Seconds since the document was opened or since the last reset.
struct ReaderTimes {
  double index = 0;
  double attend = 0;
  double dense = 0;
  double linear = 0;
  double other = 0;
  double total() const { return index + attend + dense + linear + other; }
};

struct Answer {
  std::string text;
  bool ended = false;      ///< <|end|> came before the room ran out
  int64_t num_tokens = 0;  ///< decoded, without <|end|>
  BlockReads reads;        ///< of the step that predicts the first answer token; empty when dense
  double decode_seconds = 0;  ///< wall time of those tokens
};

struct ReaderOptions {
  bool dense = false;          ///< attention over all tokens, no selection
  bool random_blocks = false;  ///< a control: random blocks and the local one stand for the choice
  uint64_t random_seed = 0;
  int64_t max_tokens = 0;  ///< room for document, question and answer
};

using TokenProgress = std::function<void(int64_t done, int64_t total)>;

class Reader {
 public:
  virtual ~Reader() = default;
  /// Reads further tokens of the document.
  virtual void read(std::span<const int32_t> tokens, const TokenProgress& progress) = 0;
  /// Asks, answers greedily with at most `max_answer_tokens`, and forgets both.
  virtual Answer ask(std::span<const int32_t> question, int64_t max_answer_tokens) = 0;
  virtual int64_t length() const = 0;
  virtual ReaderTimes times() const = 0;
  virtual void reset_times() = 0;
};

class LanguageModel : public Codec {
 public:
  virtual SpecialTokens special() const = 0;
  virtual ModelShape shape() const = 0;
  virtual std::unique_ptr<Reader> open(const ReaderOptions& options) const = 0;
};

/// <|user|> question <|assistant|>
std::vector<int32_t> question_tokens(const LanguageModel& model, std::string_view question);

/// K random visible blocks for a token at `position`: the local block and K - 1 others, ascending,
/// -1 to the end. A pure function of its arguments.
void random_block_ids(uint64_t seed, int64_t layer, int64_t group, int64_t position,
                      int64_t block_size, std::span<int32_t> ids);

}  // namespace msa::cli
