// The SIMD backend's table.
#include "core/backend.h"

#include <string>

#include "cpu/ops.h"
#include "cpu/targets.h"
#include "host/ops.h"
#include "hwy/highway.h"

namespace msa::core {
namespace {

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1) {
    names.emplace_back(hwy::TargetName(rest & (~rest + 1)));  // better targets are lower bits
  }
  return names;
}

std::string description() { return "Highway " + instruction_sets().front(); }

std::string unsupported(Op op, const Geometry& geometry, DType) {
  const bool moves = op == Op::kMergeCandidates || op == Op::kSelectBlocks ||
                     op == Op::kCacheAppend || op == Op::kCopyPages;
  if (moves || geometry.head_dim % 8 == 0) return "";
  return "head dim " + std::to_string(geometry.head_dim) + ", allowed multiples of 8";
}

}  // namespace

const BackendTable& cpu_backend() {
  static const BackendTable table = {
      .unavailable = [] { return std::string(); },
      .description = description,
      .instruction_sets = instruction_sets,
      .unsupported = unsupported,
      .index_forward_workspace = cpu::index_forward_workspace,
      .index_forward = cpu::index_forward,
      .attention_forward_workspace = cpu::attention_forward_workspace,
      .attention_forward = cpu::attention_forward,
      .dense_attention_forward_workspace = cpu::dense_attention_forward_workspace,
      .dense_attention_forward = cpu::dense_attention_forward,
      .index_candidates_workspace = cpu::index_forward_workspace,
      .index_candidates = cpu::index_forward,
      .merge_candidates = host::merge_candidates,
      .select_blocks = host::select_blocks,
      .merge_states = cpu::merge_states,
      .cache_append = host::cache_append,
      .copy_pages = host::copy_pages,
      .attention_backward_workspace = cpu::attention_backward_workspace,
      .attention_backward = cpu::attention_backward,
      .dense_attention_backward_workspace = cpu::attention_backward_workspace,
      .dense_attention_backward = cpu::attention_backward,
      .kl_forward_backward_workspace = cpu::kl_forward_backward_workspace,
      .kl_forward_backward = cpu::kl_forward_backward,
      .recall_workspace = cpu::recall_workspace,
      .recall = cpu::recall,
  };
  return table;
}

}  // namespace msa::core
