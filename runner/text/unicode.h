// UTF-8 and the classes of code points that cut text into pieces.
//
// The classes come from a generated table (unicode_classes.inc) and not from a library, because a
// library's answer depends on the Unicode version of the machine, and ids must not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace msa::runner {

enum class CharacterKind : uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3 };

/// \p{L}, \p{N}, \s or none of them, as the pattern of byte-level BPE means them.
CharacterKind character_kind(char32_t code_point);
/// What the Digits pre-tokenizer isolates; nearly, but not exactly, kNumber.
bool is_digit(char32_t code_point);

/// The offset of the first byte that is not valid UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

struct CodePoint {
  char32_t value;
  size_t bytes;
};
/// The code point at `offset` of valid UTF-8.
CodePoint code_point_at(std::string_view text, size_t offset);

}  // namespace msa::runner
