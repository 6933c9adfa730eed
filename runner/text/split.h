// Cuts text into the pieces that BPE then works on, one by one.
//
// The byte-level pattern, at each place the first alternative that matches:
//   's 't 're 've 'm 'll 'd | ?letters | ?numbers | ?others | spaces not followed by a non-space |
//   spaces            (" ?" is one optional U+0020)
// and, before or after it, each digit on its own.
#pragma once

#include <functional>
#include <string_view>

namespace msa::runner {

enum class SplitOrder {
  kByteLevel,            ///< the pattern alone
  kDigitsThenByteLevel,  ///< digits are isolated, then the pattern cuts what is between
  kByteLevelThenDigits,  ///< the pattern, then digits among the characters that stand for bytes
};

/// Calls piece(view) for consecutive views that cover `text`, which must be valid UTF-8.
void split_text(std::string_view text, SplitOrder order,
                const std::function<void(std::string_view)>& piece);

}  // namespace msa::runner
