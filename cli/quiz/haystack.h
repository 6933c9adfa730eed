// The text around the facts: the user's files, or the project's own sources and documentation.
//
// A haystack is a list of sections of at most 2,048 tokens that end at line ends. One document
// takes them in the order of the files; another document starts elsewhere and has the files in
// another order. A document longer than the whole haystack goes on with all sections shuffled.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/model/language_model.h"
#include "cli/parts/random.h"

namespace msa::cli {

struct SourceText {
  std::string name;
  std::string text;
};

/// Files by name, as given. Throws UsageError naming the file that is no readable UTF-8 text.
std::vector<SourceText> read_haystack_files(const std::vector<std::string>& paths);
/// The project's sources and documentation below `root`, in the order of their paths: .h, .cpp, .py
/// and .md, without models/ (its card lists facts) and hidden or build folders.
std::vector<SourceText> read_project_texts(const std::filesystem::path& root);
/// Drops every line that names `key` as whole words, and, when `value` is not empty, holds `value`
/// too: a fact must stand in the document once, and no other line may contradict it.
void remove_lines(std::vector<SourceText>& texts, const std::string& key, const std::string& value);

struct HaystackCut {
  std::vector<int32_t> tokens;
  int64_t repeats = 0;  ///< how often the haystack was begun again
};

class Haystack {
 public:
  /// Throws UsageError when the texts hold no token.
  Haystack(const Codec& codec, const std::vector<SourceText>& texts);

  int64_t num_tokens() const { return num_tokens_; }
  size_t num_files() const { return files_.size(); }
  /// Exactly `count` tokens. With `in_order` the files begin at their beginning, as a reader has
  /// them; otherwise at a random section and in a random order of the files.
  HaystackCut cut(int64_t count, bool in_order, Random& random) const;

 private:
  using Section = std::vector<int32_t>;
  std::vector<std::vector<Section>> files_;
  int64_t num_tokens_ = 0;
};

}  // namespace msa::cli
