// How work is cut, for the shapes that matter: limits of workspace, and what the cut is.
#include "cuda/host/config.h"
#include "cuda/host/backward_params.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "cuda/device/layout.h"
#include "cuda/sm90/attention_forward/params.h"
#include "cuda/sm90/index_forward/params.h"

namespace msa::cuda {
namespace {

core::AttentionForwardParams attention(int64_t rows, int64_t keys, int64_t batch = 1,
                                       int64_t max_pages = 0) {
  static const int32_t kIds = 0;
  core::AttentionForwardParams p;
  p.sequences.num_query_tokens = rows;
  p.sequences.batch = batch;
  p.k.num_rows = keys;
  if (max_pages > 0) {
    p.sequences.page_table = &kIds;
    p.sequences.max_pages = max_pages;
    p.sequences.page_size = 128;
  }
  p.num_q_heads = 64;
  p.num_kv_heads = 4;
  p.head_dim = 128;
  p.block_size = 128;
  p.block_ids.data = &kIds;
  p.block_ids.top_k = 16;
  return p;
}

int64_t workspace_bytes(const core::AttentionForwardParams& p) {
  const AttentionConfig c = pick_attention_config(p);
  const int64_t passes = c.chunks_per_plan * (p.num_kv_heads / c.groups_per_pass);
  return c.partial_buffers * c.visits_per_pass * p.group_size() * (p.head_dim * 2 + 4) +
         passes * (c.bins_per_pass * 4 + c.list_places * 4 + c.items_per_pass * 16) +
         int64_t{c.chunks_per_plan} * c.chunk_rows * p.num_kv_heads * 8 +
         c.tile_capacity * (int64_t{4} * kTileEntries + int64_t{sizeof(QueryTile)});
}

/// The library's choices again when a test ends.
class WithTuning : public ::testing::Test {
 protected:
  ~WithTuning() override { attention_tuning() = before_; }

 private:
  AttentionTuning before_ = attention_tuning();
};
using AttentionConfigTest = WithTuning;

TEST_F(AttentionConfigTest, WorkspaceIsBoundedForAnyLength) {
  attention_tuning().query_tiles = true;
  for (int64_t rows = 1; rows <= 1 << 20; rows = rows * 3 / 2 + 1) {
    for (const int64_t top_k : {4, 8, 16, 32}) {
      for (const int64_t kv_heads : {1, 2, 4, 8}) {
        for (const int64_t group : {1, 2, 4, 8, 16}) {
          auto p = attention(rows, 1 << 20);
          p.block_ids.top_k = top_k;
          p.num_kv_heads = kv_heads;
          p.num_q_heads = kv_heads * group;
          EXPECT_LE(workspace_bytes(p), int64_t{3} << 29)
              << rows << " " << top_k << " " << kv_heads << " " << group;
          const AttentionConfig c = pick_attention_config(p);
          EXPECT_EQ(c.chunk_rows % 32, 0);
          EXPECT_EQ(kv_heads % c.groups_per_pass, 0);
          const bool one_pass = c.groups_per_pass == kv_heads && c.chunk_rows >= rows;
          EXPECT_EQ(c.partial_buffers, one_pass ? 1 : 2);
          EXPECT_LT(c.chunk_rows, 1 << 27);  // a visit has 27 bits for the row
          EXPECT_GE(c.chunks_per_plan, 1);
          EXPECT_LE(c.item_visits, kItemVisits);
          EXPECT_EQ(c.item_visits * group % kTileRows, 0);
        }
      }
    }
  }
}

TEST_F(AttentionConfigTest, ManyPagesAreBoundedToo) {
  attention_tuning().query_tiles = true;
  EXPECT_LE(workspace_bytes(attention(1 << 18, 1 << 15, 128, 8192)), int64_t{3} << 29);
}

TEST_F(AttentionConfigTest, TheCutOfKnownShapes) {
  attention_tuning().query_tiles = true;
  EXPECT_EQ(pick_attention_config(attention(8192, 8192)).describe(),
            "attention_forward: chunks of 8192 rows, 1 groups a pass, 1 chunks a plan, 2 partial "
            "buffers, packed lists, room for 4112 query tiles");
  const AttentionConfig few = pick_attention_config(attention(338, 74578));
  EXPECT_EQ(few.groups_per_pass, 4);
  EXPECT_EQ(few.chunk_rows, 352);
  EXPECT_EQ(few.partial_buffers, 1);
  EXPECT_EQ(few.item_visits, 32);
  EXPECT_EQ(pick_attention_config(attention(8192, 8192)).item_visits, 64);
  EXPECT_EQ(pick_attention_config(attention(1404, 46844)).groups_per_pass, 4);
}

TEST_F(AttentionConfigTest, TilesAreLookedForWhereTheirPicksFitAnEntry) {
  attention_tuning().query_tiles = true;
  auto p = attention(1000, 8192);
  for (const int64_t group : {1, 2, 4}) {
    p.num_q_heads = p.num_kv_heads * group;
    EXPECT_EQ(pick_attention_config(p).tile_capacity, 0);
  }
  p.num_q_heads = p.num_kv_heads * 8;  // 16 queries a tile: 64 of them in 1024 rows
  EXPECT_EQ(pick_attention_config(p).tile_capacity, (64 + 4) * 4);
  attention_tuning().query_tiles = false;
  EXPECT_EQ(pick_attention_config(p).tile_capacity, 0);
}

TEST(IndexConfig, TheListsAlwaysLeaveRoomForARing) {
  for (const int stage_bytes : {64 * 64 * 2, 64 * 128 * 2, 128 * 128 * 2}) {
    for (int slots = 0; slots <= 32; slots += 4) {
      for (const bool with_lse : {false, true}) {
        const int stages = index_stages(stage_bytes, slots, with_lse);
        EXPECT_GE(stages, 3);
        EXPECT_LE(index_shared_bytes(stages, stage_bytes, slots, with_lse), kMaxSharedBytes);
      }
    }
  }
  EXPECT_EQ(index_stages(128 * 128 * 2, 16, false), 4);  // the production values
}

TEST(IndexKernelParams, ShiftsDivideAndRoundUp) {
  IndexKernelParams p;
  for (const int shift : {3, 5, 6, 7, 8}) {
    p.tile_shift = p.block_shift = shift;
    for (const int64_t count : {0, 1, 31, 32, 33, 127, 128, 129, 256, 4194239, 4194240}) {
      EXPECT_EQ(p.tiles(count), ceil_div(count, int64_t{1} << shift));
      EXPECT_EQ(p.blocks(count), ceil_div(count, int64_t{1} << shift));
    }
  }
}

TEST(IndexConfig, FewQueriesSplitTheKeysAndManyDoNot) {
  static int32_t ids = 0;
  core::IndexForwardParams p;
  p.num_kv_heads = 4;
  p.index_dim = 128;
  p.block_size = 128;
  p.block_ids.data = &ids;
  p.block_ids.top_k = 16;
  p.sequences.batch = 1;
  p.sequences.num_query_tokens = 1 << 17;
  p.k_idx.num_rows = 1 << 17;
  EXPECT_EQ(pick_index_config(p).splits, 1);
  p.sequences.num_query_tokens = 8192;
  p.k_idx.num_rows = 8192;
  EXPECT_EQ(pick_index_config(p).splits, 2);  // 128 tiles of up to 64 blocks
  p.sequences.num_query_tokens = 171;         // 3 tiles: one thread block for each multiprocessor
  p.k_idx.num_rows = 55339;
  EXPECT_EQ(pick_index_config(p).splits, 44);
  p.sequences.num_query_tokens = 1;
  p.k_idx.num_rows = 1 << 20;
  EXPECT_EQ(pick_index_config(p).splits, kMaxSegments);
  EXPECT_EQ(pick_index_config(p).slots, 16);
  EXPECT_GE(pick_index_config(p).num_tiles, 1);
}

TEST(IndexConfig, PiecesShareTheWorkOfUnequalRequests) {
  const auto pieces_of = [](int blocks, int size) {
    return std::max(1, (blocks + size - 1) / size);
  };
  std::mt19937 random(1);
  for (int n = 0; n < 20000; ++n) {
    const int even = 2 + static_cast<int>(random() % 60);
    const int splits = std::min(2 * even, kMaxSegments);
    const int wanted = 132 * (1 + static_cast<int>(random() % 3));
    std::vector<std::pair<int, int>> requests(1 + random() % 5);  // tiles, blocks
    int tiles = 0, work = 0, longest = 0;
    for (auto& [own_tiles, blocks] : requests) {
      own_tiles = static_cast<int>(random() % 40);
      blocks = static_cast<int>(random() % 9000);
      tiles += own_tiles;
      work += own_tiles * blocks;
      if (own_tiles > 0) longest = std::max(longest, blocks);
    }
    const int size = piece_size(wanted, even, splits, tiles, work, longest);
    int pieces = 0;
    for (const auto& [own_tiles, blocks] : requests) {
      pieces += own_tiles * pieces_of(blocks, size);
      EXPECT_LE(own_tiles > 0 ? pieces_of(blocks, size) : 0, splits);
    }
    EXPECT_LE(pieces, std::max(wanted, tiles * even));
  }
  // One request is cut evenly; two with three tiles each share 132 thread blocks.
  EXPECT_EQ(piece_size(132, 44, 44, 3, 3 * 433, 433), 10);
  EXPECT_EQ(piece_size(132, 22, 44, 6, 3 * (1094 + 547), 1094), 40);
}

TEST(BackwardConfig, WorkspaceStaysWithinItsBounds) {
  struct Bound {
    int64_t tokens;
    double gib;
  };
  for (const Bound& bound : {Bound{1, 0.01}, Bound{8192, 0.3}, Bound{32768, 1.2},
                             Bound{131072, 1.6}, Bound{1 << 20, 5.2}}) {
    core::AttentionBackwardParams op;
    core::AttentionForwardParams& f = op.forward;
    f.sequences.batch = 1;
    f.sequences.num_query_tokens = f.k.num_rows = bound.tokens;
    f.num_q_heads = 64;
    f.num_kv_heads = 4;
    f.head_dim = f.block_size = 128;
    f.block_ids.top_k = 16;
    BackwardKernelParams params;
    const size_t bytes = backward_kernel_params(op, nullptr, &params);
    EXPECT_LT(static_cast<double>(bytes) / (1 << 30), bound.gib) << bound.tokens;
    const BackwardConfig config = pick_backward_config(op);
    EXPECT_LE(config.attention.item_visits, 255) << config.describe();  // eight bits of an item
    EXPECT_EQ(config.attention.chunk_rows % 32, 0) << config.describe();
  }
}

}  // namespace
}  // namespace msa::cuda
