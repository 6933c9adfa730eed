// tokenizer.json: a byte-level BPE, read and checked, and the way from text to ids and back.
//
// Byte-level BPE writes each byte as one printable character: the bytes that Latin-1 prints stand
// for themselves, the other 68 are U+0100 onwards in order. Inside, we work on bytes.
#include "runner/tokenizer.h"

#include <array>
#include <unordered_map>

#include "runner/files/json.h"
#include "runner/text/merges.h"
#include "runner/text/split.h"
#include "runner/text/unicode.h"

namespace msa::runner {

struct Tokenizer::Tables {
  struct Token {
    bool known = false;
    std::string bytes;  // empty for special tokens
  };
  SplitOrder order = SplitOrder::kByteLevel;
  std::vector<Token> tokens;  // by id
  std::array<int32_t, 256> byte_ids = {};
  Merges merges;
  std::unordered_map<std::string, int32_t> specials;
};

namespace {

constexpr const char* kWhat = "tokenizer";
constexpr uintmax_t kMaxTokenizerBytes = 256 << 20;
constexpr int64_t kMaxId = (1 << 24) - 1;
// Pieces longer than this are not remembered: they hardly ever come twice.
constexpr size_t kMaxCachedPiece = 64;
constexpr size_t kMaxCachedPieces = 1 << 16;

bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/// byte of each stand-in character below U+0180, or -1.
const std::array<int16_t, 0x180>& stand_ins() {
  static const auto table = [] {
    std::array<int16_t, 0x180> bytes{};
    bytes.fill(-1);
    size_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const size_t character = stands_for_itself(byte) ? static_cast<size_t>(byte) : next++;
      bytes[character] = static_cast<int16_t>(byte);
    }
    return bytes;
  }();
  return table;
}

/// The bytes that a token of the vocabulary stands for; empty when a character stands for none.
std::string token_to_bytes(const std::string& token) {
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const CodePoint next = code_point_at(token, i);  // JSON strings are valid UTF-8
    const bool known = next.value < stand_ins().size() && stand_ins()[next.value] >= 0;
    if (!known) return "";
    bytes += static_cast<char>(stand_ins()[next.value]);
    i += next.bytes;
  }
  return bytes;
}

/// Refuses any value but those given; an absent key counts as null.
void only(const Json& object, const char* section, const char* key,
          std::initializer_list<Json> allowed) {
  const Json* found = json_member(object, key);
  const Json value = found == nullptr ? Json() : *found;
  std::string list;
  for (const Json& one : allowed) {
    if (value == one) return;
    list += (list.empty() ? "" : ", ") + describe_json(one);
  }
  fail(kWhat, "{}{} is not supported: got {}, allowed {}", section, key, describe_json(value),
       list);
}

std::string type_of(const Json& object) {
  const Json* type = object.is_object() ? json_member(object, "type") : nullptr;
  return type != nullptr && type->is_string() ? type->get<std::string>() : "";
}

void check_byte_level(const Json& step) {
  only(step, "pre_tokenizer ", "add_prefix_space", {false});
  only(step, "pre_tokenizer ", "use_regex", {true, nullptr});
}

SplitOrder read_pre_tokenizer(const Json& root) {
  const Json* step = json_member(root, "pre_tokenizer");
  std::vector<Json> steps;
  if (step != nullptr && type_of(*step) == "Sequence") {
    const Json* list = json_member(*step, "pretokenizers");
    require(list != nullptr && list->is_array(), kWhat,
            "pre_tokenizer Sequence has no pretokenizers: got {}, allowed a list",
            list == nullptr ? "none" : list->type_name());
    steps.assign(list->begin(), list->end());
  } else if (step != nullptr) {
    steps.push_back(*step);
  }
  std::string types;
  for (const Json& one : steps) {
    const std::string type = type_of(one);
    types += (types.empty() ? "" : " + ") + type;
    if (type == "ByteLevel") check_byte_level(one);
    if (type == "Digits") only(one, "pre_tokenizer Digits ", "individual_digits", {true});
  }
  if (types == "ByteLevel") return SplitOrder::kByteLevel;
  if (types == "Digits + ByteLevel") return SplitOrder::kDigitsThenByteLevel;
  if (types == "ByteLevel + Digits") return SplitOrder::kByteLevelThenDigits;
  fail(kWhat,
       "pre_tokenizer is not supported: got {}, allowed ByteLevel, Digits + ByteLevel, ByteLevel + "
       "Digits",
       quote(types));
}

void refuse_other_pipelines(const Json& root) {
  only(root, "", "normalizer", {nullptr});
  only(root, "", "truncation", {nullptr});
  only(root, "", "padding", {nullptr});
  // A ByteLevel post-processor only moves offsets; any other would add tokens.
  const Json* post = json_member(root, "post_processor");
  require(post == nullptr || type_of(*post) == "ByteLevel", kWhat,
          "post_processor is not supported: got {}, allowed none, ByteLevel",
          post == nullptr ? "" : quote(type_of(*post)));
  const Json* decoder = json_member(root, "decoder");
  require(decoder != nullptr && type_of(*decoder) == "ByteLevel", kWhat,
          "decoder is not supported: got {}, allowed ByteLevel",
          decoder == nullptr ? "none" : quote(type_of(*decoder)));
}

const Json& read_model(const Json& root) {
  const Json* model = json_member(root, "model");
  require(model != nullptr && type_of(*model) == "BPE", kWhat,
          "model is not supported: got {}, allowed BPE",
          model == nullptr ? "none" : quote(type_of(*model)));
  only(*model, "model ", "dropout", {nullptr, 0.0});
  only(*model, "model ", "unk_token", {nullptr});
  only(*model, "model ", "continuing_subword_prefix", {nullptr, ""});
  only(*model, "model ", "end_of_word_suffix", {nullptr, ""});
  only(*model, "model ", "byte_fallback", {nullptr, false});
  only(*model, "model ", "ignore_merges", {nullptr, false});
  return *model;
}

/// Content and id of the added tokens, all of which must be special.
std::unordered_map<std::string, int32_t> read_specials(const Json& root) {
  std::unordered_map<std::string, int32_t> specials;
  const Json* list = json_member(root, "added_tokens");
  if (list == nullptr) return specials;
  require(list->is_array(), kWhat, "added_tokens is wrong: got {}, allowed a list",
          list->type_name());
  for (const Json& token : *list) {
    require(token.is_object() && token.contains("content") && token.contains("id"), kWhat,
            "an added token is wrong: got {}, allowed an object with content and id",
            describe_json(token));
    const std::string& content = json_string(kWhat, "added token content", token["content"]);
    const int64_t id = json_integer(kWhat, "added token id", token["id"], 0, kMaxId);
    const Json* special = json_member(token, "special");
    require(special != nullptr && special->is_boolean() && special->get<bool>(), kWhat,
            "added token {} is not supported: got one that is not special, allowed special tokens",
            quote(content));
    require(specials.emplace(content, static_cast<int32_t>(id)).second, kWhat,
            "added token {} comes twice: got 2, allowed 1", quote(content));
  }
  return specials;
}

/// "left right" or ["left", "right"].
std::pair<std::string, std::string> read_merge(const Json& merge, size_t place) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const std::string text = merge.get<std::string>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  fail(kWhat, "merges[{}] is wrong: got {}, allowed two tokens", place, describe_json(merge));
}

}  // namespace

Tokenizer Tokenizer::load(const std::filesystem::path& file) {
  return parse(read_json_text(kWhat, file, kMaxTokenizerBytes));
}

Tokenizer Tokenizer::parse(std::string_view text) {
  const Json root = parse_json_object(kWhat, "tokenizer.json", text);
  auto tables = std::make_shared<Tables>();
  refuse_other_pipelines(root);
  tables->order = read_pre_tokenizer(root);
  const Json& model = read_model(root);
  tables->specials = read_specials(root);

  const Json* vocabulary = json_member(model, "vocab");
  require(vocabulary != nullptr && vocabulary->is_object() && !vocabulary->empty(), kWhat,
          "vocab is wrong: got {}, allowed an object of tokens and ids",
          vocabulary == nullptr ? "none" : vocabulary->type_name());
  std::unordered_map<std::string, int32_t> ids;
  const auto place = [&](const std::string& token, int64_t id, std::string bytes) {
    const auto index = static_cast<size_t>(id);
    if (index >= tables->tokens.size()) tables->tokens.resize(index + 1);
    require(!tables->tokens[index].known, kWhat,
            "an id has two tokens: got id {} again for {}, allowed once", id, quote(token));
    tables->tokens[index] = {true, std::move(bytes)};
  };
  for (const auto& [token, value] : vocabulary->items()) {
    const int64_t id = json_integer(kWhat, "vocab id", value, 0, kMaxId);
    const auto special = tables->specials.find(token);
    if (special != tables->specials.end()) {
      require(special->second == id, kWhat,
              "added token {} has two ids: got {} and {}, allowed one", quote(token),
              special->second, id);
      continue;
    }
    std::string bytes = token_to_bytes(token);
    require(!bytes.empty(), kWhat,
            "a token is not byte-level: got {}, allowed the characters that stand for bytes",
            quote(token));
    place(token, id, std::move(bytes));
    ids.emplace(token, static_cast<int32_t>(id));
  }
  for (const auto& [token, id] : tables->specials) place(token, id, "");

  tables->byte_ids.fill(-1);
  for (const auto& [token, id] : ids) {
    const std::string& bytes = tables->tokens[static_cast<size_t>(id)].bytes;
    if (bytes.size() == 1) tables->byte_ids[static_cast<unsigned char>(bytes[0])] = id;
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    require(tables->byte_ids[byte] >= 0, kWhat,
            "vocab lacks a byte: got no token for {:#04x}, allowed all 256 bytes", byte);
  }

  const Json* merges = json_member(model, "merges");
  require(merges != nullptr && merges->is_array(), kWhat, "merges is wrong: got {}, allowed a list",
          merges == nullptr ? "none" : merges->type_name());
  for (size_t n = 0; n < merges->size(); ++n) {
    const auto [left, right] = read_merge((*merges)[n], n);
    const auto a = ids.find(left);
    const auto b = ids.find(right);
    const auto joined = ids.find(left + right);
    require(
        a != ids.end() && b != ids.end() && joined != ids.end(), kWhat,
        "merges[{}] names a token that vocab lacks: got {} and {}, allowed tokens whose join is "
        "a token",
        n, quote(left), quote(right));
    require(tables->merges.add(a->second, b->second, joined->second), kWhat,
            "merges[{}] comes twice: got {} and {} again, allowed once", n, quote(left),
            quote(right));
  }
  Tokenizer tokenizer;
  tokenizer.tables_ = std::move(tables);
  return tokenizer;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  const size_t invalid = find_invalid_utf8(text);
  if (invalid != std::string_view::npos) {
    fail(kWhat, "the text is not UTF-8: got byte {:#04x} at offset {}, allowed valid UTF-8",
         static_cast<unsigned char>(text[invalid]), invalid);
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 2);
  // What each piece of this text became, as a range of `ids`: most words come again.
  std::unordered_map<std::string_view, std::pair<size_t, size_t>> known;
  std::vector<int32_t> symbols;
  split_text(text, tables_->order, [&](std::string_view piece) {
    if (piece.size() == 1) {
      ids.push_back(tables_->byte_ids[static_cast<unsigned char>(piece[0])]);
      return;
    }
    const auto found = known.find(piece);
    if (found != known.end()) {
      const auto [begin, end] = found->second;
      for (size_t i = begin; i < end; ++i) ids.push_back(ids[i]);
      return;
    }
    symbols.clear();
    for (char byte : piece) {
      symbols.push_back(tables_->byte_ids[static_cast<unsigned char>(byte)]);
    }
    const size_t begin = ids.size();
    tables_->merges.apply(symbols, ids);
    if (piece.size() <= kMaxCachedPiece && known.size() < kMaxCachedPieces) {
      known.emplace(piece, std::pair(begin, ids.size()));
    }
  });
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (int32_t id : ids) {
    const bool known =
        id >= 0 && id < vocab_size() && tables_->tokens[static_cast<size_t>(id)].known;
    require(known, kWhat, "an id is not in the vocabulary: got {}, allowed ids of its {} tokens",
            id, vocab_size());
    text += tables_->tokens[static_cast<size_t>(id)].bytes;
  }
  return text;
}

std::optional<int32_t> Tokenizer::special(std::string_view name) const {
  const auto found = tables_->specials.find(std::string(name));
  if (found == tables_->specials.end()) return std::nullopt;
  return found->second;
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(tables_->tokens.size()); }

}  // namespace msa::runner
