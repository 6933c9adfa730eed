// The plan of sparse attention, run by its own kernels on the host (emulation.h), against its
// definition: which rows are tiled, which tiles are listed with which blocks, and that every other
// visit is in exactly one item of its block. Chunks and plans are far smaller than the library's,
// so that tiles lie across the ends of both.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "cuda/host/config.h"
#include "cuda/sm90/attention_forward/plan.cu"

namespace msa::cuda {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kPaddedRows = 5;
constexpr uint64_t kUnwritten = ~uint64_t{0};

struct Shape {
  int64_t kv_heads;
  int64_t group_size;
  int64_t top_k;
  int64_t groups_per_pass;
  bool paged;
  bool own_lists;  // one pass, with a list for each bin
};

using TileKey = std::tuple<int64_t, int64_t, int64_t>;  // request, position of query 0, group
using Visit = std::tuple<int64_t, int64_t, int64_t>;    // row, group, place

class PlanCase {
 public:
  PlanCase(const Shape& shape, unsigned seed) : shape_(shape), random_(seed) {
    const std::vector<int32_t> q_lens = {150, 1, 0, 77, 33, 90};
    const std::vector<int32_t> k_lens = {4000, 700, 0, 77, 20, 2111};  // 13 rows have no position
    const double keep[] = {0.9, 0, 0, 0.5, 0, 1.0};
    for (size_t r = 0; r < q_lens.size(); ++r) {
      cu_q_.push_back(cu_q_.back() + q_lens[r]);
      cu_k_.push_back(cu_k_.back() + k_lens[r]);
      for (int32_t t = 0; t < q_lens[r]; ++t) {
        rows_.push_back({static_cast<int64_t>(r), k_lens[r] - q_lens[r] + t});
      }
    }
    for (int64_t n = 0; n < kPaddedRows; ++n) rows_.push_back({-1, -1});
    ids_.resize(rows_.size() * static_cast<size_t>(shape.kv_heads * shape.top_k), -1);
    for (int64_t g = 0; g < shape.kv_heads; ++g) {
      std::vector<int32_t> picks;
      for (size_t row = 0; row < rows_.size(); ++row) {
        if (rows_[row].request >= 0) {
          fill_list(g, static_cast<int64_t>(row), keep[rows_[row].request], picks);
        }
      }
    }
    const int64_t max_pages = 64;
    for (size_t r = 0; r < q_lens.size(); ++r) {
      for (int64_t page = 0; page < max_pages; ++page) {
        pages_.push_back(static_cast<int32_t>(static_cast<int64_t>(r) * max_pages + page));
      }
    }
    k_lens_ = k_lens;

    core::AttentionForwardParams& op = params_.op;
    op.sequences.cu_seqlens_q = cu_q_.data();
    op.sequences.batch = static_cast<int64_t>(q_lens.size());
    op.sequences.num_query_tokens = static_cast<int64_t>(rows_.size());
    if (shape.paged) {
      op.sequences.page_table = pages_.data();
      op.sequences.page_table_stride = op.sequences.max_pages = max_pages;
      op.sequences.num_pages = static_cast<int64_t>(pages_.size());
      op.sequences.page_size = kBlock;
      op.sequences.kv_lens = k_lens_.data();
      op.k.num_rows = op.sequences.num_pages;
    } else {
      op.sequences.cu_seqlens_k = cu_k_.data();
      op.k.num_rows = cu_k_.back();
    }
    op.num_kv_heads = shape.kv_heads;
    op.num_q_heads = shape.kv_heads * shape.group_size;
    op.head_dim = 128;
    op.block_size = kBlock;
    op.block_ids = {ids_.data(), static_cast<int64_t>(rows_.size()) * shape.top_k, shape.top_k,
                    shape.top_k};
    find_expected();
  }

  void check() {
    const int chunk = shape_.own_lists ? 512 : 64;
    const int chunks_per_plan = shape_.own_lists ? 1 : 2;
    AttentionKernelParams& p = params_;
    const auto num_rows = static_cast<int64_t>(rows_.size());
    int64_t blocks = 0;
    for (const int32_t length : k_lens_) blocks += ceil_div(length, kBlock);
    p.group_shift = std::countr_zero(static_cast<uint64_t>(shape_.group_size));
    p.chunk_rows = chunk;
    p.groups_per_pass = static_cast<int>(shape_.groups_per_pass);
    p.num_ranges = static_cast<int>(shape_.kv_heads / shape_.groups_per_pass);
    p.item_visits = 32;
    p.bins_per_pass = 2 * shape_.groups_per_pass * (blocks + 3);
    p.visits_per_pass = chunk * shape_.groups_per_pass * shape_.top_k;
    p.items_per_pass =
        std::min(p.bins_per_pass, p.visits_per_pass) + p.visits_per_pass / p.item_visits + 1;
    p.tile_capacity = (chunk * chunks_per_plan / p.tile_queries() + 2 * p.op.sequences.batch + 2) *
                      shape_.kv_heads;
    const int64_t passes = int64_t{chunks_per_plan} * p.num_ranges;
    const auto make = [](auto& vector, int64_t count) {
      vector.assign(static_cast<size_t>(count), {});
      return vector.data();
    };
    p.block_base = make(block_base_, p.op.sequences.batch + 1);
    p.bins = make(bins_, passes * p.bins_per_pass);
    p.list_shift = shape_.own_lists ? 9 : 0;
    p.warp_rows = shape_.own_lists ? 8 : 32;
    p.visits = make(
        visits_, shape_.own_lists ? p.bins_per_pass << p.list_shift : passes * p.visits_per_pass);
    p.items = make(items_, passes * p.items_per_pass);
    p.num_items = make(num_items_, passes);
    p.tickets = make(tickets_, passes);
    p.gathers = make(gathers_, passes);
    p.num_tiles = make(num_tiles_, 1);
    p.tile_ticket = make(tile_ticket_, 1);
    p.tiles = make(tiles_, p.tile_capacity);
    p.tile_entries = make(tile_entries_, p.tile_capacity * kTileEntries);
    for (p.plan_begin = 0; p.plan_begin < num_rows; p.plan_begin = p.plan_end) {
      p.plan_end = std::min(num_rows, p.plan_begin + int64_t{chunk} * chunks_per_plan);
      masks_.assign(
          static_cast<size_t>((chunk * chunks_per_plan + p.tile_queries()) * shape_.kv_heads),
          kUnwritten);
      p.masks = masks_.data();
      ASSERT_EQ(launch_attention_plan(p, nullptr), cudaSuccess);
      check_masks();
      check_tiles();
      check_visits();
    }
    EXPECT_TRUE(expected_.empty()) << expected_.size() << " tiles were never listed";
  }

  int64_t num_expected() const { return static_cast<int64_t>(expected_.size()); }

 private:
  struct Row {
    int64_t request;
    int64_t position;
  };
  struct Tile {
    int64_t first_row = -1;  // that exists
    std::map<int32_t, uint32_t> entries;
  };

  int32_t* list(int64_t group, int64_t row) {
    return ids_.data() + (group * static_cast<int64_t>(rows_.size()) + row) * shape_.top_k;
  }

  void fill_list(int64_t group, int64_t row, double keep, std::vector<int32_t>& picks) {
    const Row& at = rows_[static_cast<size_t>(row)];
    if (at.position < 0) return;
    std::uniform_real_distribution<double> unit(0, 1);
    const auto local = static_cast<int32_t>(at.position / kBlock);
    const auto wanted = std::min(static_cast<size_t>(shape_.top_k) - 1, static_cast<size_t>(local));
    std::erase_if(picks, [&](int32_t id) { return id >= local || unit(random_) >= keep; });
    if (picks.size() > wanted) picks.resize(wanted);
    while (picks.size() < wanted) {
      const auto id = static_cast<int32_t>(random_() % static_cast<uint32_t>(local));
      if (std::find(picks.begin(), picks.end(), id) == picks.end()) picks.push_back(id);
    }
    int32_t* to = list(group, row);
    std::copy(picks.begin(), picks.end(), to);
    to[picks.size()] = local;
    const auto anywhere = [&] { return to + random_() % static_cast<uint32_t>(shape_.top_k); };
    switch (random_() % 12) {  // hostile lists: repeats, ids out of range, an early end
      case 0:
        *anywhere() = to[0];
        break;
      case 1:
        *anywhere() = 1 << 30;
        break;
      case 2:
        *anywhere() = -7;
        break;
      case 3:
        *anywhere() = -1;
        break;
      default:
        break;
    }
  }

  uint64_t classified(int64_t group, int64_t row) {
    const Row& at = rows_[static_cast<size_t>(row)];
    if (at.position < 0) return 0;
    return classify(list(group, row), static_cast<int>(shape_.top_k),
                    static_cast<int>(at.position / kBlock));
  }

  /// Tiles that pay, by definition.
  void find_expected() {
    const int64_t queries = int64_t{2} * kTileRows / shape_.group_size;
    std::map<TileKey, Tile> all;
    std::map<TileKey, int> visits;
    for (int64_t g = 0; g < shape_.kv_heads; ++g) {
      for (int64_t row = 0; row < static_cast<int64_t>(rows_.size()); ++row) {
        const Row& at = rows_[static_cast<size_t>(row)];
        if (at.position < 0) continue;
        const TileKey key = {at.request, at.position / queries * queries, g};
        Tile& tile = all[key];
        if (tile.first_row < 0) tile.first_row = row;
        const uint64_t mask = classified(g, row);
        for (int64_t n = 0; n < shape_.top_k; ++n) {
          if ((mask >> n & 1) == 0) continue;
          tile.entries[list(g, row)[n]] |= 1u << at.position % queries;
          ++visits[key];
        }
      }
    }
    for (const auto& [key, tile] : all) {
      int blocks[2] = {0, 0};
      for (const auto& [id, picks] : tile.entries) {
        blocks[0] += (picks & ((1u << queries / 2) - 1)) != 0;
        blocks[1] += picks >> queries / 2 != 0;
      }
      const bool pays =
          !tile.entries.empty() && static_cast<int>(tile.entries.size()) <= kTileEntries &&
          tile_pays(blocks[0], blocks[1], visits[key], static_cast<int>(shape_.group_size));
      if (pays) expected_[key] = tile;
    }
    tiled_ = expected_;
  }

  bool is_tiled(int64_t group, int64_t row) const {
    const Row& at = rows_[static_cast<size_t>(row)];
    if (at.position < 0) return false;
    const int64_t queries = int64_t{2} * kTileRows / shape_.group_size;
    return tiled_.contains({at.request, at.position / queries * queries, group});
  }

  void check_masks() {
    const AttentionKernelParams& p = params_;
    for (int64_t row = p.plan_begin; row < p.plan_end + p.tile_queries(); ++row) {
      if (row >= static_cast<int64_t>(rows_.size())) break;
      for (int64_t g = 0; g < shape_.kv_heads; ++g) {
        const uint64_t mask =
            masks_[static_cast<size_t>((row - p.plan_begin) * shape_.kv_heads + g)];
        const uint64_t whole = classified(g, row) | (is_tiled(g, row) ? kTileBit : 0);
        if (row < p.plan_end) {
          ASSERT_EQ(mask, whole) << "row " << row << " group " << g;
        } else {  // past the plan: only where a tile of the plan reaches
          const Row& at = rows_[static_cast<size_t>(row)];
          const int64_t in_tile = at.position % p.tile_queries();
          const bool reached = is_tiled(g, row) && in_tile > row - p.plan_end &&
                               rows_[static_cast<size_t>(p.plan_end - 1)].request == at.request;
          ASSERT_EQ(mask, reached ? whole : 0) << "row " << row << " past the plan";
        }
      }
    }
  }

  void check_tiles() {
    const AttentionKernelParams& p = params_;
    ASSERT_LE(*p.num_tiles, p.tile_capacity);
    for (int n = 0; n < *p.num_tiles; ++n) {
      const QueryTile& tile = p.tiles[n];
      if (tile.num_entries == 0) continue;
      const TileKey key = {tile.request, tile.position, tile.group};
      const auto found = expected_.find(key);
      ASSERT_NE(found, expected_.end()) << "a tile is listed twice, or does not pay";
      EXPECT_EQ(tile.row + tile.first, found->second.first_row);
      EXPECT_GE(found->second.first_row, p.plan_begin);
      EXPECT_LT(found->second.first_row, p.plan_end);
      const auto request = static_cast<size_t>(tile.request);
      EXPECT_EQ(tile.key_length, k_lens_[request]);
      EXPECT_EQ(tile.first_key, shape_.paged ? 0 : cu_k_[request]);
      EXPECT_EQ(tile.last, std::min<int64_t>(p.tile_queries(), tile.key_length - tile.position));
      ASSERT_EQ(tile.num_entries, static_cast<int>(found->second.entries.size()));
      const uint32_t* entry = p.tile_entries + int64_t{n} * kTileEntries;
      for (const auto& [id, picks] : found->second.entries) {
        ASSERT_EQ(*entry++, pack_tile_entry(static_cast<uint32_t>(id), picks));
      }
      expected_.erase(found);
    }
  }

  void check_visits() {
    const AttentionKernelParams& p = params_;
    std::set<Visit> seen;
    const int64_t passes = ceil_div(p.plan_end - p.plan_begin, p.chunk_rows) * p.num_ranges;
    for (int64_t pass = 0; pass < passes; ++pass) {
      const int64_t first_row = p.plan_begin + pass / p.num_ranges * p.chunk_rows;
      const int64_t first_group = pass % p.num_ranges * p.groups_per_pass;
      ASSERT_LE(p.num_items[pass], p.items_per_pass);
      for (int64_t n = 0; n < p.num_items[pass]; ++n) {
        const Item& item = p.items[pass * p.items_per_pass + n];
        int count = item_visits(item.packed);
        if (p.list_shift > 0) {
          const auto first = static_cast<uint32_t>(item.first_visit);
          count = visits_in_list(count, first, p.list_shift, p.bins[first >> p.list_shift]);
        }
        ASSERT_GT(count, 0);
        for (int64_t i = 0; i < count; ++i) {
          const uint32_t visit = p.visits[pass * p.visits_per_pass + item.first_visit + i];
          const int64_t row = first_row + visit_row(visit);
          const int64_t group = first_group + item_group(item.packed);
          const auto place = static_cast<int64_t>(visit_place(visit));
          ASSERT_LT(row, p.plan_end);
          ASSERT_TRUE(seen.insert({row, group, place}).second) << "a visit comes twice";
          const Row& at = rows_[static_cast<size_t>(row)];
          const int64_t id = list(group, row)[place];
          const auto request = static_cast<size_t>(at.request);
          ASSERT_EQ(item.begin, shape_.paged ? pages_[request * 64 + static_cast<size_t>(id)]
                                             : cu_k_[request] + id * kBlock);
          ASSERT_EQ(item_is_local(item.packed), id == at.position / kBlock);
          ASSERT_EQ(static_cast<int64_t>(visit_row(visit)) + item.shift, at.position - id * kBlock);
          ASSERT_EQ(item_tokens(item.packed), std::min(kBlock, k_lens_[request] - id * kBlock));
        }
      }
      bool gathers = false;
      const int64_t end = std::min(first_row + p.chunk_rows, p.plan_end);
      for (int64_t row = first_row; row < end; ++row) {
        for (int64_t g = first_group; g < first_group + p.groups_per_pass; ++g) {
          if (is_tiled(g, row)) continue;
          gathers = true;
          const uint64_t mask = classified(g, row);
          for (int64_t place = 0; place < shape_.top_k; ++place) {
            ASSERT_EQ(seen.contains({row, g, place}), (mask >> place & 1) != 0);
            seen.erase({row, g, place});
          }
        }
      }
      EXPECT_EQ(p.gathers[pass] != 0, gathers);
    }
    EXPECT_TRUE(seen.empty()) << "rows of tiles are gathered, too";
  }

  Shape shape_;
  std::mt19937 random_;
  std::vector<Row> rows_;
  std::vector<int32_t> cu_q_ = {0};
  std::vector<int32_t> cu_k_ = {0};
  std::vector<int32_t> k_lens_, pages_, ids_;
  std::map<TileKey, Tile> tiled_;     // all that pay
  std::map<TileKey, Tile> expected_;  // those that were not listed yet
  AttentionKernelParams params_;
  std::vector<int32_t> block_base_, num_items_, tickets_, gathers_, num_tiles_, tile_ticket_;
  std::vector<uint32_t> bins_, visits_, tile_entries_;
  std::vector<Item> items_;
  std::vector<QueryTile> tiles_;
  std::vector<uint64_t> masks_;
};

TEST(PlanKernels, EveryVisitIsTiledOrGatheredOnce) {
  unsigned seed = 1;
  for (const Shape& shape : {Shape{2, 16, 16, 1, false, false}, Shape{2, 16, 4, 2, true, false},
                             Shape{1, 8, 32, 1, false, false}, Shape{2, 8, 8, 1, true, false},
                             Shape{2, 16, 16, 2, false, true}, Shape{1, 8, 5, 1, true, true}}) {
    emulation::set_seed(seed);
    PlanCase plan(shape, seed++);
    EXPECT_GT(plan.num_expected(), 10);
    plan.check();
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace msa::cuda
