// Safetensors files that lie, and those that do not.
#include "runner/files/safetensors.h"

#include "tests/runner/fixture.h"

namespace msa::runner::test {
namespace {

std::map<std::string, StoredTensor> parse(const std::string& bytes) {
  return parse_safetensors("x.safetensors", reinterpret_cast<const std::byte*>(bytes.data()),
                           bytes.size());
}

TEST(Safetensors, ReadsTheThreeFloatTypes) {
  const TensorMap tensors = {
      {"a", {{2, 3}, {0, 1, -2, 0.5f, 3, -0.25f}}}, {"b", {{0, 4}, {}}}, {"c", {{}, {7}}}};
  for (const char* dtype : {"F32", "BF16", "F16"}) {
    const std::string bytes = safetensors_bytes(tensors, dtype);
    const auto read = parse(bytes);
    ASSERT_EQ(read.size(), 3u);
    for (const auto& [name, tensor] : tensors) {
      EXPECT_EQ(read.at(name).shape, tensor.shape);
      EXPECT_EQ(to_float32(name, read.at(name)), tensor.values) << dtype;
    }
  }
}

struct Lie {
  const char* name;
  std::string header;
  size_t data_bytes;
  std::vector<std::string> parts;
};

TEST(Safetensors, RefusesHeadersThatLie) {
  const Lie lies[] = {
      {"not json", "{\"a\": ", 0, {"not JSON"}},
      {"not an object", "[1, 2]", 0, {"wrong header", "0x5b"}},
      {"trailing", "{} x", 0, {"not JSON"}},
      {"duplicate",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                        "a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       1,
       {"twice", "\"a\""}},
      {"no dtype", R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1, {"lacks dtype"}},
      {"no shape", R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, {"lacks shape"}},
      {"no offsets", R"({"a":{"dtype":"U8","shape":[1]}})", 1, {"lacks data_offsets"}},
      {"extra key",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"strides":[1]}})",
       1,
       {"unknown key", "strides"}},
      {"entry", R"({"a":3})", 0, {"allowed an object"}},
      {"dtype",
       R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}})",
       1,
       {"unknown dtype", "\"F4\"", "BF16"}},
      {"dtype number",
       R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,1]}})",
       1,
       {"dtype", "got 4"}},
      {"negative extent",
       R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})",
       1,
       {"shape", "got -1"}},
      {"float extent",
       R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})",
       1,
       {"shape", "got 1.0"}},
      {"overflow",
       R"({"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}})",
       0,
       {"overflows"}},
      {"overflow to zero",
       R"({"a":{"dtype":"F32","shape":[70368744177664,1024,256],"data_offsets":[0,0]}})",
       0,
       {"overflows"}},
      {"huge extent",
       R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})",
       1,
       {"shape", "18446744073709551615"}},
      {"rank",
       R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})",
       1,
       {"at most 8"}},
      {"past the end",
       R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})",
       4,
       {"data_offsets[1]", "got 9", "to 4"}},
      {"backwards",
       R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[3,2]}})",
       4,
       {"data_offsets[1]", "got 2", "from 3"}},
      {"negative offset",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})",
       4,
       {"data_offsets[0]", "got -1"}},
      {"three offsets",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})",
       4,
       {"two integers"}},
      {"size",
       R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
       4,
       {"wrong size", "got 4 bytes", "allowed 8"}},
      {"overlap",
       R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},
                      "b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
       4,
       {"overlaps", "\"b\"", "got data_offsets[0] 2", "allowed 3"}},
      {"gap",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                  "b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
       4,
       {"gap", "\"b\""}},
      {"tail",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       4,
       {"no tensor owns", "got 4", "allowed 1"}},
      {"metadata", R"({"__metadata__":{"a":1}})", 0, {"__metadata__", "allowed a string"}},
      {"metadata list", R"({"__metadata__":[]})", 0, {"__metadata__", "allowed an object"}},
      {"hostile name", "{\"a\\nb\\u0007\":{\"dtype\":\"U8\"}}", 0, {"a\\x0ab\\x07"}},
  };
  for (const Lie& lie : lies) {
    SCOPED_TRACE(lie.name);
    std::vector<std::string> parts = lie.parts;
    parts.push_back("[safetensors]");
    parts.push_back("x.safetensors");
    const std::string bytes = safetensors_bytes(lie.header, std::string(lie.data_bytes, '\1'));
    expect_error([&] { parse(bytes); }, parts);
  }
  const std::string deep =
      safetensors_bytes("{\"a\":" + std::string(200, '[') + std::string(200, ']') + "}", "");
  expect_error([&] { parse(deep); }, {"too deeply"});
}

TEST(Safetensors, RefusesEveryTruncation) {
  const std::string bytes = safetensors_bytes(TensorMap{{"a", {{2, 2}, {1, 2, 3, 4}}}});
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string part = bytes.substr(0, size);  // a copy, so that sanitizers see its end
    expect_error([&] { parse(part); }, {"[safetensors]", "got"});
  }
  EXPECT_EQ(parse(bytes).size(), 1u);
}

TEST(Safetensors, RefusesHeaderLengthsThatDoNotFit) {
  for (uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40, ~uint64_t{0}}) {
    std::string bytes = safetensors_bytes(std::string("{}"), "");
    for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>((length >> (8 * i)) & 0xFF);
    expect_error([&] { parse(bytes); }, {"header length", "got " + std::to_string(length)});
  }
}

TEST(Safetensors, NamesTypesThatItDoesNotRead) {
  const auto read =
      parse(safetensors_bytes(R"({"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})", "abcd"));
  expect_error([&] { to_float32("a", read.at("a")); }, {"I32", "allowed F32, BF16, F16"});
}

TEST(Safetensors, SurvivesRandomDamage) {
  const std::string good =
      safetensors_bytes(TensorMap{{"a", {{2, 2}, {1, 2, 3, 4}}}, {"b", {{3}, {1, 2, 3}}}}, "BF16");
  uint64_t state = 1;
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    for (int change = 0; change < 1 + round % 4; ++change) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      bytes[(state >> 33) % (bytes.size() - 14)] = static_cast<char>(state >> 25);
    }
    try {
      for (const auto& [name, tensor] : parse(bytes)) {
        EXPECT_LE(tensor.bytes, bytes.size());
        EXPECT_GE(tensor.data, reinterpret_cast<const std::byte*>(bytes.data()));
        EXPECT_LE(tensor.data + tensor.bytes,
                  reinterpret_cast<const std::byte*>(bytes.data() + bytes.size()));
      }
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 2000);
}

TEST(TensorFolder, ReadsShardsAndRefusesWrongOnes) {
  const TensorMap first = {{"a", {{2}, {1, 2}}}};
  const TensorMap second = {{"b", {{1}, {3}}}, {"c", {{1}, {4}}}};
  const auto write = [&](const TempFolder& folder, const Json& map) {
    folder.write("one.safetensors", safetensors_bytes(first));
    folder.write("two.safetensors", safetensors_bytes(second));
    folder.write("model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  };
  const Json right = {{"a", "one.safetensors"}, {"b", "two.safetensors"}, {"c", "two.safetensors"}};
  {
    const TempFolder folder;
    write(folder, right);
    const TensorFolder tensors = TensorFolder::open(folder.path());
    ASSERT_EQ(tensors.tensors().size(), 3u);
    EXPECT_EQ(to_float32("c", tensors.tensors().at("c")), std::vector<float>{4});
  }
  const auto refuse = [&](const Json& map, const std::vector<std::string>& parts) {
    const TempFolder folder;
    write(folder, map);
    expect_error([&] { TensorFolder::open(folder.path()); }, parts);
  };
  Json map = right;
  map["d"] = "one.safetensors";
  refuse(map, {"one.safetensors lacks", "\"d\""});
  map = right;
  map.erase("c");
  refuse(map, {"two.safetensors holds", "\"c\""});
  map = right;
  map["c"] = "one.safetensors";
  refuse(map, {"two.safetensors holds", "\"c\""});
  map = right;
  map["c"] = "../two.safetensors";
  refuse(map, {"\"../two.safetensors\"", "a file name in the folder"});
  map = right;
  map["c"] = "three.safetensors";
  refuse(map, {"cannot open", "three.safetensors"});
  map = right;
  map["c"] = 3;
  refuse(map, {"weight_map", "got 3"});
  refuse(Json::object(), {"weight_map"});
  refuse(Json(4), {"weight_map"});
}

TEST(TensorFolder, RefusesFoldersWithoutOrWithTwoSetsOfWeights) {
  const TempFolder folder;
  expect_error([&] { TensorFolder::open(folder.path()); }, {"no weights", "model.safetensors"});
  expect_error([&] { TensorFolder::open(folder.path() / "absent"); }, {"no weights"});
  folder.write("model.safetensors", safetensors_bytes(TensorMap{}));
  folder.write("model.safetensors.index.json", "{}");
  expect_error([&] { TensorFolder::open(folder.path()); }, {"two sets of weights"});
  const TempFolder directory;
  std::filesystem::create_directory(directory.path() / "model.safetensors");
  expect_error([&] { TensorFolder::open(directory.path()); }, {"no regular file"});
}

}  // namespace
}  // namespace msa::runner::test
