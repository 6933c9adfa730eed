#include <algorithm>
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

constexpr const char* kOp = "attention_forward";

}  // namespace

size_t attention_kernel_params(const core::AttentionForwardParams& op, void* workspace,
                               AttentionKernelParams* params) {
  const AttentionConfig config = pick_attention_config(op);
  params->op = op;
  params->group_shift = std::countr_zero(static_cast<uint64_t>(op.group_size()));
  params->chunk_rows = config.chunk_rows;
  params->groups_per_pass = config.groups_per_pass;
  params->num_ranges = static_cast<int>(op.num_kv_heads) / config.groups_per_pass;
  params->item_visits = config.item_visits;
  params->list_shift = config.list_shift;
  params->warp_rows = config.list_shift > 0 ? 8 : 32;
  params->partial_buffers = config.partial_buffers;
  params->bins_per_pass = config.bins_per_pass;
  params->visits_per_pass = config.visits_per_pass;
  params->items_per_pass = config.items_per_pass;
  const int64_t passes = int64_t{config.chunks_per_plan} * params->num_ranges;
  params->wide_out = op.out_token_stride % 8 == 0 && op.out_head_stride % 8 == 0 &&
                     reinterpret_cast<uintptr_t>(op.out) % 16 == 0;
  const int64_t partial_rows = config.partial_buffers * config.visits_per_pass * op.group_size();
  Carver carver(workspace);
  params->partial = carver.take<uint16_t>(partial_rows * op.head_dim);
  params->partial_lse2 = carver.take<float>(partial_rows);
  params->block_base = carver.take<int32_t>(op.sequences.batch + 1);
  params->bins = carver.take<uint32_t>(passes * config.bins_per_pass);
  params->visits = carver.take<uint32_t>(passes * config.list_places);
  params->items = carver.take<Item>(passes * config.items_per_pass);
  params->num_items = carver.take<int32_t>(passes);
  params->tickets = carver.take<int32_t>(passes);
  params->tile_capacity = config.tile_capacity;
  const int64_t reach = config.tile_capacity > 0 ? params->tile_queries() : 0;
  params->masks = carver.take<uint64_t>(
      (int64_t{config.chunks_per_plan} * config.chunk_rows + reach) * op.num_kv_heads);
  params->gathers = carver.take<int32_t>(passes);
  params->num_tiles = carver.take<int32_t>(1);
  params->tile_ticket = carver.take<int32_t>(1);
  params->tiles = carver.take<QueryTile>(config.tile_capacity);
  params->tile_entries = carver.take<uint32_t>(config.tile_capacity * kTileEntries);
  return carver.bytes();
}

size_t attention_forward_workspace(const core::AttentionForwardParams& op, int) {
  if (decode_attention_queries(op) > 0) return 0;
  AttentionKernelParams params;
  return attention_kernel_params(op, nullptr, &params);
}

void attention_forward(const core::AttentionForwardParams& op, const core::RunContext& run) {
  check_support(op.k.dtype == op.q_dtype, kOp, "k has the wrong type: got {}, allowed q's {}",
                dtype_name(op.k.dtype), dtype_name(op.q_dtype));
  const int64_t rows = op.sequences.num_query_tokens;
  if (rows == 0) return;
  check_alignment(kOp, "out", op.out, {op.out_token_stride, op.out_head_stride}, 4);
  if (decode_attention_queries(op) > 0) {
    check_alignment(kOp, "q", op.q, {op.q_token_stride, op.q_head_stride}, 4);
    return decode_attention(op, run);
  }
  const AttentionConfig config = pick_attention_config(op);
  AttentionKernelParams params;
  attention_kernel_params(op, run.workspace, &params);

  // Without a single key nothing is copied, but the kernels still want descriptors.
  core::KeyParams k = op.k;
  core::KeyParams v = op.v;
  if (k.num_rows == 0) k.data = v.data = op.q;
  AttentionMaps maps;
  maps.q = query_map(kOp, op, op.group_size(), 1);
  maps.k = key_map(kOp, "k", k, op.sequences, op.num_kv_heads, op.head_dim, op.block_size);
  maps.v = key_map(kOp, "v", v, op.sequences, op.num_kv_heads, op.head_dim, op.block_size);

  const auto stream = static_cast<cudaStream_t>(run.stream);
  const auto launch_passes =
      op.q_dtype == DType::kBFloat16 ? launch_attention_passes_bf16 : launch_attention_passes_fp16;
  const auto launch_tiles =
      op.q_dtype == DType::kBFloat16 ? launch_attention_tiles_bf16 : launch_attention_tiles_fp16;
  const int num_blocks = multiprocessors();
  params.queries_stay = attention_tuning().queries_stay;
  params.merge_blocks = num_blocks * attention_tuning().merge_share / 100;
  const int64_t plan_rows = int64_t{config.chunks_per_plan} * config.chunk_rows;
  for (params.plan_begin = 0; params.plan_begin < rows; params.plan_begin += plan_rows) {
    params.plan_end = std::min(rows, params.plan_begin + plan_rows);
    check_cuda(kOp, launch_attention_plan(params, stream));
    if (params.tile_capacity > 0) {
      check_cuda(kOp, launch_tiles(params, maps, num_blocks, stream));
    }
    const int64_t chunks =
        (params.plan_end - params.plan_begin + config.chunk_rows - 1) / config.chunk_rows;
    const int passes = static_cast<int>(chunks) * params.num_ranges;
    check_cuda(kOp, launch_passes(params, maps, passes, num_blocks, stream));
    check_cuda(kOp, launch_attention_exact_rows(params, stream));
  }
}

}  // namespace msa::cuda
