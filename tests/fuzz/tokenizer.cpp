// tokenizer.json and encoding: whatever the bytes, they are refused by msa::Error, or what encode
// makes of a text decodes to that text.
//
//   input = tokenizer 0xFF text          0xFF is in no UTF-8
//
// A tokenizer that starts with '{' is a whole tokenizer.json. Anything else is a list of merges,
// a line each: "left right" in the characters that stand for bytes, added to the 256 bytes. So the
// search need not find 256 tokens before anything happens.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "msa/error.h"
#include "runner/tokenizer.h"

namespace {

using Json = nlohmann::json;

/// The character that stands for a byte: itself when it is printable, else one from 256 on.
std::string byte_character(unsigned byte, unsigned& next) {
  const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
  const unsigned code = printable ? byte : next++;
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

std::string tokenizer_with(std::string_view merges) {
  Json vocabulary = Json::object();
  unsigned next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) vocabulary[byte_character(byte, next)] = byte;
  Json pairs = Json::array();
  const bool digits = !merges.empty() && merges[0] == '#';
  for (size_t begin = 0; begin < merges.size();) {
    const size_t end = std::min(merges.find('\n', begin), merges.size());
    const std::string line(merges.substr(begin, end - begin));
    begin = end + 1;
    const size_t space = line.find(' ');
    if (space == std::string::npos) continue;
    const std::string joined = line.substr(0, space) + line.substr(space + 1);
    vocabulary.emplace(joined, vocabulary.size());
    pairs.push_back(line);
  }
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const Json split = {
      {"type", "Sequence"},
      {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, byte_level}}};
  const Json root = {{"added_tokens", {{{"id", 9999}, {"content", "<|end|>"}, {"special", true}}}},
                     {"pre_tokenizer", digits ? split : byte_level},
                     {"decoder", {{"type", "ByteLevel"}}},
                     {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", pairs}}}};
  return root.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(  // NOLINT(readability-identifier-naming): libFuzzer's name
    const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t mark = std::min(input.find('\xFF'), size);
  const std::string_view head = input.substr(0, mark);
  const std::string_view text = mark < size ? input.substr(mark + 1) : std::string_view();
  try {
    const bool whole = !head.empty() && head[0] == '{';
    const auto tokenizer =
        msa::runner::Tokenizer::parse(whole ? std::string(head) : tokenizer_with(head));
    if (tokenizer.decode(tokenizer.encode(text)) != text) std::abort();
  } catch (const msa::Error&) {
    return 0;
  }
  return 0;
}
