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
            (uint64_t{0b11}) | kLocalBit);  // 9 is past, 3 after the end
  EXPECT_EQ(classify(ids.data(), 8, 1), 0u);
  EXPECT_EQ(classify(ids.data(), 1, 5), kLocalBit);
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
    if ((mask & kLocalBit) != 0) got.insert(local);
    for (size_t n = 0; n < ids.size(); ++n) {
      if ((mask >> n & 1) != 0) got.insert(ids[n]);
    }
    ASSERT_TRUE(std::equal(got.begin(), got.end(), expected.begin(), expected.end()));
  }
}

TEST(Runs, CoverEveryRowOfAChunkOnce) {
  std::mt19937 random(4);
  for (int round = 0; round < 300; ++round) {
    const int64_t length = int64_t{4} << random() % 6;
    const int64_t chunk = 32 * (1 + static_cast<int64_t>(random() % 8));
    std::vector<int64_t> q_begin = {0};
    std::vector<int64_t> k_len;
    for (size_t r = 0; r < 1 + random() % 5; ++r) {
      q_begin.push_back(q_begin.back() + static_cast<int64_t>(random() % 300));
      k_len.push_back(static_cast<int64_t>(random() % 500));
    }
    const int64_t rows = q_begin.back();
    std::vector<int> covered(static_cast<size_t>(rows));
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t end = std::min(rows, begin + chunk);
      int64_t runs = 0;
      for (size_t r = 0; r < k_len.size(); ++r) {
        const int64_t from = std::max(q_begin[r], begin);
        const int64_t to = std::min(q_begin[r + 1], end);
        if (from >= to) continue;
        const int64_t shift = k_len[r] - (q_begin[r + 1] - q_begin[r]) - q_begin[r];
        const int64_t count = num_runs(from + shift, to - 1 + shift, length);
        runs += count;
        for (int64_t run = 0; run < count; ++run) {
          const int64_t position = run_begin(from + shift, run, length);
          EXPECT_EQ(floor_div(position, length) * length, position);
          for (int64_t i = 0; i < length; ++i) {
            const int64_t row = position - shift + i;
            if (row >= from && row < to) ++covered[static_cast<size_t>(row)];
          }
        }
      }
      // The grid of the combine kernel.
      EXPECT_LE(runs, ceil_div(std::min(rows, chunk), length) +
                          2 * (static_cast<int64_t>(k_len.size()) + 1));
    }
    for (const int count : covered) ASSERT_EQ(count, 1);
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
    const int64_t total_blocks = ceil_div(keys, op.block_size);
    ASSERT_LE(total_blocks * config.groups_per_pass, config.bins_per_pass);

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
          const uint64_t mask = classify(ids.data(), static_cast<int>(op.block_ids.top_k), local);
          for (uint32_t n = 0; n < ids.size(); ++n) {
            if ((mask >> n & 1) == 0) continue;
            const auto in_chunk = static_cast<uint32_t>(row - begin);
            const uint32_t visit = pack_visit(in_chunk, n);
            ASSERT_EQ(visit_row(visit), in_chunk);
            ASSERT_EQ(visit_place(visit), n);
            bins[group * total_blocks + ids[n]].push_back(visit);
            const int64_t place = p.partial_row(in_chunk, group, static_cast<int>(n));
            ASSERT_TRUE(places.insert(place).second);
            ASSERT_LE(place + op.group_size(), config.visits_per_pass * op.group_size());
            ++visits;
          }
        }
      }
      int64_t items = 0;
      for (const auto& [bin, list] : bins) {
        ASSERT_LT(bin, config.bins_per_pass);
        const auto count = static_cast<int64_t>(list.size());
        const int64_t pieces = ceil_div(count, kItemVisits);
        for (int64_t piece = 0; piece < pieces; ++piece) {
          const int64_t size =
              piece_begin(count, pieces, piece + 1) - piece_begin(count, pieces, piece);
          ASSERT_GE(size, 1);
          ASSERT_LE(size, kItemVisits);
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
