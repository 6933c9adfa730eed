#include "runner/files/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <set>

#include "runner/files/json.h"
#include "runner/layers/bfloat16.h"

namespace msa::runner {
namespace {

constexpr const char* kWhat = "safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr size_t kMaxHeaderBytes = 100'000'000;  // the limit that the format itself states
constexpr uintmax_t kMaxIndexBytes = 100'000'000;
constexpr int64_t kMaxElements = int64_t{1} << 56;

struct ElementType {
  const char* name;
  size_t bytes;
};
constexpr std::array<ElementType, 15> kElementTypes = {{{"BOOL", 1},
                                                        {"U8", 1},
                                                        {"I8", 1},
                                                        {"F8_E5M2", 1},
                                                        {"F8_E4M3", 1},
                                                        {"I16", 2},
                                                        {"U16", 2},
                                                        {"F16", 2},
                                                        {"BF16", 2},
                                                        {"I32", 4},
                                                        {"U32", 4},
                                                        {"F32", 4},
                                                        {"F64", 8},
                                                        {"I64", 8},
                                                        {"U64", 8}}};

size_t element_bytes(const std::string& file, const std::string& tensor, const std::string& dtype) {
  std::string known;
  for (const ElementType& type : kElementTypes) {
    if (dtype == type.name) return type.bytes;
    known += (known.empty() ? "" : ", ") + std::string(type.name);
  }
  fail(kWhat, "{}: {} has an unknown dtype: got {}, allowed {}", file, quote(tensor), quote(dtype),
       known);
}

Metadata read_metadata(const std::string& file, const Json& metadata) {
  Metadata entries;
  require(metadata.is_object(), kWhat, "{}: __metadata__ is wrong: got {}, allowed an object", file,
          metadata.type_name());
  for (const auto& [key, value] : metadata.items()) {
    require(value.is_string(), kWhat, "{}: __metadata__ {} is wrong: got {}, allowed a string",
            file, quote(key), value.type_name());
    entries.emplace(key, value.get<std::string>());
  }
  return entries;
}

/// One entry of the header; its range is in [begin, end) of the data.
struct Entry {
  std::string name;
  StoredTensor tensor;
  int64_t begin = 0;
  int64_t end = 0;
};

Entry read_entry(const std::string& file, const std::string& name, const Json& value,
                 const std::byte* data, size_t data_bytes) {
  const std::string label = fmt::format("{}: {}", file, quote(name));
  require(value.is_object(), kWhat, "{} is wrong: got {}, allowed an object", label,
          value.type_name());
  for (const auto& [key, ignored] : value.items()) {
    require(key == "dtype" || key == "shape" || key == "data_offsets", kWhat,
            "{} has an unknown key: got {}, allowed dtype, shape, data_offsets", label, quote(key));
  }
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    require(value.contains(key), kWhat, "{} lacks {}: got none, allowed one", label, key);
  }
  Entry entry;
  entry.name = name;
  entry.tensor.dtype = json_string(kWhat, label + " dtype", value["dtype"]);
  const size_t item = element_bytes(file, name, entry.tensor.dtype);

  const Json& shape = value["shape"];
  require(shape.is_array() && shape.size() <= 8, kWhat,
          "{} shape is wrong: got {}, allowed an array of at most 8 extents", label,
          describe_json(shape));
  int64_t elements = 1;
  for (const Json& extent : shape) {
    const int64_t size = json_integer(kWhat, label + " shape", extent, 0, kMaxElements);
    require(size == 0 || elements <= kMaxElements / size, kWhat,
            "{} shape overflows: got more than 2^56 elements, allowed at most 2^56", label);
    elements *= size;
    entry.tensor.shape.push_back(size);
  }
  const Json& offsets = value["data_offsets"];
  require(offsets.is_array() && offsets.size() == 2, kWhat,
          "{} data_offsets is wrong: got {}, allowed two integers", label, describe_json(offsets));
  const auto limit = static_cast<int64_t>(data_bytes);
  entry.begin = json_integer(kWhat, label + " data_offsets[0]", offsets[0], 0, limit);
  entry.end = json_integer(kWhat, label + " data_offsets[1]", offsets[1], entry.begin, limit);
  const int64_t bytes = elements * static_cast<int64_t>(item);
  require(entry.end - entry.begin == bytes, kWhat,
          "{} has the wrong size: got {} bytes of data_offsets, allowed {} for its shape and dtype",
          label, entry.end - entry.begin, bytes);
  entry.tensor.bytes = static_cast<size_t>(bytes);
  entry.tensor.data = data + entry.begin;
  return entry;
}

}  // namespace

std::map<std::string, std::string> parse_shard_index(std::string_view json) {
  const Json root = parse_json_object(kWhat, kIndexName, json);
  const Json* map = json_member(root, "weight_map");
  require(map != nullptr && map->is_object() && !map->empty(), kWhat,
          "{} has no weight_map: got {}, allowed an object of tensor names", "the index",
          map == nullptr ? "none" : map->type_name());
  std::map<std::string, std::string> shards;
  for (const auto& [name, value] : map->items()) {
    const std::string& shard = json_string(kWhat, "weight_map " + quote(name), value);
    const bool plain = !shard.empty() && shard.find('/') == std::string::npos && shard[0] != '.' &&
                       shard.find('\0') == std::string::npos;
    require(plain, kWhat, "weight_map {} is wrong: got {}, allowed a file name in the folder",
            quote(name), quote(shard));
    shards.emplace(name, shard);
  }
  return shards;
}

int64_t StoredTensor::num_elements() const {
  int64_t elements = 1;
  for (int64_t extent : shape) elements *= extent;
  return elements;
}

MappedFile::MappedFile(const std::filesystem::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  require(descriptor >= 0, kWhat, "cannot open {}: got {}, allowed a readable file",
          quote(file.string()), std::strerror(errno));
  struct stat status = {};
  const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  if (regular && status.st_size > 0) {
    void* mapped =
        ::mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (mapped != MAP_FAILED) {
      data_ = static_cast<const std::byte*>(mapped);
      size_ = static_cast<size_t>(status.st_size);
    }
  }
  ::close(descriptor);
  require(regular, kWhat, "cannot map {}: got no regular file, allowed one", quote(file.string()));
  require(status.st_size == 0 || data_ != nullptr, kWhat,
          "cannot map {}: got no address space for {} bytes, allowed as much", quote(file.string()),
          status.st_size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::map<std::string, StoredTensor> parse_safetensors(const std::string& name,
                                                      const std::byte* data, size_t size,
                                                      Metadata* metadata) {
  require(size >= 8, kWhat, "{} is truncated: got {} bytes, allowed at least 8", name, size);
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < 8; ++i) header_bytes |= std::to_integer<uint64_t>(data[i]) << (8 * i);
  const uint64_t most = std::min<uint64_t>(size - 8, kMaxHeaderBytes);
  require(header_bytes >= 2 && header_bytes <= most, kWhat,
          "{} has a wrong header length: got {}, allowed 2 to {}", name, header_bytes, most);
  const std::string_view text(reinterpret_cast<const char*>(data + 8),
                              static_cast<size_t>(header_bytes));
  require(text[0] == '{', kWhat, "{} has a wrong header: got byte {:#04x} first, allowed {{", name,
          static_cast<unsigned char>(text[0]));
  const Json header = parse_json(kWhat, name + " header", text);
  require(header.is_object(), kWhat, "{} has a wrong header: got {}, allowed an object", name,
          header.type_name());

  const std::byte* values = data + 8 + header_bytes;
  const size_t value_bytes = size - 8 - static_cast<size_t>(header_bytes);
  std::vector<Entry> entries;
  for (const auto& [key, value] : header.items()) {
    if (key == "__metadata__") {
      Metadata found = read_metadata(name, value);
      if (metadata != nullptr) *metadata = std::move(found);
    } else {
      entries.push_back(read_entry(name, key, value, values, value_bytes));
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  int64_t covered = 0;
  for (const Entry& entry : entries) {
    require(entry.begin == covered, kWhat,
            "{}: {} {} its neighbour: got data_offsets[0] {}, allowed {}", name, quote(entry.name),
            entry.begin < covered ? "overlaps" : "leaves a gap after", entry.begin, covered);
    covered = entry.end;
  }
  require(static_cast<size_t>(covered) == value_bytes, kWhat,
          "{} has data that no tensor owns: got {} bytes of data, allowed {}", name, value_bytes,
          covered);
  std::map<std::string, StoredTensor> tensors;
  for (Entry& entry : entries) tensors.emplace(std::move(entry.name), std::move(entry.tensor));
  return tensors;
}

TensorFolder TensorFolder::open(const std::filesystem::path& folder) {
  const std::filesystem::path single = folder / "model.safetensors";
  const std::filesystem::path index = folder / kIndexName;
  std::error_code ignored;
  const bool has_single = std::filesystem::exists(single, ignored);
  const bool has_index = std::filesystem::exists(index, ignored);
  require(has_single != has_index, kWhat,
          "{} has {}: allowed one of model.safetensors and model.safetensors.index.json",
          quote(folder.string()),
          has_single ? "two sets of weights: got both" : "no weights: got neither");
  TensorFolder result;
  if (has_single) {
    result.files_.push_back(std::make_unique<MappedFile>(single));
    const MappedFile& file = *result.files_.back();
    result.tensors_ = parse_safetensors("model.safetensors", file.data(), file.size());
    return result;
  }
  const std::map<std::string, std::string> places =
      parse_shard_index(read_json_text(kWhat, index, kMaxIndexBytes));
  std::set<std::string> shards;
  for (const auto& [name, shard] : places) shards.insert(shard);
  for (const std::string& shard : shards) {
    result.files_.push_back(std::make_unique<MappedFile>(folder / shard));
    const MappedFile& file = *result.files_.back();
    for (auto& [name, tensor] : parse_safetensors(shard, file.data(), file.size())) {
      const auto place = places.find(name);
      require(place != places.end() && place->second == shard, kWhat,
              "{} holds a tensor that the index does not put there: got {}, allowed those of its "
              "weight_map",
              shard, quote(name));
      result.tensors_.emplace(name, std::move(tensor));
    }
  }
  for (const auto& [name, shard] : places) {
    require(result.tensors_.contains(name), kWhat,
            "{} lacks a tensor of the index: got no {}, allowed all of its weight_map", shard,
            quote(name));
  }
  return result;
}

std::vector<float> to_float32(const std::string& name, const StoredTensor& tensor) {
  const auto count = static_cast<size_t>(tensor.num_elements());
  std::vector<float> values(count);
  if (tensor.dtype == "F32") {
    if (count > 0) std::memcpy(values.data(), tensor.data, count * sizeof(float));
    return values;
  }
  const bool bfloat16 = tensor.dtype == "BF16";
  require(bfloat16 || tensor.dtype == "F16", kWhat,
          "{} has a dtype that the runner does not read: got {}, allowed F32, BF16, F16",
          quote(name), tensor.dtype);
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, tensor.data + 2 * i, 2);
    values[i] = bfloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
  }
  return values;
}

}  // namespace msa::runner
