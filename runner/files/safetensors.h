// Reader of the safetensors format over mmap.
//
//   file   = header length (uint64, little endian) | header (JSON) | data
//   header = { name: { dtype, shape, data_offsets: [begin, end) }, ..., __metadata__: strings }
//
// Nothing in the header is believed: lengths, shapes and offsets are checked for overflow, against
// each other and against the file, and the tensors must cover the data exactly, without overlap or
// gap. A folder holds one model.safetensors, or shards with a model.safetensors.index.json.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace msa::runner {

struct StoredTensor {
  std::string dtype;  // as written: "F32", "BF16", ...
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  // any alignment
  size_t bytes = 0;

  int64_t num_elements() const;
};

/// A whole file mapped read-only.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& file);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// All tensors of a model folder by name. The data lives as long as this object.
class TensorFolder {
 public:
  static TensorFolder open(const std::filesystem::path& folder);

  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }

 private:
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, StoredTensor> tensors_;
};

using Metadata = std::map<std::string, std::string>;

/// The tensors of one file's bytes; `name` is for messages. The entry that fuzzing drives.
std::map<std::string, StoredTensor> parse_safetensors(const std::string& name,
                                                      const std::byte* data, size_t size,
                                                      Metadata* metadata = nullptr);

/// The shards that a model.safetensors.index.json names: tensor -> file. Likewise.
std::map<std::string, std::string> parse_shard_index(std::string_view json);

/// Elements as float32. Throws for a dtype other than F32, BF16 and F16.
std::vector<float> to_float32(const std::string& name, const StoredTensor& tensor);

}  // namespace msa::runner
