// A conformance pack on disk: index.json with the rules, safetensors files with their tensors.
// docs/conformance.md has the format. Nothing in a pack is believed: names, types, shapes, strides
// and sizes are checked here, so that a broken pack ends in one line and never in a crash.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "msa/msa.h"
#include "runner/files/safetensors.h"

namespace msa::cli {

/// An input: a stored tensor, or a strided view of one.
struct PackInput {
  std::string tensor;
  std::vector<int64_t> shape;    // empty: the tensor as it is
  std::vector<int64_t> strides;  // in elements
  int64_t offset = 0;
};

/// What an output has to be, and how nearly.
struct PackResult {
  std::string tensor;
  std::string how;           // "equal", "close" or "selection"
  double absolute = 0;       // allowed = factor * (absolute + relative * abs(expected))
  double relative = 0;       //   or, with larger_of, factor * max(of the two)
  bool larger_of = false;    // "combine": "max"
  bool per_element = false;  // absolute or relative is given
  double frobenius = 0;      // 0: not asked
  std::string factor;        // "": 1 everywhere
};

struct PackCase {
  std::string name;
  nlohmann::json arguments;
  std::map<std::string, PackInput> inputs;
  std::map<std::string, PackResult> expect;
  bool refused = false;  // the op has to refuse the arguments
};

/// Rows [row, row + count) of one case equal those of another to the bit.
struct EqualRows {
  std::string case_a;
  int64_t row_a = 0;
  std::string case_b;
  int64_t row_b = 0;
  int64_t count = 0;
};

struct PackRule {
  std::string name;
  std::string demand;
  std::string op;
  std::vector<PackCase> cases;
  std::vector<EqualRows> bitwise;  // not empty: reruns and thread counts are compared too
};

class Pack {
 public:
  /// Throws msa::Error when the folder holds no readable pack.
  static Pack open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  const std::vector<PackRule>& rules() const { return rules_; }
  int64_t num_cases() const;
  /// FILE/NAME; the file is mapped when first asked for, and stays.
  const runner::StoredTensor& tensor(const std::string& name) const;

 private:
  struct File {
    std::unique_ptr<runner::MappedFile> mapped;
    std::map<std::string, runner::StoredTensor> tensors;
  };
  std::filesystem::path folder_;
  std::vector<PackRule> rules_;
  mutable std::map<std::string, File> files_;
};

/// Memory with the alignment that ops ask for.
class AlignedBytes {
 public:
  explicit AlignedBytes(size_t bytes);
  AlignedBytes(AlignedBytes&&) = default;  // the bytes stay where they are
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_.size() - static_cast<size_t>(data_ - bytes_.data()); }

 private:
  std::vector<std::byte> bytes_;
  std::byte* data_;
};

/// An input as an op takes it: a copy of the stored bytes, aligned, and the view of it.
struct LoadedInput {
  std::shared_ptr<AlignedBytes> memory;
  Tensor view;
};
LoadedInput load_input(const Pack& pack, const std::string& name, const PackInput& input);

/// Elements of a stored tensor of any type.
std::vector<double> to_doubles(const std::string& name, const runner::StoredTensor& tensor);

}  // namespace msa::cli
