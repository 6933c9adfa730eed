// safetensors files and their shard indexes: whatever the bytes, they are refused by msa::Error or
// every tensor's data lies inside them. An input that starts with '{' is an index.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "msa/error.h"
#include "runner/files/safetensors.h"

namespace {

using msa::runner::StoredTensor;

void check_tensor(const std::string& name, const StoredTensor& tensor, const std::byte* begin,
                  const std::byte* end) {
  if (tensor.data < begin || tensor.data + tensor.bytes > end) std::abort();
  try {
    if (static_cast<int64_t>(to_float32(name, tensor).size()) != tensor.num_elements()) {
      std::abort();
    }
  } catch (const msa::Error&) {  // a type that the runner does not read
    return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(  // NOLINT(readability-identifier-naming): libFuzzer's name
    const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  try {
    if (size > 0 && data[0] == '{') {
      msa::runner::parse_shard_index({reinterpret_cast<const char*>(data), size});
      return 0;
    }
    for (const auto& [name, tensor] : msa::runner::parse_safetensors("fuzz", bytes, size)) {
      check_tensor(name, tensor, bytes, bytes + size);
    }
  } catch (const msa::Error&) {
    return 0;
  }
  return 0;
}
