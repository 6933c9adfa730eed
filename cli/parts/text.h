// UTF-8 for terminals and files: validity, width, cutting, streaming.
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

namespace msa::cli {

/// Bytes at the start of `text` that are whole, valid UTF-8 (no surrogates, no overlong forms).
size_t valid_utf8_prefix(std::string_view text);
bool is_valid_utf8(std::string_view text);
/// True when `text` is not valid only because its last character is not complete yet.
bool ends_in_open_character(std::string_view text);
/// The same text with each invalid byte replaced by U+FFFD and control characters shown as '?'.
std::string printable(std::string_view text);
/// Characters (code points) of valid UTF-8.
size_t width(std::string_view text);
/// At most `columns` characters; what is cut ends in "...".
std::string shorten(std::string_view text, size_t columns);
std::string_view trim(std::string_view text);

/// Bytes in, whole characters out: holds back a character that is not complete yet.
class Utf8Stream {
 public:
  /// What can be shown now; bytes that can never become UTF-8 become U+FFFD.
  std::string push(std::string_view bytes);
  /// What is left at the end.
  std::string finish();

 private:
  std::string held_;
};

/// The whole file as text. Throws UsageError naming the file: unreadable, a directory, holds NUL,
/// or is not UTF-8 (with the offset of the first bad byte). A leading byte order mark is dropped.
std::string read_text_file(const std::string& path);
/// The same of an open file, up to its end; `what` names it.
std::string read_text(const std::string& what, FILE* file);
/// The same checks on text from elsewhere; `what` names it.
std::string checked_text(std::string_view what, std::string text);

}  // namespace msa::cli
