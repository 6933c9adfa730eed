#include "core/backend.h"

#include "host/ops.h"
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
      .index_candidates_workspace = [](const IndexForwardParams&, int) { return size_t{0}; },
      .index_candidates = reference::index_candidates,
      .merge_candidates = host::merge_candidates,
      .select_blocks = host::select_blocks,
      .merge_states = reference::merge_states,
      .cache_append = host::cache_append,
      .copy_pages = host::copy_pages,
      .attention_backward_workspace = [](const AttentionBackwardParams&, int) { return size_t{0}; },
      .attention_backward = reference::attention_backward,
      .dense_attention_backward_workspace = [](const AttentionBackwardParams&,
                                               int) { return size_t{0}; },
      .dense_attention_backward = reference::attention_backward,
      .kl_forward_backward_workspace = [](const KlParams&, int) { return size_t{0}; },
      .kl_forward_backward = reference::kl_forward_backward,
      .recall_workspace = [](const RecallParams&, int) { return size_t{0}; },
      .recall = reference::recall,
  };
  return table;
}

}  // namespace msa::core
