// The index LSE over parts of a context, as msa/index_parts.h says to get it: attention_forward on
// the index branch's vectors, part by part, merged by merge_states.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "library/cases.h"
#include "library/merge_pair.h"
#include "library/scratch.h"

namespace msa::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// The index LSE of every row over the listed blocks: the lse of attention_forward.
AttentionResult index_state(const Context& context, const Case& batch,
                            const std::vector<int32_t>& ids, int64_t width) {
  const CaseSpec& spec = batch.spec;
  const auto rows = static_cast<size_t>(batch.num_rows * spec.kv_heads);
  AttentionResult state;
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
      AttentionResult merged;
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
        const AttentionResult state = index_state(context, batch, ids, spec.top_k);
        merged = part == 0
                     ? state
                     : merge_pair(context, batch, spec.kv_heads, spec.index_dim, merged, state);
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
