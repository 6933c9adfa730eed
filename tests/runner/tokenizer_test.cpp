// The tokenizer against Hugging Face tokenizers (golden files made by make_tokenizer_golden.py),
// and against files that are not what they say.
#include "runner/tokenizer.h"

#include <chrono>

#include "runner/text/unicode.h"
#include "tests/runner/fixture.h"

namespace msa::runner::test {
namespace {

Json golden(const std::string& name) {
  return Json::parse(read_whole(std::filesystem::path(MSA_TEST_FOLDER) / "golden" / name));
}

Json golden_tokenizer() { return golden("tokenizer.json"); }

Tokenizer load(const Json& file) {
  const TempFolder folder;
  folder.write("tokenizer.json", file.dump());
  return Tokenizer::load(folder.path() / "tokenizer.json");
}

Json with_order(const std::string& order) {
  Json file = golden_tokenizer();
  const Json digits = file["pre_tokenizer"]["pretokenizers"][0];
  const Json byte_level = file["pre_tokenizer"]["pretokenizers"][1];
  if (order == "byte_level") file["pre_tokenizer"] = byte_level;
  if (order == "byte_level_digits") {
    file["pre_tokenizer"]["pretokenizers"] = {byte_level, digits};
  }
  return file;
}

class TokenizerOrder : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerOrder, EqualsHuggingFaceOnHostileText) {
  const Tokenizer tokenizer = load(with_order(GetParam()));
  const Json cases = golden("encodings.json");
  ASSERT_GT(cases.size(), 100u);
  for (const Json& one : cases) {
    const auto text = one["text"].get<std::string>();
    const auto ids = one[GetParam()].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.encode(text), ids) << one["text"].dump();
    EXPECT_EQ(tokenizer.decode(ids), text);
  }
}

INSTANTIATE_TEST_SUITE_P(Orders, TokenizerOrder,
                         testing::Values("byte_level", "digits_byte_level", "byte_level_digits"),
                         [](const auto& one) { return std::string(one.param); });

void append_utf8(std::string& text, uint32_t c) {
  const auto put = [&text](uint32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | (c >> 6));
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3F));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

TEST(Tokenizer, EqualsHuggingFaceOnEveryCodePointOfTheFirstPlanes) {
  const Json sweep = golden("sweep.json");
  std::string text;
  for (uint32_t c = 1; c < sweep["end"].get<uint32_t>(); ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    text += 'a';
    append_utf8(text, c);
    text += '1';
    append_utf8(text, c);
    text += ' ';
    append_utf8(text, c);
    text += '!';
  }
  const std::vector<int32_t> ids = load(golden_tokenizer()).encode(text);
  uint64_t hash = 0xCBF29CE484222325u;
  for (int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ ((static_cast<uint32_t>(id) >> shift) & 0xFF)) * 0x100000001B3u;
    }
  }
  EXPECT_EQ(ids.size(), sweep["count"].get<size_t>());
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(hash));
  EXPECT_EQ(std::string(hex), sweep["hash"].get<std::string>());
}

TEST(Tokenizer, TakesMergesAsStringsToo) {
  Json file = golden_tokenizer();
  for (Json& merge : file["model"]["merges"]) {
    if (merge.is_array()) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  const std::string text = "We've got 1024 tokens, Größe, 注意力";
  EXPECT_EQ(load(file).encode(text), load(golden_tokenizer()).encode(text));
}

TEST(Tokenizer, SpecialTokensAreNamedButNeverRead) {
  const Tokenizer tokenizer = load(golden_tokenizer());
  ASSERT_EQ(tokenizer.special("<|user|>"), std::optional<int32_t>(1));
  EXPECT_EQ(tokenizer.special("the"), std::nullopt);
  for (int32_t id : tokenizer.encode("<|user|>")) EXPECT_GT(id, 3);
  const std::vector<int32_t> ids = {0, 1, 2, 3};
  EXPECT_EQ(tokenizer.decode(ids), "");
}

TEST(Tokenizer, EveryByteComesBack) {
  const Tokenizer tokenizer = load(golden_tokenizer());
  std::string bytes;
  std::vector<int32_t> ids;
  // Single bytes are no UTF-8 text, but ids that stand for them are valid.
  for (int32_t id = 4; id < 260; ++id) ids.push_back(id);
  bytes = tokenizer.decode(ids);
  std::sort(bytes.begin(), bytes.end(), [](char a, char b) {
    return static_cast<unsigned char>(a) < static_cast<unsigned char>(b);
  });
  ASSERT_EQ(bytes.size(), 256u);
  for (size_t n = 0; n < 256; ++n) EXPECT_EQ(static_cast<unsigned char>(bytes[n]), n);
}

TEST(Tokenizer, InvalidUtf8IsNamedByItsOffset) {
  const Tokenizer tokenizer = load(golden_tokenizer());
  const std::pair<const char*, const char*> cases[] = {{"abc\xff", "offset 3"},
                                                       {"\x80", "offset 0"},
                                                       {"ab\xc3", "offset 2"},
                                                       {"\xc0\xaf", "offset 0"},
                                                       {"x\xe0\x80\xaf", "offset 1"},
                                                       {"x\xed\xa0\x80", "offset 1"},
                                                       {"\xf4\x90\x80\x80", "offset 0"},
                                                       {"\xf0\x80\x80\x80", "offset 0"},
                                                       {"ok \xe6\xb3", "offset 3"},
                                                       {"\xf5\x80\x80\x80", "offset 0"},
                                                       {"é\xa9", "offset 2"}};
  for (const auto& one : cases) {
    expect_error([&] { tokenizer.encode(one.first); }, {"[tokenizer]", "not UTF-8", one.second});
  }
}

TEST(Tokenizer, RefusesIdsOutsideItsVocabulary) {
  const Tokenizer tokenizer = load(golden_tokenizer());
  for (int32_t id : {-1, static_cast<int32_t>(tokenizer.vocab_size())}) {
    expect_error([&] { tokenizer.decode(std::vector<int32_t>{id}); },
                 {"[tokenizer]", "got " + std::to_string(id), "700"});
  }
}

TEST(Tokenizer, IsQuickOnAMegabyteOfAnything) {
  const Tokenizer tokenizer = load(golden_tokenizer());
  std::string words;
  for (size_t n = 0; words.size() < (1 << 20); ++n) words += " word" + std::to_string(n * 7919);
  std::string letters;
  for (size_t n = 0; letters.size() < (1 << 20); ++n) letters += "abcdefghijklm"[n * n % 13];
  for (const std::string& text : {words, letters, std::string(1 << 20, 'a')}) {
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<int32_t> ids = tokenizer.encode(text);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    EXPECT_EQ(tokenizer.decode(ids), text);
    EXPECT_LT(seconds.count(), 10.0);  // a quadratic merge would take hours
  }
}

struct BadFile {
  const char* name;
  const char* patch;  // RFC 7386 merge patch on the golden file
  std::vector<std::string> parts;
};

TEST(Tokenizer, RefusesOtherTokenizersByName) {
  const BadFile cases[] = {
      {"model", R"({"model": {"type": "Unigram"}})", {"model is not supported", "Unigram"}},
      {"normalizer", R"({"normalizer": {"type": "NFC"}})", {"normalizer is not supported"}},
      {"decoder", R"({"decoder": {"type": "Metaspace"}})", {"decoder", "Metaspace"}},
      {"no decoder", R"({"decoder": null})", {"decoder", "got none"}},
      {"pre", R"({"pre_tokenizer": {"type": "Whitespace"}})", {"pre_tokenizer", "Whitespace"}},
      {"no pre", R"({"pre_tokenizer": null})", {"pre_tokenizer", "ByteLevel"}},
      {"post",
       R"({"post_processor": {"type": "TemplateProcessing"}})",
       {"post_processor", "TemplateProcessing"}},
      {"prefix",
       R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true}})",
       {"add_prefix_space", "got true"}},
      {"regex",
       R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}})",
       {"use_regex", "got false"}},
      {"dropout", R"({"model": {"dropout": 0.1}})", {"dropout", "got 0.1"}},
      {"fallback", R"({"model": {"byte_fallback": true}})", {"byte_fallback"}},
      {"unknown", R"({"model": {"unk_token": "<unk>"}})", {"unk_token", "<unk>"}},
      {"ignore", R"({"model": {"ignore_merges": true}})", {"ignore_merges"}},
      {"suffix", R"({"model": {"end_of_word_suffix": "</w>"}})", {"end_of_word_suffix"}},
      {"truncation", R"({"truncation": {"max_length": 3}})", {"truncation"}},
      {"plain added",
       R"({"added_tokens": [{"id": 900, "content": "x", "special": false}]})",
       {"added token", "not special"}},
      {"byte", R"({"model": {"vocab": {"A": null}}})", {"lacks a byte", "0x41"}},
      {"two", R"({"model": {"vocab": {"AA": 40}}})", {"an id has two tokens", "40"}},
      {"negative", R"({"model": {"vocab": {"AA": -1}}})", {"vocab id", "got -1"}},
      {"float", R"({"model": {"vocab": {"AA": 1.5}}})", {"vocab id", "got 1.5"}},
      {"huge", R"({"model": {"vocab": {"AA": 99999999999}}})", {"vocab id", "99999999999"}},
      {"not bytes", R"({"model": {"vocab": {"中": 700}}})", {"not byte-level"}},
      {"merge", R"({"model": {"merges": ["zz qq"]}})", {"merges[0]", "vocab lacks"}},
      {"merge twice", R"({"model": {"merges": ["t h", "t h"]}})", {"merges[1]", "twice"}},
      {"merge shape", R"({"model": {"merges": [["t"]]}})", {"merges[0]", "two tokens"}},
      {"vocab", R"({"model": {"vocab": null}})", {"vocab is wrong", "none"}},
  };
  for (const BadFile& bad : cases) {
    SCOPED_TRACE(bad.name);
    Json file = golden_tokenizer();
    file.merge_patch(Json::parse(bad.patch));
    std::vector<std::string> parts = bad.parts;
    parts.push_back("[tokenizer]");
    expect_error([&] { load(file); }, parts);
  }
}

TEST(Tokenizer, SurvivesRandomDamage) {
  const std::string good = golden_tokenizer().dump();
  const TempFolder folder;
  uint64_t state = 1;
  int refused = 0;
  for (int round = 0; round < 200; ++round) {
    std::string bytes = good;
    for (int change = 0; change < 1 + round % 4; ++change) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      bytes[(state >> 33) % bytes.size()] = static_cast<char>(state >> 25);
    }
    folder.write("tokenizer.json", bytes);
    try {
      const Tokenizer tokenizer = Tokenizer::load(folder.path() / "tokenizer.json");
      const std::string text = "We've got 1024 tokens, Größe, 注意力";
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(Tokenizer, RefusesBrokenFiles) {
  const TempFolder folder;
  const auto file = folder.path() / "tokenizer.json";
  expect_error([&] { Tokenizer::load(file); }, {"[tokenizer]", "cannot read"});
  folder.write("tokenizer.json", "{\"model\": ");
  expect_error([&] { Tokenizer::load(file); }, {"[tokenizer]", "not JSON", "byte"});
  folder.write("tokenizer.json", "[]");
  expect_error([&] { Tokenizer::load(file); }, {"[tokenizer]", "root", "array"});
  folder.write("tokenizer.json", "{\"a\": 1, \"a\": 2}");
  expect_error([&] { Tokenizer::load(file); }, {"[tokenizer]", "twice", "\"a\""});
  folder.write("tokenizer.json", "{\"a\": " + std::string(100000, '['));
  expect_error([&] { Tokenizer::load(file); }, {"[tokenizer]", "too deeply"});
  folder.write("tokenizer.json", "{\"a\": \"\xff\"}");
  expect_error([&] { Tokenizer::load(file); }, {"[tokenizer]", "not JSON"});
}

}  // namespace
}  // namespace msa::runner::test
