#include "cuda/host/backward_params.h"

#include <bit>

#include "cuda/host/config.h"

namespace msa::cuda {

size_t backward_kernel_params(const core::AttentionBackwardParams& op, void* workspace,
                              BackwardKernelParams* params) {
  const BackwardConfig backward = pick_backward_config(op);
  const AttentionConfig& config = backward.attention;
  const core::AttentionForwardParams& f = op.forward;
  AttentionKernelParams& plan = params->plan;
  plan.op = f;
  plan.group_shift = std::countr_zero(static_cast<uint64_t>(f.group_size()));
  plan.chunk_rows = config.chunk_rows;
  plan.groups_per_pass = config.groups_per_pass;
  plan.num_ranges = static_cast<int>(f.num_kv_heads) / config.groups_per_pass;
  plan.item_visits = config.item_visits;
  plan.bins_per_pass = config.bins_per_pass;
  plan.visits_per_pass = config.visits_per_pass;
  plan.items_per_pass = config.items_per_pass;
  params->out = op.out;
  params->lse = op.lse;
  params->dout = op.dout;
  params->dlse = op.dlse;
  const int64_t passes = int64_t{config.chunks_per_plan} * plan.num_ranges;
  const int64_t rows = backward.plan_rows();
  const int64_t key_sums = f.k.num_rows * f.num_kv_heads * f.head_dim;
  Carver carver(workspace);
  params->dq_sums = carver.take<float>(rows * f.num_q_heads * f.head_dim);
  params->dk_sums = carver.take<float>(key_sums);
  params->dv_sums = carver.take<float>(key_sums);
  params->statistics = carver.take<RowStatistics>(rows * f.num_q_heads);
  plan.block_base = carver.take<int32_t>(f.sequences.batch + 1);
  plan.bins = carver.take<uint32_t>(passes * config.bins_per_pass);
  plan.visits = carver.take<uint32_t>(passes * config.list_places);
  plan.items = carver.take<Item>(passes * config.items_per_pass);
  plan.num_items = carver.take<int32_t>(passes);
  plan.tickets = carver.take<int32_t>(passes);
  plan.masks = carver.take<uint64_t>(rows * f.num_kv_heads);
  plan.gathers = carver.take<int32_t>(passes);
  return carver.bytes();
}

}  // namespace msa::cuda
