// select_blocks on the backends whose memory the host can read, against a plain sort and against
// index_forward's own selection.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "library/check_results.h"
#include "library/expect_error.h"
#include "library/scratch.h"
#include "msa/msa.h"

namespace msa::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(SelectBlocks, FollowsTheRuleOfIndexForward) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  const int64_t heads = 2, rows = 7, blocks = 90, gap = 3;
  for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
    const Context context({.backend = backend, .num_threads = 2});
    for (const int64_t top_k : {1, 4, 16, 100}) {
      for (const bool ties : {false, true}) {
        std::vector<float> scores(static_cast<size_t>(heads * rows * (blocks + gap)), kInfinity);
        for (size_t n = 0; n < scores.size(); ++n) {
          if (static_cast<int64_t>(n) % (blocks + gap) >= blocks) continue;
          scores[n] = ties ? static_cast<float>(random() % 4) : normal(random);
        }
        const std::vector<int32_t> locals = {-1, 0, 1, 15, 40, 88, 89};
        std::vector<int32_t> ids(static_cast<size_t>(heads * rows * top_k), 77);
        SelectBlocksArgs args;
        args.block_scores = Tensor(scores.data(), DType::kFloat32, {heads, rows, blocks},
                                   {rows * (blocks + gap), blocks + gap, 1});
        args.local_blocks = Tensor(locals.data(), DType::kInt32, {rows});
        args.block_ids = MutableTensor(ids.data(), DType::kInt32, {rows, heads, top_k});
        args.block_id_layout = BlockIdLayout::kTokenMajor;
        select_blocks(context, args);
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t t = 0; t < rows; ++t) {
            const float* own = scores.data() + (h * rows + t) * (blocks + gap);
            const int32_t local = locals[static_cast<size_t>(t)];
            std::vector<int32_t> expected(static_cast<size_t>(top_k), -1);
            if (local >= 0) expected = select_by_rule({own, own + local + 1}, top_k);
            const auto from = ids.begin() + (t * heads + h) * top_k;
            EXPECT_EQ(std::vector<int32_t>(from, from + top_k), expected)
                << "row " << t << " head " << h << " K " << top_k;
          }
        }
      }
    }
  }
}

TEST(SelectBlocks, WithoutLocalBlocksTheBestOfAll) {
  const Context context({.backend = Backend::kCpu, .num_threads = 1});
  const std::vector<float> scores = {-0.0f, std::nanf(""), 0.0f, -kInfinity, kInfinity, 2.0f};
  std::vector<int32_t> ids(8, 77);
  SelectBlocksArgs args;
  args.block_scores = Tensor(scores.data(), DType::kFloat32, {1, 1, 6});
  const auto select = [&](int64_t top_k) {
    args.block_ids = MutableTensor(ids.data(), DType::kInt32, {1, 1, top_k});
    select_blocks(context, args);
    return std::vector<int32_t>(ids.begin(), ids.begin() + top_k);
  };
  EXPECT_EQ(select(1), (std::vector<int32_t>{4}));
  EXPECT_EQ(select(3), (std::vector<int32_t>{0, 4, 5}));        // -0 equals +0: the lower id
  EXPECT_EQ(select(5), (std::vector<int32_t>{0, 1, 2, 4, 5}));  // NaN as minus infinity
  EXPECT_EQ(select(8), (std::vector<int32_t>{0, 1, 2, 3, 4, 5, -1, -1}));
}

TEST(SelectBlocks, RefusesWhatItCannotRead) {
  const Context context({.backend = Backend::kCpu, .num_threads = 1});
  std::vector<float> scores(12);
  std::vector<int32_t> ids(12);
  SelectBlocksArgs args;
  args.block_scores = Tensor(scores.data(), DType::kFloat32, {1, 2, 6});
  args.block_ids = MutableTensor(ids.data(), DType::kInt32, {1, 3, 4});
  expect_error([&] { select_blocks(context, args); },
               "[select_blocks] block_ids has the wrong shape: got int32 [1, 3, 4], allowed "
               "[1, 2, any]");
  args.block_ids = MutableTensor(ids.data(), DType::kInt32, {1, 2, 4});
  args.local_blocks = Tensor(ids.data(), DType::kInt32, {3});
  expect_error([&] { select_blocks(context, args); },
               "[select_blocks] local_blocks has the wrong shape: got int32 [3], allowed [2]");
  args.local_blocks = {};
  args.block_scores.dtype = DType::kBFloat16;
  expect_error([&] { select_blocks(context, args); },
               "[select_blocks] block_scores has the wrong type: got bfloat16, allowed float32");
}

TEST(MaxQueryLength, IsCheckedWhereLengthsCanBeRead) {
  const Context context({.backend = Backend::kCpu, .num_threads = 1});
  std::vector<float> q(24), k(40);
  const std::vector<int32_t> q_ends = {0, 3}, k_ends = {0, 5};
  std::vector<int32_t> ids(6);
  IndexForwardArgs args;
  args.q_idx = Tensor(q.data(), DType::kFloat32, {3, 1, 8});
  args.k_idx = Tensor(k.data(), DType::kFloat32, {5, 8});
  args.sequences.cu_seqlens_q = Tensor(q_ends.data(), DType::kInt32, {2});
  args.sequences.cu_seqlens_k = Tensor(k_ends.data(), DType::kInt32, {2});
  args.block_size = 2;
  args.block_ids = MutableTensor(ids.data(), DType::kInt32, {1, 3, 2});
  const Scratch scratch(index_forward_workspace_size(context, args));
  const Workspace workspace = scratch.view();
  args.max_query_length = 3;
  EXPECT_NO_THROW(index_forward(context, args, workspace));
  args.max_query_length = 2;
  expect_error([&] { index_forward(context, args, workspace); },
               "[index_forward] request 0 has more rows than max_query_length: got 3, allowed 2");
  args.max_query_length = -1;
  expect_error(
      [&] { index_forward(context, args, workspace); },
      "[index_forward] max_query_length is negative: got -1, allowed 0 (not known) or more");
}

}  // namespace
}  // namespace msa::test
