// What the tests of the runner share: folders that clean up after themselves, safetensors files
// written from C++ (honest and lying ones), and small models with random weights.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "msa/error.h"

namespace msa::runner::test {

using Json = nlohmann::json;

class TempFolder {
 public:
  TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder();
  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, std::string_view contents) const;

 private:
  std::filesystem::path path_;
};

std::string read_whole(const std::filesystem::path& file);

struct NamedTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};
using TensorMap = std::map<std::string, NamedTensor>;

/// The bytes of a safetensors file with these tensors as F32, BF16 or F16 (exact values assumed).
std::string safetensors_bytes(const TensorMap& tensors, const std::string& dtype = "F32");
/// A header that says whatever it likes, and data.
std::string safetensors_bytes(const std::string& header, const std::string& data);

/// A model small enough for plain loops: 3 layers (full, sparse, sparse), 4 heads on 2, B = 4,
/// K = 3, vocabulary of 50.
Json tiny_config();
/// Random weights for a configuration, under the names that Transformers writes.
TensorMap random_weights(const Json& config, uint64_t seed = 1);
/// The same tensors under the published names, with "language_model." in front.
TensorMap published_names(const TensorMap& tensors);
/// The same configuration in the published spelling.
Json published_config(const Json& config);

void write_model(const TempFolder& folder, const Json& config, const TensorMap& tensors,
                 const std::string& dtype = "F32");

/// Token ids below `vocabulary`, reproducible.
std::vector<int32_t> random_tokens(int64_t count, int64_t vocabulary, uint64_t seed = 7);

/// Runs body, which must throw msa::Error with one line that contains every part.
void expect_error(const std::function<void()>& body, const std::vector<std::string>& parts);

}  // namespace msa::runner::test
