// Byte-level BPE from a Hugging Face tokenizer.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace msa::runner {

class Tokenizer {
 public:
  /// Reads and checks a tokenizer.json; what it uses beyond byte-level BPE is refused by name.
  static Tokenizer load(const std::filesystem::path& file);
  /// The same of the file's text: the entry that fuzzing drives.
  static Tokenizer parse(std::string_view text);

  /// Text to ids. Special tokens in the text are NOT recognised: text is only ever text. Throws on
  /// invalid UTF-8.
  std::vector<int32_t> encode(std::string_view text) const;
  /// Ids to bytes; special tokens give nothing. Ids outside the vocabulary throw.
  std::string decode(std::span<const int32_t> ids) const;
  /// The id of a special token such as "<|begin|>", if there is one.
  std::optional<int32_t> special(std::string_view name) const;
  int64_t vocab_size() const;

 private:
  struct Tables;
  std::shared_ptr<const Tables> tables_;
};

}  // namespace msa::runner
