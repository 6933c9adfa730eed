// dense_attention_forward: the query tiles of the sparse op with every block taken. Keys without
// pages are cut into blocks of 128; pages must hold 64 or 128 tokens, as in the sparse op.
#include <cuda_runtime_api.h>

#include <bit>

#include "cuda/host/config.h"
#include "cuda/host/decode.h"
#include "cuda/host/device.h"
#include "cuda/host/ops.h"
#include "cuda/host/support.h"
#include "cuda/host/tensor_map.h"
#include "cuda/sm90/attention_forward/launch.h"

namespace msa::cuda {
namespace {

constexpr const char* kOp = "dense_attention_forward";
constexpr int64_t kBlock = 128;

/// Dense attention has no block size: keys are taken a page, or 128 tokens, at a time.
core::AttentionForwardParams in_blocks(core::AttentionForwardParams op) {
  op.block_size = op.sequences.paged() ? op.sequences.page_size : kBlock;
  return op;
}

/// Kernel params with the workspace at `workspace`: a ticket, then one mask for each row and group,
/// both to be zeroed. With null only its size is right.
size_t fill(const core::AttentionForwardParams& op, void* workspace,
            AttentionKernelParams* params) {
  params->op = in_blocks(op);
  params->group_shift = std::countr_zero(static_cast<uint64_t>(op.group_size()));
  params->plan_end = op.sequences.num_query_tokens;
  params->wide_out = op.out_token_stride % 8 == 0 && op.out_head_stride % 8 == 0 &&
                     reinterpret_cast<uintptr_t>(op.out) % 16 == 0;
  Carver carver(workspace);
  params->tile_ticket = carver.take<int32_t>(1);
  params->masks = carver.take<uint64_t>(op.sequences.num_query_tokens * op.num_kv_heads);
  return carver.bytes();
}

}  // namespace

size_t dense_attention_forward_workspace(const core::AttentionForwardParams& op, int) {
  if (decode_dense_queries(op) > 0) return decode_dense_workspace(in_blocks(op));
  AttentionKernelParams params;
  return fill(op, nullptr, &params);
}

void dense_attention_forward(const core::AttentionForwardParams& op, const core::RunContext& run) {
  check_support(op.k.dtype == op.q_dtype, kOp, "k has the wrong type: got {}, allowed q's {}",
                dtype_name(op.k.dtype), dtype_name(op.q_dtype));
  check_support(
      !op.sequences.paged() || op.sequences.page_size == 64 || op.sequences.page_size == 128, kOp,
      "pages have the wrong size for the cuda backend: got {} tokens, allowed 64, 128",
      op.sequences.page_size);
  if (op.sequences.num_query_tokens == 0) return;
  check_alignment(kOp, "out", op.out, {op.out_token_stride, op.out_head_stride}, 4);
  if (decode_dense_queries(op) > 0) {
    check_alignment(kOp, "q", op.q, {op.q_token_stride, op.q_head_stride}, 4);
    return decode_dense(in_blocks(op), run);
  }
  AttentionKernelParams params;
  const size_t bytes = fill(op, run.workspace, &params);

  // Without a single key nothing is copied, but the kernel still wants descriptors.
  core::KeyParams k = op.k;
  core::KeyParams v = op.v;
  if (k.num_rows == 0) k.data = v.data = op.q;
  AttentionMaps maps;
  maps.q = query_map(kOp, op, op.group_size(), 1);
  maps.k = key_map(kOp, "k", k, op.sequences, op.num_kv_heads, op.head_dim, params.op.block_size);
  maps.v = key_map(kOp, "v", v, op.sequences, op.num_kv_heads, op.head_dim, params.op.block_size);

  const auto stream = static_cast<cudaStream_t>(run.stream);
  check_cuda(kOp, cudaMemsetAsync(run.workspace, 0, bytes, stream));
  check_cuda(kOp, op.q_dtype == DType::kBFloat16
                      ? launch_attention_tiles_bf16(params, maps, multiprocessors(), stream)
                      : launch_attention_tiles_fp16(params, maps, multiprocessors(), stream));
  check_cuda(kOp, launch_attention_exact_rows(params, stream));
}

}  // namespace msa::cuda
