#include "cli/parts/text.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>

#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
/// More than the longest context can hold, and no endless device.
constexpr size_t kMostTextBytes = size_t{256} << 20;

struct Character {
  size_t bytes = 0;   ///< of a whole, valid character at the start; 0 when there is none
  bool open = false;  ///< valid so far, but the text ends inside it
};

/// The well-formed sequences of the Unicode standard, table 3-7: only the second byte's range
/// depends on the first.
Character first_character(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return {1, false};
  size_t length = 0;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) length = 2;
  if (lead >= 0xE0 && lead <= 0xEF) length = 3;
  if (lead >= 0xF0 && lead <= 0xF4) length = 4;
  if (length == 0) return {};
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {0, true};
    if (at(i) < low || at(i) > high) return {};
    low = 0x80;
    high = 0xBF;
  }
  return {length, false};
}

struct FileCloser {
  void operator()(FILE* file) const { std::fclose(file); }
};

}  // namespace

size_t valid_utf8_prefix(std::string_view text) {
  size_t done = 0;
  while (done < text.size()) {
    const Character character = first_character(text.substr(done));
    if (character.bytes == 0) break;
    done += character.bytes;
  }
  return done;
}

bool is_valid_utf8(std::string_view text) { return valid_utf8_prefix(text) == text.size(); }

bool ends_in_open_character(std::string_view text) {
  const size_t valid = valid_utf8_prefix(text);
  return valid < text.size() && first_character(text.substr(valid)).open;
}

std::string printable(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const size_t bytes = first_character(text).bytes;
    if (bytes == 0) {
      shown += kReplacement;
      text.remove_prefix(1);
      continue;
    }
    const auto lead = static_cast<uint8_t>(text[0]);
    // U+0080 ... U+009F are control characters too; terminals obey some of them.
    const bool control = (bytes == 1 && (lead < 0x20 || lead == 0x7F)) ||
                         (bytes == 2 && lead == 0xC2 && static_cast<uint8_t>(text[1]) < 0xA0);
    shown += control ? std::string_view("?") : text.substr(0, bytes);
    text.remove_prefix(bytes);
  }
  return shown;
}

size_t width(std::string_view text) {
  size_t characters = 0;
  for (const char byte : text) characters += (static_cast<uint8_t>(byte) & 0xC0) != 0x80;
  return characters;
}

std::string shorten(std::string_view text, size_t columns) {
  if (width(text) <= columns) return std::string(text);
  const size_t keep = columns > 3 ? columns - 3 : 0;
  size_t bytes = 0;
  for (size_t characters = 0; bytes < text.size(); ++bytes) {
    if ((static_cast<uint8_t>(text[bytes]) & 0xC0) != 0x80 && characters++ == keep) break;
  }
  return std::string(text.substr(0, bytes)) + std::string("...").substr(0, columns);
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string ready;
  while (!held_.empty()) {
    const size_t valid = valid_utf8_prefix(held_);
    ready += held_.substr(0, valid);
    held_.erase(0, valid);
    if (held_.empty() || ends_in_open_character(held_)) break;
    ready += kReplacement;
    held_.erase(0, 1);
  }
  return ready;
}

std::string Utf8Stream::finish() {
  std::string rest;
  for (size_t i = 0; i < held_.size(); ++i) rest += kReplacement;
  held_.clear();
  return rest;
}

std::string checked_text(std::string_view what, std::string text) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.compare(0, kByteOrderMark.size(), kByteOrderMark) == 0) text.erase(0, 3);
  const size_t nul = text.find('\0');
  if (nul != std::string::npos) {
    throw UsageError(
        fmt::format("{}: got a NUL byte at offset {}, allowed UTF-8 text without NUL", what, nul));
  }
  const size_t valid = valid_utf8_prefix(text);
  if (valid != text.size()) {
    throw UsageError(fmt::format("{}: got byte 0x{:02X} at offset {}, allowed UTF-8 text", what,
                                 static_cast<uint8_t>(text[valid]), valid));
  }
  return text;
}

std::string read_text(const std::string& what, FILE* file) {
  std::string text;
  char buffer[1 << 16];
  size_t got = 0;
  do {
    got = std::fread(buffer, 1, sizeof buffer, file);
    text.append(buffer, got);
    if (text.size() > kMostTextBytes) {
      throw UsageError(
          fmt::format("{}: got more than {} bytes, allowed no more", what, kMostTextBytes));
    }
  } while (got == sizeof buffer);
  if (std::ferror(file) != 0) {
    throw UsageError(fmt::format("{}: cannot read: {}", what, std::strerror(errno)));
  }
  return checked_text(what, std::move(text));
}

std::string read_text_file(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    throw UsageError(fmt::format("{}: got a directory, allowed a text file", path));
  }
  const std::unique_ptr<FILE, FileCloser> file(std::fopen(path.c_str(), "rb"));
  if (!file) {
    throw UsageError(fmt::format("{}: cannot read: {}", path, std::strerror(errno)));
  }
  return read_text(path, file.get());
}

}  // namespace msa::cli
