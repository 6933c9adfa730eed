// The table of the cuda backend: NVIDIA Hopper (compute capability 9.0).
#include "core/backend.h"

#include <fmt/format.h>

#include <initializer_list>

#include "cuda/host/config.h"
#include "cuda/host/device.h"
#include "cuda/host/ops.h"
#include "cuda/sm90/select_blocks/launch.h"

namespace msa::core {
namespace {

bool one_of(int64_t value, std::initializer_list<int64_t> allowed) {
  for (const int64_t item : allowed) {
    if (value == item) return true;
  }
  return false;
}

std::string unsupported(Op op, const Geometry& geometry, DType dtype) {
  if (op == Op::kAttentionBackward && !cuda::untried_ops().attention_backward) {
    return "it has not run on a GPU yet";
  }
  if (op == Op::kCacheAppend || op == Op::kCopyPages) return "";  // they only move
  if (op == Op::kSelectBlocks) {
    return geometry.top_k <= cuda::kSelectMost
               ? ""
               : fmt::format("got top-k {}, allowed 1 to {}", geometry.top_k, cuda::kSelectMost);
  }
  if (dtype != DType::kBFloat16 && dtype != DType::kFloat16) {
    return fmt::format("got type {}, allowed bfloat16, float16", dtype_name(dtype));
  }
  if (!one_of(geometry.head_dim, {64, 128})) {
    return fmt::format("got dim {}, allowed 64, 128", geometry.head_dim);
  }
  const bool dense = op == Op::kDenseAttentionForward;
  if (!dense && !one_of(geometry.block_size, {64, 128})) {
    return fmt::format("got block_size {}, allowed 64, 128", geometry.block_size);
  }
  if (!one_of(geometry.num_kv_heads, {1, 2, 4, 8})) {
    return fmt::format("got {} key-value heads, allowed 1, 2, 4, 8", geometry.num_kv_heads);
  }
  const int64_t least = op == Op::kIndexForward ? 0 : 1;  // 0: scores alone
  if (!dense && (geometry.top_k < least || geometry.top_k > 32)) {
    return fmt::format("got top-k {}, allowed 1 to 32", geometry.top_k);
  }
  if (op == Op::kIndexForward) return "";
  const int64_t group_size = geometry.num_q_heads / geometry.num_kv_heads;
  if (!one_of(group_size, {1, 2, 4, 8, 16})) {
    return fmt::format("got {} query heads a group, allowed 1, 2, 4, 8, 16", group_size);
  }
  return "";
}

}  // namespace

const BackendTable& cuda_backend() {
  static const BackendTable table = {
      .unavailable = cuda::device_problem,
      .description = cuda::device_description,
      .unsupported = unsupported,
      .index_forward_workspace = cuda::index_forward_workspace,
      .index_forward = cuda::index_forward,
      .attention_forward_workspace = cuda::attention_forward_workspace,
      .attention_forward = cuda::attention_forward,
      .dense_attention_forward_workspace = cuda::dense_attention_forward_workspace,
      .dense_attention_forward = cuda::dense_attention_forward,
      .select_blocks = cuda::select_blocks,
      .cache_append = cuda::cache_append,
      .copy_pages = cuda::copy_pages,
      .attention_backward_workspace = cuda::attention_backward_workspace,
      .attention_backward = cuda::attention_backward,
  };
  return table;
}

}  // namespace msa::core
