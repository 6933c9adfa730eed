#include <algorithm>

#include "cuda/host/backward_params.h"
#include "cuda/host/config.h"
#include "cuda/host/device.h"
#include "cuda/host/ops.h"
#include "cuda/host/support.h"
#include "cuda/host/tensor_map.h"
#include "cuda/sm90/attention_backward/launch.h"
#include "cuda/sm90/attention_forward/launch.h"

namespace msa::cuda {
namespace {

constexpr const char* kOp = "attention_backward";
constexpr int64_t kReadAlignment = 16;
constexpr int64_t kWriteAlignment = 4;

void check_inputs(const core::AttentionBackwardParams& op) {
  const core::AttentionForwardParams& f = op.forward;
  check_support(f.k.dtype == f.q_dtype, kOp, "k has the wrong type: got {}, allowed q's {}",
                dtype_name(f.k.dtype), dtype_name(f.q_dtype));
  const int64_t tokens = f.sequences.num_query_tokens;
  const auto check_rows = [&](const char* name, const auto& rows, int64_t count, int64_t heads,
                              int64_t alignment) {
    check_alignment(kOp, name, rows.data,
                    {count > 1 ? rows.token_stride : 0, heads > 1 ? rows.head_stride : 0},
                    alignment);
  };
  check_rows("out", op.out, tokens, f.num_q_heads, kReadAlignment);
  check_rows("dout", op.dout, tokens, f.num_q_heads, kReadAlignment);
  check_rows("dq", op.dq, tokens, f.num_q_heads, kWriteAlignment);
  check_rows("dk", op.dk, f.k.num_rows, f.num_kv_heads, kWriteAlignment);
  check_rows("dv", op.dv, f.k.num_rows, f.num_kv_heads, kWriteAlignment);
}

BackwardMaps make_maps(const core::AttentionBackwardParams& op) {
  const core::AttentionForwardParams& f = op.forward;
  core::AttentionForwardParams douts = f;
  douts.q = op.dout.data;
  douts.q_token_stride = op.dout.token_stride;
  douts.q_head_stride = op.dout.head_stride;
  // Without a single key nothing is copied, but the kernels still want descriptors.
  core::KeyParams k = f.k;
  core::KeyParams v = f.v;
  if (k.num_rows == 0) k.data = v.data = f.q;
  BackwardMaps maps;
  maps.q = query_map(kOp, f, f.group_size(), 1);
  maps.dout = query_map(kOp, douts, f.group_size(), 1);
  maps.k = key_map(kOp, "k", k, f.sequences, f.num_kv_heads, f.head_dim, f.block_size);
  maps.v = key_map(kOp, "v", v, f.sequences, f.num_kv_heads, f.head_dim, f.block_size);
  return maps;
}

void finish(const float* sums, const core::RowsParams<void*>& to, int64_t first_row,
            int64_t num_rows, const core::AttentionForwardParams& f, int64_t heads, float scale,
            cudaStream_t stream) {
  FinishParams params;
  params.sums = sums;
  params.to = to;
  params.first_row = first_row;
  params.num_rows = num_rows;
  params.lists = static_cast<int>(f.num_kv_heads);
  params.heads = static_cast<int>(heads);
  params.dim = static_cast<int>(f.head_dim);
  params.scale = scale;
  check_cuda(kOp, launch_backward_finish(params, stream));
}

}  // namespace

size_t attention_backward_workspace(const core::AttentionBackwardParams& op, int) {
  BackwardKernelParams params;
  return backward_kernel_params(op, nullptr, &params);
}

void attention_backward(const core::AttentionBackwardParams& op, const core::RunContext& run) {
  check_inputs(op);
  const core::AttentionForwardParams& f = op.forward;
  const BackwardConfig config = pick_backward_config(op);
  BackwardKernelParams params;
  backward_kernel_params(op, run.workspace, &params);
  const auto stream = static_cast<cudaStream_t>(run.stream);
  const auto zero = [&](float* sums, int64_t count) {
    check_cuda(kOp, launch_backward_zero(sums, count, stream));
  };
  const int64_t keys = f.k.num_rows;
  zero(params.dk_sums, keys * f.num_kv_heads * f.head_dim);
  zero(params.dv_sums, keys * f.num_kv_heads * f.head_dim);

  const int64_t rows = f.sequences.num_query_tokens;
  if (rows > 0) {
    const BackwardMaps maps = make_maps(op);
    const auto launch_visits =
        f.q_dtype == DType::kBFloat16 ? launch_backward_visits_bf16 : launch_backward_visits_fp16;
    const int num_blocks = multiprocessors();
    AttentionKernelParams& plan = params.plan;
    for (plan.plan_begin = 0; plan.plan_begin < rows; plan.plan_begin = plan.plan_end) {
      plan.plan_end = std::min(rows, plan.plan_begin + config.plan_rows());
      const int64_t count = plan.plan_end - plan.plan_begin;
      params.num_passes = static_cast<int>(ceil_div(count, plan.chunk_rows)) * plan.num_ranges;
      zero(params.dq_sums, count * f.num_q_heads * f.head_dim);
      check_cuda(kOp, launch_backward_statistics(params, f.q_dtype, stream));
      check_cuda(kOp, launch_attention_plan(plan, stream));
      check_cuda(kOp, launch_visits(params, maps, num_blocks, stream));
      finish(params.dq_sums, op.dq, plan.plan_begin, count, f, f.group_size(), f.scale, stream);
    }
  }
  finish(params.dk_sums, op.dk, 0, keys, f, 1, f.scale, stream);
  finish(params.dv_sums, op.dv, 0, keys, f, 1, 1.0f, stream);
}

}  // namespace msa::cuda
