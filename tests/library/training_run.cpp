#include "library/training_run.h"

#include <gtest/gtest.h>

#include "library/guarded.h"
#include "library/scratch.h"

namespace msa::test {
namespace {

template <typename Args>
void fill_ids(const Case& batch, const std::vector<int32_t>& ordered, Args& args) {
  const bool head_major = batch.spec.id_layout == BlockIdLayout::kHeadMajor;
  args.block_size = batch.spec.block_size;
  args.block_id_layout = batch.spec.id_layout;
  args.block_ids = Tensor(ordered.data(), DType::kInt32,
                          {head_major ? batch.spec.kv_heads : batch.num_rows,
                           head_major ? batch.num_rows : batch.spec.kv_heads, batch.spec.top_k});
}

/// Head-major lists in the case's layout.
std::vector<int32_t> in_layout(const Case& batch, const std::vector<int32_t>& ids) {
  const CaseSpec& spec = batch.spec;
  if (ids.empty() || spec.id_layout == BlockIdLayout::kHeadMajor) return ids;
  std::vector<int32_t> ordered = ids;
  for (int64_t h = 0; h < spec.kv_heads; ++h) {
    for (int64_t t = 0; t < batch.num_rows; ++t) {
      std::copy_n(ids.begin() + (h * batch.num_rows + t) * spec.top_k, spec.top_k,
                  ordered.begin() + (t * spec.kv_heads + h) * spec.top_k);
    }
  }
  return ordered;
}

}  // namespace

TrainingInputs training_inputs(const Context& context, const Case& batch, bool dense) {
  const CaseSpec& spec = batch.spec;
  std::mt19937 random(spec.seed + 1);
  std::normal_distribution<float> normal(0, 1);
  TrainingInputs inputs;
  inputs.dense = dense;
  inputs.with_dlse = random() % 2 == 0;
  const IndexResult index = run_index(
      context, batch,
      {.scores = false, .scope = dense ? IndexLseScope::kVisible : IndexLseScope::kSelected});
  inputs.lse_idx = index.lse;
  if (!dense) inputs.ids = index.ids;
  const AttentionResult forward = run_attention(context, batch, dense ? nullptr : &inputs.ids);
  inputs.lse = forward.lse;
  const auto count = static_cast<int64_t>(forward.out.size());
  inputs.out.allocate(spec.q_dtype, count);
  inputs.dout.allocate(spec.q_dtype, count);
  for (int64_t n = 0; n < count; ++n) {
    inputs.out.set(n, forward.out[static_cast<size_t>(n)]);
    inputs.dout.set(n, normal(random));
  }
  for (size_t n = 0; n < inputs.lse.size(); ++n) inputs.dlse.push_back(normal(random));
  inputs.coefficient = 1.5f;
  inputs.normaliser = static_cast<double>(std::max<int64_t>(1, spec.kv_heads * batch.num_rows));
  return inputs;
}

TrainingResult run_training(const Context& context, const Case& batch,
                            const TrainingInputs& inputs) {
  const CaseSpec& spec = batch.spec;
  const int64_t rows = batch.num_rows;
  const int64_t heads = spec.kv_heads * spec.group;
  const int64_t keys = batch.k.shape[0];
  const std::vector<int32_t> ids = in_layout(batch, inputs.ids);
  Guarded dq(spec.q_dtype, rows, heads, spec.head_dim);
  Guarded dk(spec.kv_dtype, keys, spec.kv_heads, spec.head_dim);
  Guarded dv(spec.kv_dtype, keys, spec.kv_heads, spec.head_dim);
  Guarded dq_idx(spec.q_dtype, rows, spec.kv_heads, spec.index_dim);
  Guarded dk_idx(spec.kv_dtype, keys, 1, spec.index_dim);
  const auto fill = [&](auto& args) {
    args.q = batch.q;
    args.k = batch.k;
    args.v = batch.v;
    args.sequences = batch.sequences;
    args.out = Tensor(inputs.out.bytes.data(), spec.q_dtype, {rows, heads, spec.head_dim});
    args.dout = Tensor(inputs.dout.bytes.data(), spec.q_dtype, {rows, heads, spec.head_dim});
    args.lse = Tensor(inputs.lse.data(), DType::kFloat32, {rows, heads});
    if (inputs.with_dlse) args.dlse = Tensor(inputs.dlse.data(), DType::kFloat32, {rows, heads});
    args.dq = dq.view;
    args.dk = dk.view;
    args.dv = dv.view;
  };
  if (inputs.dense) {
    DenseAttentionBackwardArgs args;
    fill(args);
    const Scratch workspace(dense_attention_backward_workspace_size(context, args));
    dense_attention_backward(context, args, workspace.view());
  } else {
    AttentionBackwardArgs args;
    fill(args);
    fill_ids(batch, ids, args);
    const Scratch workspace(attention_backward_workspace_size(context, args));
    attention_backward(context, args, workspace.view());
  }
  TrainingResult result;
  result.loss = {77.0f};
  KlForwardBackwardArgs kl;
  kl.q = batch.q;
  kl.k = batch.k;
  kl.lse = Tensor(inputs.lse.data(), DType::kFloat32, {rows, heads});
  kl.q_idx = batch.q_idx;
  kl.k_idx = batch.k_idx;
  kl.lse_idx = Tensor(inputs.lse_idx.data(), DType::kFloat32, {spec.kv_heads, rows});
  kl.sequences = batch.sequences;
  kl.scope = inputs.dense ? KlScope::kVisible : KlScope::kSelected;
  if (!inputs.dense) fill_ids(batch, ids, kl);
  kl.coefficient = inputs.coefficient;
  kl.normaliser = inputs.normaliser;
  kl.loss = MutableTensor(result.loss.data(), DType::kFloat32, {1});
  kl.dq_idx = dq_idx.view;
  kl.dk_idx = MutableTensor(dk_idx.view.data, spec.kv_dtype, {keys, spec.index_dim},
                            {dk_idx.view.stride[0], 1});
  const Scratch workspace(kl_forward_backward_workspace_size(context, kl));
  kl_forward_backward(context, kl, workspace.view());
  EXPECT_TRUE(dq.guards_intact() && dk.guards_intact() && dv.guards_intact() &&
              dq_idx.guards_intact() && dk_idx.guards_intact())
      << spec.describe();
  result.dq = dq.floats();
  result.dk = dk.floats();
  result.dv = dv.floats();
  result.dq_idx = dq_idx.floats();
  result.dk_idx = dk_idx.floats();
  return result;
}

}  // namespace msa::test
