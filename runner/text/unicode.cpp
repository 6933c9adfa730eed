#include "runner/text/unicode.h"

#include <vector>

namespace msa::runner {
namespace {

struct CodePointRange {
  char32_t first;
  char32_t last;
};
#include "runner/text/unicode_classes.inc"

constexpr size_t kNumCodePoints = 0x110000;
constexpr uint8_t kKindMask = 3;
constexpr uint8_t kDigitBit = 4;

/// One byte for each code point: 1.1 MB, made once, so that a look-up is one load.
const std::vector<uint8_t>& classes() {
  static const std::vector<uint8_t> table = [] {
    std::vector<uint8_t> flags(kNumCodePoints, 0);
    const auto mark = [&flags](const auto& ranges, uint8_t bits) {
      for (const CodePointRange& range : ranges) {
        for (char32_t c = range.first; c <= range.last; ++c) flags[c] |= bits;
      }
    };
    mark(kLetterRanges, static_cast<uint8_t>(CharacterKind::kLetter));
    mark(kNumberRanges, static_cast<uint8_t>(CharacterKind::kNumber));
    mark(kSpaceRanges, static_cast<uint8_t>(CharacterKind::kSpace));
    mark(kDigitRanges, kDigitBit);
    return flags;
  }();
  return table;
}

}  // namespace

CharacterKind character_kind(char32_t code_point) {
  return static_cast<CharacterKind>(classes()[code_point] & kKindMask);
}

bool is_digit(char32_t code_point) { return (classes()[code_point] & kDigitBit) != 0; }

size_t find_invalid_utf8(std::string_view text) {
  size_t i = 0;
  const auto byte = [&text](size_t offset) { return static_cast<unsigned char>(text[offset]); };
  while (i < text.size()) {
    const unsigned lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || text.size() - i < length) return i;
    // The second byte also rules out overlong forms, surrogates and what lies past U+10FFFF.
    const unsigned second_low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned second_high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (byte(i + 1) < second_low || byte(i + 1) > second_high) return i;
    for (size_t n = 2; n < length; ++n) {
      if ((byte(i + n) & 0xC0u) != 0x80u) return i;
    }
    i += length;
  }
  return std::string_view::npos;
}

CodePoint code_point_at(std::string_view text, size_t offset) {
  const auto bits = [&](size_t n) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[offset + n]));
  };
  const char32_t lead = bits(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {((lead & 0x1Fu) << 6) | (bits(1) & 0x3Fu), 2};
  if (lead < 0xF0) {
    return {((lead & 0x0Fu) << 12) | ((bits(1) & 0x3Fu) << 6) | (bits(2) & 0x3Fu), 3};
  }
  return {((lead & 0x07u) << 18) | ((bits(1) & 0x3Fu) << 12) | ((bits(2) & 0x3Fu) << 6) |
              (bits(3) & 0x3Fu),
          4};
}

}  // namespace msa::runner
