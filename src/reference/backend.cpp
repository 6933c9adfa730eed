#include "core/backend.h"

#include "reference/ops.h"

namespace msa::core {

const BackendTable& reference_backend() {
  static const BackendTable table = {
      .unavailable = [] { return std::string(); },
      .description = [] { return std::string("plain loops in double"); },
      .unsupported = [](Op, const Geometry&, DType) { return std::string(); },
      .index_forward_workspace = [](const IndexForwardParams&, int) { return size_t{0}; },
      .index_forward = reference::index_forward,
      .attention_forward_workspace = [](const AttentionForwardParams&, int) { return size_t{0}; },
      .attention_forward = reference::attention_forward,
      .dense_attention_forward_workspace = [](const AttentionForwardParams&,
                                              int) { return size_t{0}; },
      .dense_attention_forward = reference::attention_forward,
  };
  return table;
}

}  // namespace msa::core
