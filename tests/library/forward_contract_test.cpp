// What the forward ops promise about storage, strides and decode, on every SIMD target: every
// number of float16, offsets that do not fit 32 bits in every tensor at once, and 1 to 16 queries
// a request that straddle blocks and splits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/element.h"
#include "library/check_results.h"
#include "library/compare.h"
#include "library/scratch.h"
#include "library/simd_targets.h"

namespace msa::test {
namespace {

class ForwardContract : public testing::TestWithParam<int64_t> {
 protected:
  const ScopedSimdTarget only_{GetParam()};
  const Context cpu_{{.backend = Backend::kCpu, .num_threads = 2}};
  const Context reference_{{.backend = Backend::kReference, .num_threads = 2}};
};
INSTANTIATE_TEST_SUITE_P(Targets, ForwardContract, testing::ValuesIn(simd_targets()),
                         [](const auto& target) { return simd_target_name(target.param); });

TEST_P(ForwardContract, EveryNumberOfFloat16PassesThrough) {
  // One key has weight 1, so out is the value itself: 64 of the 65536 at a time.
  for (const bool sparse : {false, true}) {
    CaseSpec spec;
    spec.q_dtype = DType::kFloat32;
    spec.kv_dtype = DType::kFloat16;
    spec.kv_heads = 8;
    spec.head_dim = 1024;
    spec.block_size = 1;
    spec.top_k = 1;
    spec.q_lens.assign(8, 1);
    spec.k_lens.assign(8, 1);
    Case batch(spec);
    std::vector<float> expected;
    for (int64_t bits = 0; bits < 65536; ++bits) {
      const float value = core::float16_to_float(static_cast<uint16_t>(bits));
      batch.set_value(bits / 8192, 0, bits / 1024 % 8, bits % 1024, value);
      expected.push_back(value);
    }
    const std::vector<int32_t> ids(64, 0);
    const AttentionResult got = run_attention(cpu_, batch, sparse ? &ids : nullptr);
    const Comparison same = compare(got.out, expected, {0, 0});
    EXPECT_TRUE(same.ok) << same.message;
  }
}

TEST_P(ForwardContract, Float16ScoresKeepInfinityAndNaN) {
  CaseSpec spec;
  spec.q_dtype = DType::kFloat16;
  spec.kv_dtype = DType::kFloat16;
  spec.index_dim = 8;
  spec.block_size = 2;
  spec.top_k = 3;
  spec.q_lens = {1};
  spec.k_lens = {20};
  Case batch(spec);
  for (int64_t d = 0; d < 8; ++d) batch.set_index_query(0, 0, d, 1.0f);
  const float infinity = std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < 20; ++j) {
    for (int64_t d = 0; d < 8; ++d) batch.set_index_key(0, j, d, static_cast<float>(j));
  }
  batch.set_index_key(0, 3, 5, infinity);
  batch.set_index_key(0, 9, 5, -infinity);
  batch.set_index_key(0, 13, 2, std::numeric_limits<float>::quiet_NaN());
  const IndexResult got = run_index(cpu_, batch, {.lse = false});
  EXPECT_EQ(got.ids, (std::vector<int32_t>{1, 8, 9}));
  EXPECT_EQ(got.scores[1], infinity);
  const IndexResult law = run_index(reference_, batch, {.lse = false});
  EXPECT_TRUE(compare(got.scores, law.scores, {1e-5, 1e-5}).ok);
}

TEST_P(ForwardContract, OutputsOfFloat16OverflowToInfinity) {
  CaseSpec spec;
  spec.q_dtype = DType::kFloat16;
  spec.head_dim = 8;
  spec.q_lens = {1};
  spec.k_lens = {1};
  Case batch(spec);
  const float values[8] = {65504, 65519, 65520, -65520, 1e30f, 6e-8f, 2.9e-8f, -0.0f};
  for (int64_t d = 0; d < 8; ++d) batch.set_value(0, 0, 0, d, values[d]);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(run_attention(cpu_, batch, nullptr).out,
            (std::vector<float>{65504, 65504, infinity, -infinity, infinity, 0x1p-24f, 0, 0}));
}

/// A copy of a paged case whose every tensor has its first axis (pages, rows, heads of ids) more
/// than 2^31 elements apart, in address space without memory.
class FarCase {
 public:
  static constexpr int64_t kFar = (int64_t{1} << 31) + 24;

  FarCase(const Case& batch, const std::vector<int32_t>& ids, BlockIdLayout layout)
      : k_(spread(batch.k, k_memory_)),
        v_(spread(batch.v, v_memory_)),
        k_idx_(spread(batch.k_idx, k_idx_memory_)),
        q_(spread(batch.q, q_memory_)),
        q_idx_(spread(batch.q_idx, q_idx_memory_)),
        batch_(batch),
        layout_(layout) {
    const int64_t heads = batch.spec.kv_heads;
    const bool head_major = layout == BlockIdLayout::kHeadMajor;
    const int64_t outer = head_major ? heads : batch.num_rows;
    const int64_t inner = head_major ? batch.num_rows : heads;
    ids_memory_ = std::make_unique<SparseFloats>((outer - 1) * kFar + inner * batch.spec.top_k);
    ids_ = MutableTensor(ids_memory_->data(), DType::kInt32, {outer, inner, batch.spec.top_k},
                         {kFar, batch.spec.top_k, 1});
    for (int64_t n = 0; n < static_cast<int64_t>(ids.size()); ++n) {
      *id(n) = ids[static_cast<size_t>(n)];
    }
    out_memory_ = std::make_unique<SparseFloats>((batch.num_rows - 1) * kFar +
                                                 batch.q.shape[1] * batch.spec.head_dim);
    out_ = MutableTensor(out_memory_->data(), DType::kFloat32,
                         {batch.num_rows, batch.q.shape[1], batch.spec.head_dim},
                         {kFar, batch.spec.head_dim, 1});
  }
  /// Entry n of the ids in head-major order.
  int32_t* id(int64_t n) const {
    const int64_t k = n % batch_.spec.top_k;
    const int64_t t = n / batch_.spec.top_k % batch_.num_rows;
    const int64_t h = n / batch_.spec.top_k / batch_.num_rows;
    const bool head_major = layout_ == BlockIdLayout::kHeadMajor;
    return static_cast<int32_t*>(ids_.data) + (head_major ? h : t) * ids_.stride[0] +
           (head_major ? t : h) * ids_.stride[1] + k;
  }
  std::vector<int32_t> index(const Context& context) const {
    IndexForwardArgs args;
    args.q_idx = q_idx_;
    args.k_idx = k_idx_;
    args.sequences = batch_.sequences;
    args.block_size = batch_.spec.block_size;
    args.block_ids = ids_;
    args.block_id_layout = layout_;
    const Scratch workspace(index_forward_workspace_size(context, args));
    index_forward(context, args, workspace.view());
    std::vector<int32_t> ids;
    for (int64_t n = 0; n < batch_.spec.kv_heads * batch_.num_rows * batch_.spec.top_k; ++n) {
      ids.push_back(*id(n));
    }
    return ids;
  }
  std::vector<float> attend(const Context& context, bool dense) const {
    AttentionForwardArgs args;
    args.q = q_;
    args.k = k_;
    args.v = v_;
    args.sequences = batch_.sequences;
    args.block_size = batch_.spec.block_size;
    args.block_ids = ids_;
    args.block_id_layout = layout_;
    args.out = out_;
    DenseAttentionForwardArgs all;
    all.q = q_;
    all.k = k_;
    all.v = v_;
    all.sequences = batch_.sequences;
    all.out = out_;
    if (dense) {
      const Scratch workspace(dense_attention_forward_workspace_size(context, all));
      dense_attention_forward(context, all, workspace.view());
    } else {
      const Scratch workspace(attention_forward_workspace_size(context, args));
      attention_forward(context, args, workspace.view());
    }
    std::vector<float> result;
    for (int64_t t = 0; t < batch_.num_rows; ++t) {
      const float* row = out_memory_->data() + t * kFar;
      result.insert(result.end(), row, row + out_.shape[1] * out_.shape[2]);
    }
    return result;
  }

 private:
  static Tensor spread(const Tensor& near, std::unique_ptr<SparseFloats>& memory) {
    int64_t inner = 1;  // elements that an index of the first axis spans
    for (int axis = 1; axis < near.rank; ++axis) {
      const auto a = static_cast<size_t>(axis);
      inner += (near.shape[a] - 1) * near.stride[a];
    }
    memory = std::make_unique<SparseFloats>((near.shape[0] - 1) * kFar + inner);
    Tensor far = near;
    far.data = memory->data();
    far.stride[0] = kFar;
    for (int64_t n = 0; n < near.shape[0]; ++n) {
      std::copy_n(static_cast<const float*>(near.data) + n * near.stride[0], inner,
                  memory->data() + n * kFar);
    }
    return far;
  }

  std::unique_ptr<SparseFloats> k_memory_, v_memory_, k_idx_memory_, q_memory_, q_idx_memory_,
      ids_memory_, out_memory_;
  Tensor k_, v_, k_idx_, q_, q_idx_;
  MutableTensor ids_, out_;
  const Case& batch_;
  BlockIdLayout layout_;
};

TEST_P(ForwardContract, OffsetsBeyond32BitsInEveryTensor) {
  for (const Layout layout : {Layout::kTokenMajor, Layout::kHeadMajor}) {
    for (const BlockIdLayout ids : {BlockIdLayout::kHeadMajor, BlockIdLayout::kTokenMajor}) {
      CaseSpec spec;
      spec.paged = true;
      spec.layout = layout;
      spec.id_layout = ids;
      spec.kv_heads = 2;
      spec.group = 2;
      spec.head_dim = 16;
      spec.index_dim = 8;
      spec.block_size = 8;
      spec.top_k = 3;
      spec.q_lens = {5, 2};
      spec.k_lens = {45, 17};
      const Case batch(spec);
      for (const Context* context : {&cpu_, &reference_}) {
        const IndexResult near = run_index(*context, batch, {.scores = false, .lse = false});
        const FarCase far(batch, std::vector<int32_t>(near.ids.size(), 77), ids);
        EXPECT_EQ(far.index(*context), near.ids);
        for (const bool dense : {false, true}) {
          const Comparison same =
              compare_bits(far.attend(*context, dense),
                           run_attention(*context, batch, dense ? nullptr : &near.ids).out);
          EXPECT_TRUE(same.ok) << same.message;
        }
      }
    }
  }
}

TEST_P(ForwardContract, DecodeOfOneToSixteenQueriesStraddlesBlocks) {
  int64_t straddling = 0;
  int64_t split = 0;
  std::mt19937 random(5);
  for (int32_t queries = 1; queries <= 16; ++queries) {
    CaseSpec spec;
    spec.seed = static_cast<uint32_t>(queries);
    spec.paged = queries % 4 != 0;
    spec.layout = static_cast<Layout>(queries % kNumLayouts);
    spec.id_layout = static_cast<BlockIdLayout>(queries % 2);
    spec.q_dtype = queries % 2 == 0 ? DType::kFloat16 : DType::kFloat32;
    spec.kv_dtype = queries % 3 == 0 ? DType::kBFloat16 : spec.q_dtype;
    spec.share_pages = queries % 5 == 0;
    spec.kv_heads = 2;
    spec.group = 2;
    spec.head_dim = 16;
    spec.index_dim = 16;
    spec.block_size = queries % 3 == 1 ? 5 : 8;
    spec.top_k = 4;
    // The request with all its queries, one across a border of blocks, one across a border of
    // splits, one shorter than its queries, one empty, and one query alone.
    const auto block = static_cast<int32_t>(spec.block_size);
    const auto any = static_cast<int32_t>(random() % 60 + 17);
    spec.q_lens = {queries, queries, queries, queries, 0, 1};
    spec.k_lens = {any, 6 * block + queries / 2, 1030 + queries / 2, queries / 2, 33, 1 + block};
    spec.padded_rows = queries % 3;
    const Case batch(spec);
    for (int64_t t = 1; t < batch.num_rows; ++t) {
      const Case::Row row = batch.row(t);
      const Case::Row before = batch.row(t - 1);
      const bool together = row.request >= 0 && row.request == before.request;
      straddling += together && before.position >= 0 && row.position % block == 0 ? 1 : 0;
    }
    split += spec.k_lens[2] > 1024 ? 1 : 0;
    check_case(cpu_, reference_, batch);
  }
  EXPECT_GE(straddling, 30);
  EXPECT_EQ(split, 16);
}

}  // namespace
}  // namespace msa::test
