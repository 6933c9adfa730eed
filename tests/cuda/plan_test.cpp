// The reverse index as plain loops over the kernels' own functions, against its definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "cuda/host/config.h"
#include "cuda/sm90/attention_forward/params.h"

namespace msa::cuda {
namespace {

TEST(Classify, ReadsTheListAsASet) {
  const std::vector<int32_t> ids = {5, 2, 5, 9, -2, 7, -1, 3};
  EXPECT_EQ(classify(ids.data(), 8, 7),
            uint64_t{0b100011} | uint64_t{6} << kLocalShift);  // 9 is past, 3 after the end
  EXPECT_EQ(local_place(classify(ids.data(), 8, 7)), 5);
  EXPECT_EQ(classify(ids.data(), 8, 1), 0u);
  EXPECT_EQ(local_place(classify(ids.data(), 8, 3)), -1);
  EXPECT_EQ(classify(ids.data(), 1, 5), uint64_t{1} | uint64_t{1} << kLocalShift);
}

TEST(Classify, EqualsTheDefinitionOnRandomLists) {
  std::mt19937 random(3);
  for (int round = 0; round < 20000; ++round) {
    const int top_k = 1 + static_cast<int>(random() % 32);
    const int local = static_cast<int>(random() % 20);
    std::vector<int32_t> ids(static_cast<size_t>(top_k));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 26) - 3;
    std::set<int32_t> expected;
    for (const int32_t id : ids) {
      if (id == -1) break;
      if (id >= 0 && id <= local) expected.insert(id);
    }
    const uint64_t mask = classify(ids.data(), top_k, local);
    std::multiset<int32_t> got;
    const int own = local_place(mask);
    EXPECT_EQ(own >= 0, expected.contains(local));
    if (own >= 0) {
      EXPECT_EQ(ids[static_cast<size_t>(own)], local);
    }
    for (size_t n = 0; n < ids.size(); ++n) {
      if ((mask >> n & 1) != 0) got.insert(ids[n]);
    }
    ASSERT_TRUE(std::equal(got.begin(), got.end(), expected.begin(), expected.end()));
  }
}

TEST(TileEntry, KeepsItsParts) {
  for (const uint32_t block : {0u, 1u, 65535u}) {
    for (const uint32_t picks : {1u, 0x8001u, 0xFFFFu}) {
      EXPECT_EQ(tile_entry_block(pack_tile_entry(block, picks)), static_cast<int>(block));
      EXPECT_EQ(tile_entry_picks(pack_tile_entry(block, picks)), picks);
    }
  }
}

TEST(Tiles, PayWhenTheirBlocksAreShared) {
  EXPECT_TRUE(tile_pays(16, 16, 8 * 16, 16));  // all eight lists are one
  EXPECT_TRUE(tile_pays(28, 28, 8 * 16, 16));  // 57 % of the products are useful
  EXPECT_FALSE(tile_pays(29, 28, 8 * 16, 16));
  EXPECT_FALSE(tile_pays(60, 60, 8 * 16, 16));  // random picks
  EXPECT_FALSE(tile_pays(16, 0, 16, 16));       // one query alone: 12 of 16 rows are idle
  EXPECT_FALSE(tile_pays(16, 0, 2 * 16, 16));
  EXPECT_TRUE(tile_pays(16, 0, 3 * 16, 16));
  EXPECT_TRUE(tile_pays(28, 28, 16 * 16, 8));
}

TEST(GatheredVisits, LeaveOutRowsOfTiles) {
  const uint64_t places = uint64_t{0x80000001u} | uint64_t{3} << kLocalShift;
  EXPECT_EQ(gathered_visits(places), 0x80000001u);
  EXPECT_EQ(gathered_visits(places | kExactBit), 0x80000001u);
  EXPECT_EQ(gathered_visits(places | kTileBit), kTileBit);
}

TEST(Item, KeepsItsParts) {
  for (const uint32_t visits : {1u, 17u, 64u}) {
    for (const uint32_t group : {0u, 7u}) {
      for (const uint32_t tokens : {1u, 64u, 128u}) {
        for (const bool local : {false, true}) {
          const uint32_t packed = pack_item(visits, group, tokens, local);
          EXPECT_EQ(item_visits(packed), static_cast<int>(visits));
          EXPECT_EQ(item_group(packed), static_cast<int>(group));
          EXPECT_EQ(item_tokens(packed), static_cast<int>(tokens));
          EXPECT_EQ(item_is_local(packed), local);
        }
      }
    }
  }
}

TEST(Partial, EveryHeadOfEveryPlaceHasARowOfItsOwn) {
  for (int shift = 0; shift <= 4; ++shift) {
    AttentionKernelParams p;
    p.group_shift = shift;
    p.groups_per_pass = 2;
    p.partial_buffers = 2;
    p.op.block_ids.top_k = 5;
    constexpr int kRows = 3;
    p.visits_per_pass = int64_t{kRows} * 2 * 5;
    const int64_t total = 2 * p.visits_per_pass << shift;
    std::set<int64_t> seen;
    for (int pass = 0; pass < 2; ++pass) {
      for (int row = 0; row < kRows; ++row) {
        for (int group = 0; group < 2; ++group) {
          for (int place = 0; place < 5; ++place) {
            for (int head = 0; head < p.group_size(); ++head) {
              const int64_t at = p.partial_row(pass, row, group, place, head);
              EXPECT_GE(at, 0);
              EXPECT_LT(at, total);
              EXPECT_TRUE(seen.insert(at).second);
              // A part holds the places of its heads in order: the merge reads it as one stretch.
              const int in_part = head % p.part_heads();
              EXPECT_EQ(at, p.partial_part(pass, row, group, head / p.part_heads()) +
                                place * p.part_heads() + in_part);
            }
          }
        }
      }
    }
    EXPECT_EQ(static_cast<int64_t>(seen.size()), total);
  }
}

TEST(ReverseIndex, EveryVisitHasAPlaceOfItsOwnWithinTheCapacities) {
  std::mt19937 random(5);
  for (int round = 0; round < 40; ++round) {
    // One request; half of the rounds every row takes block 0.
    const int64_t keys = 1 + static_cast<int64_t>(random() % 20000);
    const int64_t rows =
        1 + static_cast<int64_t>(random() % static_cast<unsigned long>(keys)) % 700;
    const bool sink = round % 2 == 0;
    core::AttentionForwardParams op;
    static const int32_t kIds = 0;
    op.block_ids.data = &kIds;
    op.block_ids.top_k = int64_t{4} << random() % 4;
    op.num_kv_heads = int64_t{1} << random() % 4;
    op.num_q_heads = op.num_kv_heads << random() % 5;
    op.head_dim = 128;
    op.block_size = 128;
    op.sequences.batch = 1;
    op.sequences.num_query_tokens = rows;
    op.k.num_rows = keys;
    AttentionConfig config = pick_attention_config(op);
    AttentionKernelParams p;
    p.op = op;
    while (1 << p.group_shift < op.group_size()) ++p.group_shift;
    p.groups_per_pass = config.groups_per_pass;
    p.partial_buffers = config.partial_buffers;
    const int64_t total_blocks = ceil_div(keys, op.block_size);
    const int64_t half = total_blocks * config.groups_per_pass;
    ASSERT_LE(2 * half, config.bins_per_pass);

    for (int64_t begin = 0; begin < rows; begin += config.chunk_rows) {
      std::map<int64_t, std::vector<uint32_t>> bins;
      std::set<int64_t> places;
      int64_t visits = 0;
      for (int64_t row = begin; row < std::min(rows, begin + config.chunk_rows); ++row) {
        const auto local = static_cast<int>((keys - rows + row) / op.block_size);
        for (int group = 0; group < config.groups_per_pass; ++group) {
          std::vector<int32_t> ids(static_cast<size_t>(op.block_ids.top_k));
          for (int32_t& id : ids)
            id = static_cast<int32_t>(random() % static_cast<unsigned>(local + 2));
          if (sink) ids[0] = 0;
          ids[ids.size() - 1] = local;
          const uint64_t mask = classify(ids.data(), static_cast<int>(op.block_ids.top_k), local);
          for (uint32_t n = 0; n < ids.size(); ++n) {
            if ((mask >> n & 1) == 0) continue;
            const auto in_chunk = static_cast<uint32_t>(row - begin);
            const uint32_t visit = pack_visit(in_chunk, n);
            ASSERT_EQ(visit_row(visit), in_chunk);
            ASSERT_EQ(visit_place(visit), n);
            const bool own = static_cast<int>(n) == local_place(mask);
            bins[(own ? 0 : half) + group * total_blocks + ids[n]].push_back(visit);
            const int64_t place = p.partial_row(0, in_chunk, group, static_cast<int>(n), 0);
            ASSERT_TRUE(places.insert(place).second);
            ASSERT_LT(place, config.visits_per_pass * op.group_size());
            ++visits;
          }
        }
      }
      int64_t items = 0;
      for (const auto& [bin, list] : bins) {
        ASSERT_LT(bin, config.bins_per_pass);
        const auto count = static_cast<uint32_t>(list.size());
        const auto most = static_cast<uint32_t>(config.item_visits);
        const uint32_t pieces = (count + most - 1) / most;
        for (uint32_t piece = 0; piece < pieces; ++piece) {
          const uint32_t size =
              piece_begin(count, pieces, piece + 1) - piece_begin(count, pieces, piece);
          ASSERT_GE(size, 1u);
          ASSERT_LE(size, most);
        }
        items += pieces;
      }
      EXPECT_LE(visits, config.visits_per_pass);
      EXPECT_LE(items, config.items_per_pass);
    }
  }
}

}  // namespace
}  // namespace msa::cuda
