// The reference against small cases worked out by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "msa/msa.h"

namespace {

const msa::Context& reference() {
  static const msa::Context context({.backend = msa::Backend::kReference, .num_threads = 1});
  return context;
}

/// One request whose keys are k_idx[j] = scores[j], with Di = 1 and one query of 1 at the end: the
/// token scores are then the numbers themselves.
std::vector<int32_t> select_last(const std::vector<float>& scores, int64_t block_size,
                                 int64_t top_k) {
  const float one = 1;
  const std::vector<int32_t> cu_q = {0, 1};
  const std::vector<int32_t> cu_k = {0, static_cast<int32_t>(scores.size())};
  std::vector<int32_t> ids(static_cast<size_t>(top_k), 77);
  msa::IndexForwardArgs args;
  args.q_idx = msa::Tensor(&one, msa::DType::kFloat32, {1, 1, 1});
  args.k_idx =
      msa::Tensor(scores.data(), msa::DType::kFloat32, {static_cast<int64_t>(scores.size()), 1});
  args.sequences.cu_seqlens_q = msa::Tensor(cu_q.data(), msa::DType::kInt32, {2});
  args.sequences.cu_seqlens_k = msa::Tensor(cu_k.data(), msa::DType::kInt32, {2});
  args.block_size = block_size;
  args.block_ids = msa::MutableTensor(ids.data(), msa::DType::kInt32, {1, 1, top_k});
  msa::index_forward(reference(), args, {});
  return ids;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(ReferenceSelection, LocalBlockIsAlwaysTaken) {
  EXPECT_EQ(select_last({5, 4, 3, -9}, 1, 2), (std::vector<int32_t>{0, 3}));
}

TEST(ReferenceSelection, TiesGoToTheLowerId) {
  EXPECT_EQ(select_last({1, 1, 1, 1, 1}, 1, 3), (std::vector<int32_t>{0, 1, 4}));
  EXPECT_EQ(select_last({0, -0.0f, 1, 0}, 1, 3), (std::vector<int32_t>{0, 2, 3}));
  EXPECT_EQ(select_last({-kInfinity, -kInfinity, 0}, 1, 2), (std::vector<int32_t>{0, 2}));
}

TEST(ReferenceSelection, NaNIsIgnoredByTheMaximum) {
  EXPECT_EQ(select_last({kNaN, 2, kNaN, kNaN, 1, 1, 0, 0}, 2, 2), (std::vector<int32_t>{0, 3}));
}

TEST(ReferenceSelection, FewBlocksAreAllTakenAndTheTailIsMinusOne) {
  EXPECT_EQ(select_last({1, 2, 3}, 2, 4), (std::vector<int32_t>{0, 1, -1, -1}));
}

TEST(ReferenceAttention, RowBeforePositionZeroIsEmpty) {
  // Two queries on one key: the first stands at position -1.
  const std::vector<float> q = {1, 1};
  const std::vector<float> k = {1};
  const std::vector<float> v = {7};
  const std::vector<int32_t> cu_q = {0, 2};
  const std::vector<int32_t> cu_k = {0, 1};
  std::vector<float> out(2, 99);
  std::vector<float> lse(2, 99);
  msa::DenseAttentionForwardArgs args;
  args.q = msa::Tensor(q.data(), msa::DType::kFloat32, {2, 1, 1});
  args.k = msa::Tensor(k.data(), msa::DType::kFloat32, {1, 1, 1});
  args.v = msa::Tensor(v.data(), msa::DType::kFloat32, {1, 1, 1});
  args.sequences.cu_seqlens_q = msa::Tensor(cu_q.data(), msa::DType::kInt32, {2});
  args.sequences.cu_seqlens_k = msa::Tensor(cu_k.data(), msa::DType::kInt32, {2});
  args.out = msa::MutableTensor(out.data(), msa::DType::kFloat32, {2, 1, 1});
  args.lse = msa::MutableTensor(lse.data(), msa::DType::kFloat32, {2, 1});
  msa::dense_attention_forward(reference(), args, {});
  EXPECT_EQ(out, (std::vector<float>{0, 7}));
  EXPECT_EQ(lse[0], -kInfinity);
  EXPECT_FLOAT_EQ(lse[1], 1);
}

TEST(ReferenceAttention, ReadsTheIdsAsASet) {
  // Three blocks of one token; the query at position 2 lists block 1 twice, a block past its
  // position and one after the end of the list: only block 1 counts.
  const std::vector<float> q = {0};
  const std::vector<float> k = {0, 0, 0, 0};
  const std::vector<float> v = {1, 2, 4, kNaN};
  const std::vector<int32_t> cu_q = {0, 1};
  const std::vector<int32_t> cu_k = {0, 3};
  const std::vector<int32_t> ids = {1, 3, 1, -1, 0};
  float out = 99;
  float lse = 99;
  msa::AttentionForwardArgs args;
  args.q = msa::Tensor(q.data(), msa::DType::kFloat32, {1, 1, 1});
  args.k = msa::Tensor(k.data(), msa::DType::kFloat32, {4, 1, 1});
  args.v = msa::Tensor(v.data(), msa::DType::kFloat32, {4, 1, 1});
  args.sequences.cu_seqlens_q = msa::Tensor(cu_q.data(), msa::DType::kInt32, {2});
  args.sequences.cu_seqlens_k = msa::Tensor(cu_k.data(), msa::DType::kInt32, {2});
  args.block_size = 1;
  args.block_ids = msa::Tensor(ids.data(), msa::DType::kInt32, {1, 1, 5});
  args.out = msa::MutableTensor(&out, msa::DType::kFloat32, {1, 1, 1});
  args.lse = msa::MutableTensor(&lse, msa::DType::kFloat32, {1, 1});
  msa::attention_forward(reference(), args, {});
  EXPECT_EQ(out, 2);
  EXPECT_FLOAT_EQ(lse, 0);
}

}  // namespace
