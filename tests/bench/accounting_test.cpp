// FLOP and bytes against counts by hand and by loops over every query and token.
#include "bench/accounting.h"

#include <gtest/gtest.h>

#include <set>

#include "bench/cuda/picks.h"

namespace msa::bench {
namespace {

LayerShape small_shape() {
  return {.name = "small",
          .q_heads = 6,
          .kv_heads = 2,
          .head_dim = 8,
          .block_size = 4,
          .top_k = 3,
          .q_type = DType::kFloat32,
          .kv_type = DType::kBFloat16};
}

/// Visible tokens, one by one.
double pairs_by_loops(const std::vector<Request>& requests) {
  double pairs = 0;
  for (const Request& request : requests) {
    for (int64_t t = 0; t < request.q_len; ++t) {
      for (int64_t j = 0; j < request.k_len; ++j) {
        pairs += j <= request.k_len - request.q_len + t ? 1 : 0;
      }
    }
  }
  return pairs;
}

TEST(Accounting, VisiblePairsAreCounted) {
  EXPECT_EQ(visible_pairs({{1, 1}}), 1);
  EXPECT_EQ(visible_pairs({{4, 4}}), 10);
  EXPECT_EQ(visible_pairs({{1, 100}}), 100);
  EXPECT_EQ(visible_pairs({}), 0);
  const std::vector<Request> batch = {{3, 17}, {5, 5}, {1, 9}};
  EXPECT_EQ(visible_pairs(batch), pairs_by_loops(batch));
  // 4M tokens at once: beyond what float32 or int32 hold, exact in double.
  EXPECT_EQ(visible_pairs({{4194240, 4194240}}), 4194240.0 * 4194241.0 / 2);
}

TEST(Accounting, GradientsOfOneQueryByHand) {
  // One query that sees 10 tokens in blocks of 4, and reads two blocks in each of 2 groups of 3.
  const LayerShape shape = small_shape();
  const std::vector<Request> one = {{1, 10}};
  const std::vector<int32_t> ids = {0, 2, -1, 0, 2, -1};
  const Work dense = dense_work(shape, one);
  const Work sparse = attend_work(shape, one, ids);
  const Work dense_gradients = backward_work(shape, one, dense);
  EXPECT_EQ(dense_gradients.flop, 10.0 * 6 * 8 * 10);
  // Beside the forward's: dout and dq; dk and dv.
  EXPECT_EQ(dense_gradients.bytes, dense.bytes + 2 * 6 * 8 * 4 + 2 * 10 * 2 * 8 * 2);
  const Work gradients = backward_work(shape, one, sparse);
  EXPECT_EQ(gradients.flop, 10.0 * 6 * 8 * 6);
  EXPECT_EQ(gradients.bytes, sparse.bytes + 2 * 6 * 8 * 4 + 2 * 10 * 2 * 8 * 2);
  const double index_rows = 2 * 2 * 8 * 4 + 2 * 4;  // q_idx, dq_idx; lse_idx
  const double index_keys = 2 * 10 * 8 * 2;         // k_idx, dk_idx
  const Work dense_kl = kl_work(shape, one, dense, false);
  EXPECT_EQ(dense_kl.flop, (2.0 * 3 * 8 + 6 * 8) * 2 * 10);
  EXPECT_EQ(dense_kl.bytes, 6 * 8 * 4 + 6 * 4 + index_rows + 10 * 2 * 8 * 2 + index_keys);
  const Work kl = kl_work(shape, one, sparse, true);
  EXPECT_EQ(kl.flop, (2.0 * 3 * 8 + 6 * 8) * 2 * 6);
  EXPECT_EQ(kl.bytes, 6 * 8 * 4 + 6 * 4 + index_rows + 6 * 2 * 8 * 2 + index_keys + 2 * 3 * 4);
}

TEST(Accounting, OneQueryByHand) {
  // One query that sees 10 tokens. Heads of 8, 2 groups of 3.
  const LayerShape shape = small_shape();
  const std::vector<Request> one = {{1, 10}};
  const Work index = index_work(shape, one);
  EXPECT_EQ(index.flop, 0);  // it sees 3 blocks, and keeps 3
  EXPECT_EQ(index.bytes, 2 * 3 * 4);
  const Work ranked = index_work(shape, {{1, 13}});
  EXPECT_EQ(ranked.flop, 2.0 * 2 * 8 * 13);
  EXPECT_EQ(ranked.bytes, 2 * 8 * 4 + 13 * 8 * 2 + 2 * 3 * 4);  // q_idx, k_idx, ids
  const Work dense = dense_work(shape, one);
  EXPECT_EQ(dense.flop, 4.0 * 6 * 8 * 10);
  EXPECT_EQ(dense.bytes, 2 * 6 * 8 * 4 + 6 * 4 + 2 * 10 * 2 * 8 * 2);  // q, out; lse; k, v
  const Work append = append_work(shape, one);
  EXPECT_EQ(append.flop, 0);
  EXPECT_EQ(append.bytes, (2 + 2 + 1) * 8 * (4 + 2));
  // Group 0 lists blocks 0 and 2 (the last one has 2 tokens), group 1 block 2 alone.
  const Work attend = attend_work(shape, one, {0, 2, -1, 2, -1, -1});
  EXPECT_EQ(attend.flop, 4.0 * 3 * 8 * (6 + 2));
  EXPECT_EQ(attend.bytes, 2 * 6 * 8 * 4 + 6 * 4 + 2 * 3 * 4 + (6 + 2) * 2 * 8 * 2);
}

TEST(Accounting, IndexRanksOnlyWhatSeesMoreThanItKeeps) {
  // Queries at 12 and later see a fourth block of 4: none of the first request, two of the second,
  // all of the third.
  const LayerShape shape = small_shape();
  const std::vector<Request> batch = {{5, 12}, {5, 14}, {2, 20}};
  const Work index = index_work(shape, batch);
  EXPECT_EQ(index.flop, 2.0 * 2 * 8 * (13 + 14 + 19 + 20));
  EXPECT_EQ(index.bytes, 4.0 * 2 * 8 * 4 + (14 + 20) * 8 * 2 + 12 * 2 * 3 * 4);
}

TEST(Accounting, AttendOfAllBlocksIsDense) {
  LayerShape shape = small_shape();
  shape.top_k = 8;
  const std::vector<Request> batch = {{3, 17}, {5, 5}, {4, 30}};
  std::vector<int32_t> ids;
  for (int64_t group = 0; group < shape.kv_heads; ++group) {
    for (const Request& request : batch) {
      for (int64_t t = 0; t < request.q_len; ++t) {
        const int64_t local = (request.k_len - request.q_len + t) / shape.block_size;
        for (int64_t n = 0; n < shape.top_k; ++n) {
          ids.push_back(n <= local ? static_cast<int32_t>(n) : -1);
        }
      }
    }
  }
  const Work attend = attend_work(shape, batch, ids);
  const Work dense = dense_work(shape, batch);
  const double id_bytes = static_cast<double>(ids.size()) * 4;
  EXPECT_EQ(attend.flop, dense.flop);
  EXPECT_EQ(attend.bytes, dense.bytes + id_bytes);
}

TEST(Accounting, AttendAgainstLoopsOverTokens) {
  const LayerShape shape = small_shape();
  const std::vector<Request> batch = {{7, 61}, {2, 40}, {9, 9}};
  std::mt19937_64 random(3);
  std::vector<std::vector<int32_t>> groups(2);
  for (const Request& request : batch) {
    append_picks(
        {.q_len = request.q_len, .k_len = request.k_len, .groups = 2, .block_size = 4, .top_k = 3},
        random, groups);
  }
  std::vector<int32_t> ids = groups[0];
  ids.insert(ids.end(), groups[1].begin(), groups[1].end());
  double attended = 0;
  double read = 0;
  size_t list = 0;
  for (int group = 0; group < 2; ++group) {
    for (const Request& request : batch) {
      std::set<int64_t> tokens;
      for (int64_t t = 0; t < request.q_len; ++t, ++list) {
        for (size_t n = 0; n < 3 && ids[list * 3 + n] >= 0; ++n) {
          const int64_t position = request.k_len - request.q_len + t;
          for (int64_t j = ids[list * 3 + n] * 4; j < ids[list * 3 + n] * 4 + 4; ++j) {
            if (j <= position) attended += 1;
            if (j < request.k_len) tokens.insert(j);
          }
        }
      }
      read += static_cast<double>(tokens.size());
    }
  }
  const Work work = attend_work(shape, batch, ids);
  EXPECT_EQ(work.flop, 4 * 3 * 8 * attended);
  EXPECT_EQ(work.bytes, 18.0 * (6 * (2 * 8 * 4 + 4) + 2 * 3 * 4) + read * 2 * 8 * 2);
}

TEST(Accounting, ProductionAsTheKernelPagesCountIt) {
  // docs/cuda-attention.md: index 512 N^2 FLOP, dense 16384 N^2 (to the order of 1 / N).
  const LayerShape shape = {
      .name = "m3", .q_heads = 64, .kv_heads = 4, .head_dim = 128, .block_size = 128, .top_k = 16};
  const double n = 131072;
  EXPECT_NEAR(index_work(shape, {{131072, 131072}}).flop / (512 * n * n), 1, 3e-4);  // and K B
  EXPECT_NEAR(dense_work(shape, {{131072, 131072}}).flop / (16384 * n * n), 1, 1e-5);
}

TEST(Accounting, TheFloorIsTheSlowerRoof) {
  EXPECT_DOUBLE_EQ(floor_seconds({200e9, 10e9}, 100, 10), 2);
  EXPECT_DOUBLE_EQ(floor_seconds({200e9, 50e9}, 100, 10), 5);
}

}  // namespace
}  // namespace msa::bench
