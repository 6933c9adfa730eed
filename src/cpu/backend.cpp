// The SIMD backend's table. It has no op yet: asking for one says so.
#include "core/backend.h"

namespace msa::core {

const BackendTable& cpu_backend() {
  static const BackendTable table = {
      .unavailable = [] { return std::string(); },
      .description = [] { return std::string("SIMD"); },
      .unsupported = [](Op, const Geometry&, DType) { return std::string(); },
      .index_forward_workspace = nullptr,
      .index_forward = nullptr,
      .attention_forward_workspace = nullptr,
      .attention_forward = nullptr,
      .dense_attention_forward_workspace = nullptr,
      .dense_attention_forward = nullptr,
  };
  return table;
}

}  // namespace msa::core
