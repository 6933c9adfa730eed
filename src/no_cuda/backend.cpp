// Stands in for src/cuda where the library is built without nvcc: the same table, with a sentence.
#include "core/backend.h"

namespace msa::core {

const BackendTable& cuda_backend() {
  static const BackendTable table = {
      .unavailable = [] { return std::string("this library was built without CUDA"); },
      .description = [] { return std::string("none"); },
      .unsupported = [](Op, const Geometry&,
                        DType) { return std::string("this library was built without CUDA"); },
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
