#include "runner/text/split.h"

#include "runner/text/unicode.h"

namespace msa::runner {
namespace {

constexpr std::string_view kContractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};

/// End of the run of characters of one kind that starts at `offset`.
size_t run_end(std::string_view text, size_t offset, CharacterKind kind) {
  while (offset < text.size()) {
    const CodePoint next = code_point_at(text, offset);
    if (character_kind(next.value) != kind) break;
    offset += next.bytes;
  }
  return offset;
}

/// Length of the pattern's match at the start of non-empty text.
size_t match_length(std::string_view text) {
  for (std::string_view contraction : kContractions) {
    if (text.starts_with(contraction)) return contraction.size();
  }
  const size_t lead = text[0] == ' ' ? 1 : 0;
  if (lead < text.size()) {
    const CharacterKind kind = character_kind(code_point_at(text, lead).value);
    if (kind != CharacterKind::kSpace) return run_end(text, lead, kind);
  }
  // Spaces: all of them at the end of the text, else all but the last, which goes with what follows
  // (or stands alone when it is the only one).
  size_t last = 0;
  size_t end = 0;
  while (end < text.size()) {
    const CodePoint next = code_point_at(text, end);
    if (character_kind(next.value) != CharacterKind::kSpace) break;
    last = end;
    end += next.bytes;
  }
  return end == text.size() || last == 0 ? end : last;
}

void split_by_pattern(std::string_view text, const std::function<void(std::string_view)>& piece) {
  while (!text.empty()) {
    const size_t length = match_length(text);
    piece(text.substr(0, length));
    text.remove_prefix(length);
  }
}

/// Bytes whose stand-in character is a digit: 0-9 and the bytes that Latin-1 shows as superscripts
/// two, three, one and the three fractions.
bool stands_for_digit(char byte) {
  const auto value = static_cast<unsigned char>(byte);
  return (value >= '0' && value <= '9') || value == 0xB2 || value == 0xB3 || value == 0xB9 ||
         (value >= 0xBC && value <= 0xBE);
}

void isolate_digit_bytes(std::string_view text,
                         const std::function<void(std::string_view)>& piece) {
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!stands_for_digit(text[i])) continue;
    if (i > begin) piece(text.substr(begin, i - begin));
    piece(text.substr(i, 1));
    begin = i + 1;
  }
  if (begin < text.size()) piece(text.substr(begin));
}

}  // namespace

void split_text(std::string_view text, SplitOrder order,
                const std::function<void(std::string_view)>& piece) {
  if (order == SplitOrder::kByteLevel) {
    split_by_pattern(text, piece);
    return;
  }
  if (order == SplitOrder::kByteLevelThenDigits) {
    split_by_pattern(text, [&piece](std::string_view part) { isolate_digit_bytes(part, piece); });
    return;
  }
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const CodePoint next = code_point_at(text, i);
    if (is_digit(next.value)) {
      split_by_pattern(text.substr(begin, i - begin), piece);
      piece(text.substr(i, next.bytes));
      begin = i + next.bytes;
    }
    i += next.bytes;
  }
  split_by_pattern(text.substr(begin), piece);
}

}  // namespace msa::runner
