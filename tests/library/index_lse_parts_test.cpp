// The index LSE over parts of a context, as msa/index_parts.h says to get it: attention_forward on
// the index branch's vectors, part by part, merged by merge_states.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "library/cases.h"
#include "library/scratch.h"

namespace msa::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct State {
  std::vector<float> out;  // [Tq, Hkv, Di]
  std::vector<float> lse;  // [Tq, Hkv]
};

/// The index LSE of every row over the listed blocks: the lse of attention_forward.
State index_state(const Context& context, const Case& batch, const std::vector<int32_t>& ids,
                  int64_t width) {
  const CaseSpec& spec = batch.spec;
  const auto rows = static_cast<size_t>(batch.num_rows * spec.kv_heads);
  State state;
  state.out.assign(rows * static_cast<size_t>(spec.index_dim), kNaN);
  state.lse.assign(rows, kNaN);
  AttentionForwardArgs args;
  args.q = batch.q_idx;
  args.k = batch.k_idx;  // [.., Di] seen as [.., Hkv, Di]
  const auto last = static_cast<size_t>(args.k.rank);
  args.k.shape[last] = spec.index_dim;
  args.k.shape[last - 1] = spec.kv_heads;
  args.k.stride[last] = 1;
  args.k.stride[last - 1] = 0;
  ++args.k.rank;
  args.v = args.k;
  args.sequences = batch.sequences;
  args.block_size = spec.block_size;
  args.block_ids = Tensor(ids.data(), DType::kInt32, {spec.kv_heads, batch.num_rows, width});
  args.out = {state.out.data(), DType::kFloat32, {batch.num_rows, spec.kv_heads, spec.index_dim}};
  args.lse = {state.lse.data(), DType::kFloat32, {batch.num_rows, spec.kv_heads}};
  const Scratch workspace(attention_forward_workspace_size(context, args));
  attention_forward(context, args, workspace.view());
  return state;
}

void merge_into(const Context& context, const Case& batch, State& merged, State state) {
  const CaseSpec& spec = batch.spec;
  const auto out = [&](State& of) {
    return MutableTensor(of.out.data(), DType::kFloat32,
                         {batch.num_rows, spec.kv_heads, spec.index_dim});
  };
  const auto lse = [&](State& of) {
    return MutableTensor(of.lse.data(), DType::kFloat32, {batch.num_rows, spec.kv_heads});
  };
  MergeStatesArgs args;
  args.out_a = out(merged);
  args.lse_a = lse(merged);
  args.out_b = out(state);
  args.lse_b = lse(state);
  args.out = out(merged);
  args.lse = lse(merged);
  merge_states(context, args);
}

TEST(IndexLseParts, IsMergedFromAttentionOverParts) {
  std::mt19937 random(11);
  for (const Backend backend : {Backend::kCpu, Backend::kReference}) {
    const Context context({.backend = backend, .num_threads = 2});
    for (int n = 0; n < 20; ++n) {
      CaseSpec spec = random_spec(random);
      spec.q_dtype = spec.kv_dtype = DType::kFloat32;
      spec.magnitude = 1;
      spec.id_layout = BlockIdLayout::kHeadMajor;
      const Case batch(spec);
      const IndexResult whole = run_index(context, batch, {.scores = false});
      State merged;
      for (int32_t part = 0; part < 3; ++part) {
        std::vector<int32_t> ids;  // those of the row's blocks that are 0, 1 or 2 modulo 3
        for (size_t row = 0; row < whole.ids.size(); row += static_cast<size_t>(spec.top_k)) {
          std::vector<int32_t> list;
          for (int64_t place = 0; place < spec.top_k; ++place) {
            const int32_t id = whole.ids[row + static_cast<size_t>(place)];
            if (id >= 0 && id % 3 == part) list.push_back(id);
          }
          list.resize(static_cast<size_t>(spec.top_k), -1);
          ids.insert(ids.end(), list.begin(), list.end());
        }
        const State state = index_state(context, batch, ids, spec.top_k);
        if (part == 0) {
          merged = state;
        } else {
          merge_into(context, batch, merged, state);
        }
      }
      for (int64_t t = 0; t < batch.num_rows; ++t) {
        for (int64_t g = 0; g < spec.kv_heads; ++g) {
          const float want = whole.lse[static_cast<size_t>(g * batch.num_rows + t)];
          const float got = merged.lse[static_cast<size_t>(t * spec.kv_heads + g)];
          if (std::isinf(want)) {
            EXPECT_EQ(got, want) << spec.describe();
          } else {
            EXPECT_NEAR(got, want, 1e-5 * std::max(1.0f, std::abs(want))) << spec.describe();
          }
        }
      }
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace msa::test
