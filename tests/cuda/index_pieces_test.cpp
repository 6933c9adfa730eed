// Which thread block of the index kernel works on what, found by the kernel's own code on the host
// (emulation.h): every block of every tile by exactly one of them, and requests of different
// lengths cut so that all end together.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "cuda/device/overlap.cuh"
#include "cuda/host/config.h"
#include "cuda/sm90/index_forward/pieces.cuh"

namespace msa::cuda {
namespace {

constexpr int64_t kBlock = 128;

__global__ void find_all_work(const IndexKernelParams p, IndexWork* found) {
  const IndexWork work = find_work(p);
  if (threadIdx.x == 0) found[blockIdx.x] = work;
}

/// A batch of packed requests, the rows past them, and what its thread blocks do.
struct Batch {
  std::vector<int32_t> q_lens, k_lens, cu_q = {0}, cu_k = {0};
  int32_t common = 0;
  IndexKernelParams p;
  std::vector<IndexWork> works;

  Batch(std::vector<int32_t> queries, std::vector<int32_t> keys, int64_t kv_heads, bool with_lse)
      : q_lens(std::move(queries)), k_lens(std::move(keys)) {
    constexpr int32_t kPaddedRows = 3;
    for (const int32_t length : q_lens) cu_q.push_back(cu_q.back() + length);
    for (const int32_t length : k_lens) cu_k.push_back(cu_k.back() + length);
    static int32_t ids = 0;
    static float lse = 0;
    core::IndexForwardParams& op = p.op;
    op.num_kv_heads = kv_heads;
    op.index_dim = 128;
    op.block_size = kBlock;
    op.block_ids.data = &ids;
    op.block_ids.top_k = 16;
    op.lse_idx = with_lse ? &lse : nullptr;
    op.sequences.cu_seqlens_q = cu_q.data();
    op.sequences.cu_seqlens_k = cu_k.data();
    op.sequences.batch = static_cast<int64_t>(q_lens.size());
    op.sequences.num_query_tokens = cu_q.back() + kPaddedRows;
    op.k_idx.num_rows = cu_k.back();
    const IndexConfig config = pick_index_config(op);
    p.tile_shift = std::countr_zero(static_cast<unsigned>(config.tile_queries));
    p.block_shift = std::countr_zero(static_cast<uint64_t>(kBlock));
    p.head_shift = std::countr_zero(static_cast<uint64_t>(kv_heads));
    p.num_tiles = config.num_tiles;
    p.splits = config.splits;
    p.even_splits = config.even_splits;
    p.wanted_blocks = config.wanted_blocks;
    p.common_piece = &common;
    works.resize(static_cast<size_t>(p.num_blocks()));
    EXPECT_EQ(launch_overlapped(find_all_work, dim3(static_cast<unsigned>(works.size())), 32, 0,
                                nullptr, p, works.data()),
              cudaSuccess);
  }

  /// Blocks that the last thread block to end works on.
  int longest_piece() const {
    int longest = 0;
    for (const IndexWork& work : works) longest = std::max(longest, work.end - work.begin);
    return longest;
  }

  void check() const {
    // Tiles by the packed row of their first query, with the ranges of their pieces.
    std::map<int, std::vector<const IndexWork*>> tiles;
    for (const IndexWork& work : works) {
      if (work.num_rows > 0) tiles[work.first_row].push_back(&work);
    }
    int next_row = 0;
    for (auto& [first_row, pieces] : tiles) {
      ASSERT_EQ(first_row, next_row) << "tiles follow each other";
      next_row += pieces[0]->num_rows;
      std::sort(pieces.begin(), pieces.end(),
                [](const IndexWork* a, const IndexWork* b) { return a->piece < b->piece; });
      ASSERT_LE(static_cast<int>(pieces.size()), p.splits);
      int begin = 0;
      for (size_t n = 0; n < pieces.size(); ++n) {
        ASSERT_EQ(pieces[n]->piece, static_cast<int>(n));
        ASSERT_EQ(pieces[n]->begin, begin) << "pieces follow each other";
        ASSERT_EQ(pieces[n]->num_rows, pieces[0]->num_rows);
        ASSERT_EQ(pieces[n]->alone, pieces.size() == 1 ? 1 : 0);
        begin = pieces[n]->end;
        if (p.op.lse_idx != nullptr && n + 1 < pieces.size()) {
          ASSERT_EQ(begin % pieces[n]->segment, 0) << "whole segments";
        }
      }
      // The last piece ends behind the last block that a query of the tile sees, or at the local
      // one, which is taken unseen.
      const int queries = pieces[0]->num_rows >> p.head_shift;
      const int last = pieces[0]->first_position + queries - 1;
      const int blocks = last < 0 ? 0 : last / static_cast<int>(kBlock);
      ASSERT_EQ(begin, last >= 0 && p.scores_local() ? blocks + 1 : blocks);
    }
    ASSERT_EQ(next_row, p.op.sequences.num_query_tokens << p.head_shift);
  }
};

TEST(IndexPieces, EveryBlockOfEveryTileIsWorkedOnOnce) {
  std::mt19937 random(5);
  for (int n = 0; n < 40; ++n) {
    std::vector<int32_t> q_lens(1 + random() % 5);
    std::vector<int32_t> k_lens;
    for (int32_t& length : q_lens) {
      length = static_cast<int32_t>(random() % (n % 4 == 0 ? 2000 : 300));
      const auto most = random() % 3 == 0 ? 200000u : 3000u;
      k_lens.push_back(static_cast<int32_t>(random() % most));
      if (random() % 8 != 0) k_lens.back() = std::max(k_lens.back(), length);
    }
    const Batch batch(q_lens, k_lens, int64_t{1} << random() % 4, random() % 2 == 0);
    batch.check();
    ASSERT_FALSE(HasFailure()) << "case " << n;
  }
}

TEST(IndexPieces, RequestsOfDifferentLengthsEndTogether) {
  // 6 tiles, 3 * (1094 + 547) blocks: 132 thread blocks need 38 each.
  const Batch two({164, 163}, {140055, 70027}, 4, false);
  two.check();
  EXPECT_LE(two.longest_piece(), 40);
  EXPECT_LE(std::count_if(two.works.begin(), two.works.end(),
                          [](const IndexWork& work) { return work.num_rows > 0; }),
            132 + 1);  // and one for the rows past the requests
  const Batch one({171}, {55339}, 4, false);
  one.check();
  EXPECT_EQ(one.longest_piece(), 10);
}

}  // namespace
}  // namespace msa::cuda
