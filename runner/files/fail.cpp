#include "runner/files/fail.h"

#include <iterator>

namespace msa::runner {

std::string quote(std::string_view text) {
  constexpr size_t kMost = 80;
  std::string result = "\"";
  for (char byte : text.substr(0, kMost)) {
    const auto value = static_cast<unsigned char>(byte);
    if (byte == '"' || byte == '\\') {
      result += '\\';
      result += byte;
    } else if (value < 0x20 || value >= 0x7F) {
      fmt::format_to(std::back_inserter(result), "\\x{:02x}", value);
    } else {
      result += byte;
    }
  }
  result += text.size() > kMost ? "...\"" : "\"";
  return result;
}

}  // namespace msa::runner
