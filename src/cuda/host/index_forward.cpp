#include <algorithm>
#include <bit>

#include "cuda/host/config.h"
#include "cuda/host/decode.h"
#include "cuda/host/device.h"
#include "cuda/host/ops.h"
#include "cuda/host/support.h"
#include "cuda/host/tensor_map.h"
#include "cuda/sm90/index_forward/launch.h"

namespace msa::cuda {
namespace {

constexpr const char* kOp = "index_forward";

/// Kernel params with the workspace at `workspace`; with null only its size is right.
size_t fill(const core::IndexForwardParams& op, void* workspace, IndexKernelParams* params) {
  const IndexConfig config = pick_index_config(op);
  params->op = op;
  params->tile_shift = std::countr_zero(static_cast<unsigned>(config.tile_queries));
  params->block_shift = std::countr_zero(static_cast<uint64_t>(op.block_size));
  params->num_tiles = config.num_tiles;
  params->splits = config.splits;
  params->even_splits = config.even_splits;
  params->wanted_blocks = config.wanted_blocks;
  params->slots = config.slots;
  params->num_kept = op.block_ids.data != nullptr ? static_cast<int>(op.block_ids.top_k) - 1 : 0;
  params->head_shift = std::countr_zero(static_cast<uint64_t>(op.num_kv_heads));
  if (config.splits == 1) return 0;
  Carver carver(workspace);
  const int64_t rows = op.sequences.num_query_tokens * op.num_kv_heads;
  params->common_piece = carver.take<int32_t>(1);
  params->split_keys = carver.take<uint32_t>(config.splits * rows * config.slots);
  params->split_ids = carver.take<uint32_t>(config.splits * rows * config.slots);
  if (op.lse_idx != nullptr) {
    params->split_lses = carver.take<uint32_t>(config.splits * rows * config.slots);
    params->local_lses = carver.take<float>(rows);
    params->segment_lses = carver.take<float>(rows * kMaxSegments);
  }
  return carver.bytes();
}

}  // namespace

size_t index_forward_workspace(const core::IndexForwardParams& op, int) {
  // Maxima may size the workspace of calls with fewer rows, which take the decode kernels.
  const size_t decode_bytes = decode_index_workspace(op);
  if (decode_index_queries(op) > 0) return decode_bytes;
  IndexKernelParams params;
  return std::max(decode_bytes, fill(op, nullptr, &params));
}

void index_forward(const core::IndexForwardParams& op, const core::RunContext& run) {
  check_support(op.k_idx.dtype == op.q_dtype, kOp,
                "k_idx has the wrong type: got {}, allowed q_idx's {}", dtype_name(op.k_idx.dtype),
                dtype_name(op.q_dtype));
  if (op.sequences.num_query_tokens == 0) return;
  check_alignment(kOp, "q_idx", op.q_idx,
                  {op.sequences.num_query_tokens > 1 ? op.q_token_stride : 0,
                   op.num_kv_heads > 1 ? op.q_head_stride : 0},
                  4);
  if (decode_index_queries(op) > 0) return decode_index(op, run);
  IndexKernelParams params;
  fill(op, run.workspace, &params);
  // Without a single key nothing is copied, but the kernel still wants a descriptor.
  core::KeyParams keys = op.k_idx;
  if (keys.num_rows == 0) {
    const auto address = reinterpret_cast<uintptr_t>(op.q_idx);
    keys.data = reinterpret_cast<const void*>(address & ~uintptr_t{15});
  }
  const auto stream = static_cast<cudaStream_t>(run.stream);
  const CUtensorMap map = key_map(kOp, "k_idx", keys, op.sequences, 1, op.index_dim, op.block_size);
  check_cuda(kOp, op.q_dtype == DType::kBFloat16 ? launch_index_bf16(params, map, stream)
                                                 : launch_index_fp16(params, map, stream));
  if (params.splits > 1 && (op.block_ids.data != nullptr || op.lse_idx != nullptr)) {
    check_cuda(kOp, launch_index_merge(params, stream));
  }
}

}  // namespace msa::cuda
