#include "cli/verify/pack.h"

#include <fmt/format.h>

#include <cstring>

#include "runner/files/fail.h"
#include "runner/files/json.h"

namespace msa::cli {
namespace {

using runner::fail;
using runner::Json;
using runner::quote;
using runner::require;

constexpr const char* kWhat = "conformance pack";
constexpr uintmax_t kMaxIndexBytes = 16'000'000;
constexpr int64_t kMaxExtent = int64_t{1} << 40;
constexpr int64_t kMaxViewExtent = int64_t{1} << 20;

const Json& member(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) fail(kWhat, "index.json lacks a key: got no {}", quote(key));
  return *found;
}

std::string text(const Json& object, const char* key) {
  return runner::json_string(kWhat, key, member(object, key));
}

void require_array(const Json& value, const char* key) {
  require(value.is_array(), kWhat, "{} is wrong: got {}, allowed an array", key, value.type_name());
}

void require_object(const Json& value, const char* key) {
  require(value.is_object(), kWhat, "{} is wrong: got {}, allowed an object", key,
          value.type_name());
}

/// The member, which has to be an array, or an object.
const Json& array_member(const Json& object, const char* key) {
  const Json& value = member(object, key);
  require_array(value, key);
  return value;
}
const Json& object_member(const Json& object, const char* key) {
  const Json& value = member(object, key);
  require_object(value, key);
  return value;
}

std::vector<int64_t> integers(const Json& value, const char* key) {
  std::vector<int64_t> numbers;
  require_array(value, key);
  for (const Json& number : value) {
    numbers.push_back(runner::json_integer(kWhat, key, number, 0, kMaxExtent));
  }
  return numbers;
}

double tolerance(const Json& entry, const char* key) {
  const Json* value = runner::json_member(entry, key);
  return value == nullptr ? 0 : runner::json_number(kWhat, key, *value, 0, 1);
}

PackInput read_input(const Json& entry) {
  require_object(entry, "inputs");
  PackInput input;
  input.tensor = text(entry, "tensor");
  if (!entry.contains("shape")) return input;
  input.shape = integers(member(entry, "shape"), "shape");
  input.strides = integers(member(entry, "strides"), "strides");
  input.offset = runner::json_integer(kWhat, "offset", member(entry, "offset"), 0, kMaxExtent);
  return input;
}

PackResult read_result(const Json& entry) {
  require_object(entry, "expect");
  PackResult result;
  result.tensor = text(entry, "tensor");
  result.how = text(entry, "how");
  require(result.how == "equal" || result.how == "close" || result.how == "selection", kWhat,
          "how is wrong: got {}, allowed equal, close, selection", quote(result.how));
  result.absolute = tolerance(entry, "absolute");
  result.relative = tolerance(entry, "relative");
  result.per_element = entry.contains("absolute") || entry.contains("relative");
  result.frobenius = tolerance(entry, "frobenius");
  if (entry.contains("combine")) {
    require(text(entry, "combine") == "max", kWhat, "combine is wrong: got {}, allowed \"max\"",
            quote(text(entry, "combine")));
    result.larger_of = true;
  }
  if (entry.contains("factor")) result.factor = text(entry, "factor");
  return result;
}

PackCase read_case(const Json& entry) {
  require_object(entry, "cases");
  PackCase result;
  result.name = text(entry, "name");
  result.arguments = object_member(entry, "arguments");
  for (const auto& [key, input] : object_member(entry, "inputs").items()) {
    result.inputs.emplace(key, read_input(input));
  }
  result.refused = entry.contains("refused");
  if (result.refused) return result;
  for (const auto& [key, expected] : object_member(entry, "expect").items()) {
    result.expect.emplace(key, read_result(expected));
  }
  require(!result.expect.empty(), kWhat, "case {} expects nothing: got no results, allowed some",
          quote(result.name));
  return result;
}

EqualRows read_equal_rows(const Json& entry) {
  require(entry.is_array() && entry.size() == 5, kWhat,
          "bitwise is wrong: got {}, allowed [case, row, case, row, count]",
          runner::describe_json(entry));
  return {.case_a = runner::json_string(kWhat, "bitwise", entry[0]),
          .row_a = runner::json_integer(kWhat, "bitwise", entry[1], 0, kMaxExtent),
          .case_b = runner::json_string(kWhat, "bitwise", entry[2]),
          .row_b = runner::json_integer(kWhat, "bitwise", entry[3], 0, kMaxExtent),
          .count = runner::json_integer(kWhat, "bitwise", entry[4], 1, kMaxExtent)};
}

PackRule read_rule(const Json& entry) {
  require_object(entry, "rules");
  PackRule rule;
  rule.name = text(entry, "rule");
  rule.demand = text(entry, "demand");
  rule.op = text(entry, "op");
  for (const Json& item : array_member(entry, "cases")) {
    rule.cases.push_back(read_case(item));
  }
  require(!rule.cases.empty(), kWhat, "rule {} is empty: got no cases, allowed some",
          quote(rule.name));
  if (entry.contains("bitwise")) {
    for (const Json& item : array_member(entry, "bitwise")) {
      rule.bitwise.push_back(read_equal_rows(item));
    }
  }
  return rule;
}

std::optional<DType> op_type(const std::string& stored) {
  if (stored == "F32") return DType::kFloat32;
  if (stored == "BF16") return DType::kBFloat16;
  if (stored == "F16") return DType::kFloat16;
  if (stored == "I32") return DType::kInt32;
  return {};
}

}  // namespace

Pack Pack::open(const std::filesystem::path& folder) {
  Pack pack;
  pack.folder_ = folder;
  const Json index = runner::parse_json_object(
      kWhat, "index.json", runner::read_json_text(kWhat, folder / "index.json", kMaxIndexBytes));
  const std::string format = text(index, "format");
  require(format == "msa-conformance", kWhat, "format is wrong: got {}, allowed msa-conformance",
          quote(format));
  const int64_t version = runner::json_integer(kWhat, "version", member(index, "version"), 1, 1);
  static_cast<void>(version);  // read for its check: this reader knows version 1 alone
  for (const Json& entry : array_member(index, "rules")) {
    pack.rules_.push_back(read_rule(entry));
  }
  require(!pack.rules_.empty(), kWhat, "{} is empty: got no rules, allowed some",
          quote(folder.string()));
  return pack;
}

int64_t Pack::num_cases() const {
  size_t count = 0;
  for (const PackRule& rule : rules_) count += rule.cases.size();
  return static_cast<int64_t>(count);
}

const runner::StoredTensor& Pack::tensor(const std::string& name) const {
  const size_t slash = name.find('/');
  const bool plain = slash != std::string::npos && slash > 0 && name[0] != '.' &&
                     name.find('/', slash + 1) == std::string::npos;
  require(plain, kWhat, "a tensor's name is wrong: got {}, allowed FILE/NAME", quote(name));
  const std::string file = name.substr(0, slash);
  auto found = files_.find(file);
  if (found == files_.end()) {
    const std::string file_name = file + ".safetensors";
    File opened;
    opened.mapped = std::make_unique<runner::MappedFile>(folder_ / file_name);
    opened.tensors =
        runner::parse_safetensors(file_name, opened.mapped->data(), opened.mapped->size());
    found = files_.emplace(file, std::move(opened)).first;
  }
  const auto tensor = found->second.tensors.find(name.substr(slash + 1));
  require(tensor != found->second.tensors.end(), kWhat, "a tensor is missing: got no {}",
          quote(name));
  return tensor->second;
}

AlignedBytes::AlignedBytes(size_t bytes) : bytes_(bytes + 64) {
  const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
  data_ = bytes_.data() + (64 - address % 64);
}

LoadedInput load_input(const Pack& pack, const std::string& name, const PackInput& input) {
  const runner::StoredTensor& stored = pack.tensor(input.tensor);
  const std::optional<DType> dtype = op_type(stored.dtype);
  require(dtype.has_value(), kWhat, "{} has the wrong type: got {}, allowed F32, BF16, F16, I32",
          quote(input.tensor), stored.dtype);
  const std::vector<int64_t>& shape = input.shape.empty() ? stored.shape : input.shape;
  require(!shape.empty() && shape.size() <= static_cast<size_t>(kMaxRank), kWhat,
          "{} has the wrong rank: got {}, allowed 1 to {}", name, shape.size(), kMaxRank);
  const bool strided = !input.shape.empty();
  require(!strided || input.strides.size() == shape.size(), kWhat,
          "{} has a wrong view: got {} strides for {} axes", name, input.strides.size(),
          shape.size());
  LoadedInput loaded;
  loaded.memory = std::make_shared<AlignedBytes>(stored.bytes);
  if (stored.bytes > 0) std::memcpy(loaded.memory->data(), stored.data, stored.bytes);
  Tensor& view = loaded.view;
  view.dtype = dtype.value_or(DType::kFloat32);
  view.rank = static_cast<int>(shape.size());
  int64_t step = 1;
  int64_t last = input.offset;  // at most 5 terms below 2^60: no overflow
  bool empty = false;
  for (size_t axis = shape.size(); axis-- > 0;) {
    view.shape[axis] = shape[axis];
    view.stride[axis] = strided ? input.strides[axis] : step;
    step *= shape[axis];
    if (!strided) continue;
    require(shape[axis] < kMaxViewExtent, kWhat, "{} has a wrong view: got extent {}, allowed {}",
            name, shape[axis], kMaxViewExtent - 1);
    empty = empty || shape[axis] == 0;
    last += empty ? 0 : (shape[axis] - 1) * view.stride[axis];
  }
  require(!strided || (!empty && last < stored.num_elements()), kWhat,
          "{} has a view outside its tensor: got element {}, allowed less than {}", name, last,
          stored.num_elements());
  view.data = loaded.memory->data() + static_cast<size_t>(input.offset) * dtype_bytes(view.dtype);
  return loaded;
}

std::vector<double> to_doubles(const std::string& name, const runner::StoredTensor& tensor) {
  const auto count = static_cast<size_t>(tensor.num_elements());
  std::vector<double> values(count);
  if (tensor.dtype == "F64") {
    if (count > 0) std::memcpy(values.data(), tensor.data, count * sizeof(double));
    return values;
  }
  if (tensor.dtype == "I32") {
    for (size_t n = 0; n < count; ++n) {
      int32_t value = 0;
      std::memcpy(&value, tensor.data + n * sizeof(value), sizeof(value));
      values[n] = value;
    }
    return values;
  }
  const std::vector<float> floats = runner::to_float32(name, tensor);
  return {floats.begin(), floats.end()};
}

}  // namespace msa::cli
