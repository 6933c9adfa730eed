// A language model in a few lines for tests of the tool: a token is a piece of at most four bytes
// of one line, and the answer comes from a function of the document and the question. It records
// what it was asked.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/model/language_model.h"

namespace msa::cli::testing {

/// Pieces of text and their ids. Ids 0 to 3 are the special tokens.
class FakeCodec {
 public:
  std::vector<int32_t> encode(std::string_view text) {
    std::vector<int32_t> tokens;
    while (!text.empty()) {
      const size_t line = std::min(text.find('\n'), text.size() - 1) + 1;
      const std::string piece(text.substr(0, std::min<size_t>(4, line)));
      const auto [place, is_new] =
          ids_.try_emplace(piece, kSpecials + static_cast<int>(ids_.size()));
      if (is_new) pieces_.push_back(piece);
      tokens.push_back(place->second);
      text.remove_prefix(piece.size());
    }
    return tokens;
  }
  std::string decode(std::span<const int32_t> ids) const {
    std::string text;
    for (const int32_t id : ids) {
      if (id >= kSpecials) text += pieces_[static_cast<size_t>(id - kSpecials)];
    }
    return text;
  }

 private:
  static constexpr int kSpecials = 4;
  std::map<std::string, int32_t> ids_;
  std::vector<std::string> pieces_;
};

/// document and question as text -> answer
using Oracle = std::function<std::string(const std::string&, const std::string&)>;

struct FakeLog {
  int documents = 0;
  int questions = 0;
  std::vector<std::string> texts;  ///< of the documents opened, as read so far
  std::vector<ReaderOptions> options;
};

class FakeReader : public Reader {
 public:
  FakeReader(const ModelShape& shape, const FakeCodec& codec, Oracle oracle, FakeLog& log,
             const ReaderOptions& options)
      : shape_(shape), codec_(codec), oracle_(std::move(oracle)), log_(log), options_(options) {
    ++log_.documents;
    log_.texts.emplace_back();
    log_.options.push_back(options);
  }

  void read(std::span<const int32_t> tokens, const TokenProgress& progress) override {
    text_ += codec_.decode(tokens);
    length_ += static_cast<int64_t>(tokens.size());
    log_.texts.back() = text_;
    if (progress)
      progress(static_cast<int64_t>(tokens.size()), static_cast<int64_t>(tokens.size()));
  }

  Answer ask(std::span<const int32_t> question, int64_t max_answer_tokens) override {
    ++log_.questions;
    Answer answer;
    answer.text = oracle_(text_, codec_.decode(question));
    answer.ended = true;
    answer.num_tokens =
        std::min(max_answer_tokens, static_cast<int64_t>(answer.text.size() / 4 + 1));
    answer.decode_seconds = 0.001 * static_cast<double>(answer.num_tokens);
    if (!options_.dense) {
      // Layer 0 reads the local block alone; the groups of layer 1 read all blocks.
      const auto local = static_cast<int32_t>(length_ / shape_.block_size);
      for (int64_t row = 0; row < shape_.num_layers * shape_.num_groups; ++row) {
        std::vector<int32_t>& blocks = answer.reads.emplace_back();
        for (int32_t block = row < shape_.num_groups ? local : 0; block <= local; ++block) {
          blocks.push_back(block);
        }
      }
    }
    return answer;
  }

  int64_t length() const override { return length_; }
  /// Linear cost 1 ms a token; dense attention 1 us for each pair of tokens.
  ReaderTimes times() const override {
    const auto tokens = static_cast<double>(length_);
    ReaderTimes times;
    times.linear = 1e-3 * tokens;
    if (options_.dense) {
      times.dense = 1e-6 * tokens * tokens;
    } else {
      times.index = times.attend = 1e-4 * tokens;
    }
    return times;
  }
  void reset_times() override {}

 private:
  ModelShape shape_;
  const FakeCodec& codec_;
  Oracle oracle_;
  FakeLog& log_;
  ReaderOptions options_;
  std::string text_;
  int64_t length_ = 0;
};

class FakeModel : public LanguageModel {
 public:
  explicit FakeModel(Oracle oracle) : oracle_(std::move(oracle)) {}

  std::vector<int32_t> encode(std::string_view text) const override { return codec_.encode(text); }
  std::string decode(std::span<const int32_t> ids) const override { return codec_.decode(ids); }
  SpecialTokens special() const override { return {0, 1, 2, 3}; }
  ModelShape shape() const override { return shape_; }
  std::unique_ptr<Reader> open(const ReaderOptions& options) const override {
    return std::make_unique<FakeReader>(shape_, codec_, oracle_, log_, options);
  }

  ModelShape& shape() { return shape_; }
  FakeLog& log() const { return log_; }

 private:
  ModelShape shape_{
      .num_layers = 2, .num_groups = 2, .block_size = 64, .top_k = 4, .max_tokens = 1 << 20};
  Oracle oracle_;
  mutable FakeCodec codec_;
  mutable FakeLog log_;
};

}  // namespace msa::cli::testing
