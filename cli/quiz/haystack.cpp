#include "cli/quiz/haystack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <system_error>

#include "cli/parts/text.h"
#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSectionTokens = 2048;

bool ends_line(const Codec& codec, int32_t token) {
  const std::string text = codec.decode({&token, 1});
  return !text.empty() && text.back() == '\n';
}

bool is_project_text(const fs::path& path) {
  static const std::set<std::string> kEndings = {".h", ".cpp", ".py", ".md"};
  return kEndings.count(path.extension().string()) > 0;
}

bool is_skipped_folder(const std::string& name) {
  return name.empty() || name[0] == '.' || name == "models" || name.rfind("build", 0) == 0 ||
         name == "data" || name == "runs" || name == "__pycache__";
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

/// `key` stands in `line` and neither begins nor ends inside a word.
bool names(const std::string& line, const std::string& key) {
  for (size_t at = line.find(key); at != std::string::npos; at = line.find(key, at + 1)) {
    const size_t end = at + key.size();
    const bool begins = at == 0 || !is_word(line[at - 1]) || !is_word(line[at]);
    const bool ends = end == line.size() || !is_word(line[end]) || !is_word(line[end - 1]);
    if (begins && ends) return true;
  }
  return false;
}

}  // namespace

std::vector<SourceText> read_haystack_files(const std::vector<std::string>& paths) {
  std::vector<SourceText> texts;
  for (const std::string& path : paths) texts.push_back({path, read_text_file(path)});
  return texts;
}

std::vector<SourceText> read_project_texts(const fs::path& root) {
  std::vector<fs::path> paths;
  std::error_code error;
  fs::recursive_directory_iterator entry(root, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    const fs::path& path = entry->path();
    if (entry->is_directory(error)) {
      if (is_skipped_folder(path.filename().string())) entry.disable_recursion_pending();
    } else if (entry->is_regular_file(error) && is_project_text(path)) {
      paths.push_back(path);
    }
  }
  if (error || paths.empty()) {
    throw UsageError(
        fmt::format("no haystack: found no sources or documentation below {}; give "
                    "text files with --file",
                    root.string()));
  }
  std::sort(paths.begin(), paths.end());
  std::vector<SourceText> texts;
  for (const fs::path& path : paths) {
    texts.push_back({fs::relative(path, root).string(), read_text_file(path.string())});
  }
  return texts;
}

void remove_lines(std::vector<SourceText>& texts, const std::string& key,
                  const std::string& value) {
  for (SourceText& source : texts) {
    if (source.text.find(key) == std::string::npos) continue;
    std::string kept;
    for (size_t begin = 0; begin < source.text.size();) {
      const size_t end = std::min(source.text.find('\n', begin), source.text.size() - 1) + 1;
      const std::string line = source.text.substr(begin, end - begin);
      const bool holds_value = line.find(value) != std::string::npos;  // an empty one always
      if (!holds_value || !names(line, key)) kept += line;
      begin = end;
    }
    source.text = std::move(kept);
  }
}

Haystack::Haystack(const Codec& codec, const std::vector<SourceText>& texts) {
  for (const SourceText& source : texts) {
    if (source.text.empty()) continue;
    const bool closed = source.text.back() == '\n';
    const std::vector<int32_t> tokens = codec.encode(closed ? source.text : source.text + "\n");
    std::vector<Section>& file = files_.emplace_back();
    Section section;
    for (const int32_t token : tokens) {
      section.push_back(token);
      // A section ends with a line where it can, and at twice its size where there are no lines.
      const bool full = section.size() >= kSectionTokens;
      if (full && (section.size() >= 2 * kSectionTokens || ends_line(codec, token))) {
        file.push_back(std::move(section));
        section.clear();
      }
    }
    if (!section.empty()) file.push_back(std::move(section));
    num_tokens_ += static_cast<int64_t>(tokens.size());
  }
  if (num_tokens_ == 0) throw UsageError("the haystack is empty: got files without any text");
}

HaystackCut Haystack::cut(int64_t count, bool in_order, Random& random) const {
  std::vector<const std::vector<Section>*> files;
  for (const auto& file : files_) files.push_back(&file);
  if (!in_order) random.shuffle(files);
  std::vector<const Section*> sections;
  for (const auto* file : files) {
    for (const Section& section : *file) sections.push_back(&section);
  }
  if (!in_order) {
    const auto start = random.below(static_cast<int64_t>(sections.size()));
    std::rotate(sections.begin(), sections.begin() + start, sections.end());
  }
  HaystackCut cut;
  cut.tokens.reserve(static_cast<size_t>(count));
  for (size_t next = 0; static_cast<int64_t>(cut.tokens.size()) < count; ++next) {
    if (next == sections.size()) {
      next = 0;
      ++cut.repeats;
      random.shuffle(sections);
    }
    const auto room = static_cast<size_t>(count) - cut.tokens.size();
    const Section& section = *sections[next];
    cut.tokens.insert(
        cut.tokens.end(), section.begin(),
        section.begin() + static_cast<std::ptrdiff_t>(std::min(room, section.size())));
  }
  return cut;
}

}  // namespace msa::cli
