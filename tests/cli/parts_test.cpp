// Numbers, text, tables, strips and progress of the tool.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "cli/parts/numbers.h"
#include "cli/parts/places.h"
#include "cli/parts/progress.h"
#include "cli/parts/random.h"
#include "cli/parts/strip.h"
#include "cli/parts/table.h"
#include "cli/parts/text.h"
#include "tests/cli/support.h"

namespace msa::cli {
namespace {

using testing::error_of;

TEST(Numbers, CountsTakeSuffixes) {
  EXPECT_EQ(parse_count("--length", "32K", 1, 1 << 20), 32768);
  EXPECT_EQ(parse_count("--length", "1M", 1, 1 << 20), 1048576);
  EXPECT_EQ(parse_count("--length", "128k", 1, 1 << 20), 131072);
  EXPECT_EQ(parse_count("--length", "77", 1, 1 << 20), 77);
}

TEST(Numbers, BadCountsSayWhatIsAllowed) {
  for (const char* text : {"", "K", "-1", "0", "2M", "1.5K", "12x", " 5", "99999999999999999999",
                           "9223372036854775807K", "0x10"}) {
    const std::string message = error_of([&] { parse_count("--length", text, 1, 1 << 20); });
    EXPECT_EQ(message,
              "--length: got '" + std::string(text) +
                  "', allowed a whole number from 1 to 1M (K and M mean 1024 and 1048576)");
  }
}

TEST(Numbers, SeedsAndReals) {
  EXPECT_EQ(parse_seed("--seed", "18446744073709551615"), UINT64_MAX);
  EXPECT_NE(error_of([] { parse_seed("--seed", "-1"); }), "");
  EXPECT_NE(error_of([] { parse_seed("--seed", "18446744073709551616"); }), "");
  EXPECT_EQ(parse_real("--top-p", "0.5", 0, 1), 0.5);
  for (const char* text : {"", "nan", "inf", "1.01", "-0.1", "0.5x"}) {
    EXPECT_NE(error_of([&] { parse_real("--top-p", text, 0, 1); }), "") << text;
  }
}

TEST(Numbers, ForPeople) {
  EXPECT_EQ(short_count(32768), "32K");
  EXPECT_EQ(short_count(1 << 20), "1M");
  EXPECT_EQ(short_count(1000), "1000");
  EXPECT_EQ(human_seconds(0.0123), "12 ms");
  EXPECT_EQ(human_seconds(12.34), "12.3 s");
  EXPECT_EQ(human_seconds(125), "2 min 05 s");
  EXPECT_EQ(human_bytes(1536e6), "1.5 GB");
}

TEST(Numbers, WilsonIntervalAgainstPublishedValues) {
  // 95 % score intervals: 81 of 263 is Newcombe's (1998) example; 0 of n has the closed form
  // z^2 / (n + z^2).
  const Interval interval = wilson_interval(81, 263);
  EXPECT_NEAR(interval.low, 0.2553, 5e-5);
  EXPECT_NEAR(interval.high, 0.3662, 5e-5);
  const double z2 = 1.959963984540054 * 1.959963984540054;
  EXPECT_NEAR(wilson_interval(0, 20).high, z2 / (20 + z2), 1e-12);
  EXPECT_EQ(wilson_interval(0, 20).low, 0);
  EXPECT_EQ(wilson_interval(20, 20).high, 1);
}

TEST(RandomNumbers, AreTheSameEverywhere) {
  // SplitMix64 from state 0 starts with this number.
  Random random(0);
  EXPECT_EQ(random.next(), 0xE220A8397B1DCDAFu);
  std::set<int64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.below(7));
  EXPECT_EQ(seen, (std::set<int64_t>{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_NE(Random(1, 0).next(), Random(1, 1).next());
}

TEST(Text, KnowsUtf8) {
  EXPECT_TRUE(is_valid_utf8("caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"));
  for (const char* bad : {"\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\x80", "a\xE2\x82"}) {
    EXPECT_FALSE(is_valid_utf8(bad));
  }
  EXPECT_TRUE(ends_in_open_character("a\xE2\x82"));
  EXPECT_FALSE(ends_in_open_character("a\xE2\x28"));
}

TEST(Text, StreamsWholeCharacters) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xE2"), "a");
  EXPECT_EQ(stream.push("\x82"), "");
  EXPECT_EQ(stream.push("\xAC!"), "\xE2\x82\xAC!");
  EXPECT_EQ(stream.push("\xFF"
                        "b\xF0\x9F"),
            "\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Text, ShortensByCharacters) {
  EXPECT_EQ(shorten("caf\xC3\xA9", 4), "caf\xC3\xA9");
  EXPECT_EQ(shorten("caf\xC3\xA9 noir", 7), "caf\xC3\xA9...");
  EXPECT_EQ(trim("  a b\n"), "a b");
  EXPECT_EQ(trim(" \n"), "");
  EXPECT_EQ(printable("a\x1b[31m\xC2\x9B\xFF"), "a?[31m?\xEF\xBF\xBD");
}

TEST(Text, FilesAreChecked) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "msa_parts_test";
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, const std::string& bytes) {
    std::ofstream(folder / name, std::ios::binary) << bytes;
    return (folder / name).string();
  };
  EXPECT_EQ(read_text_file(write("bom", "\xEF\xBB\xBFhello")), "hello");
  const std::string nul = write("nul", std::string("ab\0c", 4));
  EXPECT_EQ(error_of([&] { read_text_file(nul); }),
            nul + ": got a NUL byte at offset 2, allowed UTF-8 text without NUL");
  const std::string binary = write("binary", "ab\xFF");
  EXPECT_EQ(error_of([&] { read_text_file(binary); }),
            binary + ": got byte 0xFF at offset 2, allowed UTF-8 text");
  EXPECT_EQ(error_of([&] { read_text_file(folder.string()); }),
            folder.string() + ": got a directory, allowed a text file");
  EXPECT_EQ(error_of([&] { read_text_file("/nonexistent/x"); }),
            "/nonexistent/x: cannot read: No such file or directory");
  std::filesystem::remove_all(folder);
}

TEST(Tables, AlignAndCut) {
  Table table({{"name", Align::kLeft, 8}, {"n", Align::kRight}});
  table.add({"caf\xC3\xA9", "1"});
  table.add({"a very long name", "200"});
  EXPECT_EQ(table.text(), "name        n\ncaf\xC3\xA9        1\na ver...  200\n");
}

TEST(Strips, MarkThePlantedBlock) {
  StripOptions options;
  options.num_groups = 2;
  options.num_blocks = 6;
  options.planted_block = 2;
  const BlockReads reads = {{0, 5}, {0, 2, 5}};
  EXPECT_EQ(
      draw_strip(reads, options),
      "                    v\n"
      "layer 0  group 0 |o.x..o|\n"
      "layer 0  group 1 |o.@..o| read\n"
      ".  no block read   o  one   #  several   @  the fact's block was read   x  it was not\n");
  EXPECT_EQ(count_readers(reads, 2), 1);
}

TEST(Strips, FitInAHundredColumns) {
  StripOptions options;
  options.num_groups = 4;
  options.num_blocks = 16384;
  options.planted_block = 16383;
  BlockReads reads(20);
  for (auto& blocks : reads) blocks = {0, 1, 2, 16383};
  const std::string text = draw_strip(reads, options);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    EXPECT_LE(end - begin, 100u);
    begin = end + 1;
  }
  EXPECT_NE(text.find("|#........"), std::string::npos);
  EXPECT_NE(text.find("@| read"), std::string::npos);
}

TEST(ProgressLines, SayWhatIsLeft) {
  EXPECT_EQ(progress_line("reading", "tokens", 16, 64, 3.0),
            "reading  16 of 64 tokens, 25 %, 9.0 s left");
  EXPECT_EQ(progress_line("reading", "tokens", 0, 64, 3.0), "reading  0 of 64 tokens, 0 %");
  EXPECT_EQ(progress_line("reading", "tokens", 64, 64, 3.0), "reading  64 of 64 tokens, 100 %");
}

TEST(Places, SayWhereTheyLooked) {
  EXPECT_EQ(error_of([] { first_with({"/a", "/b"}, "models/x", "model", "one with --model"); }),
            "no model: found no models/x in /a, /b; give one with --model");
}

}  // namespace
}  // namespace msa::cli
