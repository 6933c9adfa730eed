// Those parts of decode that are plain CUDA C++, on the host (emulation.h): how blocks are shared
// out, and the selection from scores, against their definitions.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "cuda/sm90/decode/select.cu"
#include "cuda/sm90/decode/share.cuh"

namespace msa::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kBlock = 64;

struct Batch {
  std::vector<int32_t> q_lens, k_lens, cu_q = {0}, table;
  int64_t heads = 2;
  int64_t top_k = 4;
  int64_t max_queries = 3;
  int64_t padded = 0;
  int64_t max_pages = 1;
  std::vector<float> scores;
  std::vector<int32_t> ids;

  int64_t rows() const { return cu_q.back() + padded; }
  /// Blocks before the local one of row t of request r; -1 for an empty row.
  int64_t local(size_t r, int64_t t) const {
    const int64_t position = k_lens[r] - q_lens[r] + t;
    return position < 0 ? -1 : position / kBlock;
  }
  DecodeIndexParams params() {
    for (const int32_t length : q_lens) cu_q.push_back(cu_q.back() + length);
    for (const int32_t length : k_lens) {
      max_pages = std::max<int64_t>(max_pages, (length + kBlock - 1) / kBlock);
    }
    table.assign(q_lens.size() * static_cast<size_t>(max_pages), 0);
    DecodeIndexParams p;
    p.op.sequences.cu_seqlens_q = cu_q.data();
    p.op.sequences.page_table = table.data();
    p.op.sequences.kv_lens = k_lens.data();
    p.op.sequences.page_table_stride = max_pages;
    p.op.sequences.max_pages = max_pages;
    p.op.sequences.page_size = kBlock;
    p.op.sequences.batch = static_cast<int64_t>(q_lens.size());
    p.op.sequences.num_query_tokens = rows();
    p.op.num_kv_heads = heads;
    p.op.block_size = kBlock;
    ids.assign(static_cast<size_t>(heads * rows() * top_k), 77);
    p.op.block_ids = {ids.data(), rows() * top_k, top_k, top_k};
    p.max_queries = static_cast<int>(max_queries);
    p.block_shift = std::countr_zero(static_cast<uint64_t>(kBlock));
    p.head_shift = std::countr_zero(static_cast<uint64_t>(heads));
    p.score_stride = round_up(max_pages, 128);
    return p;
  }
};

TEST(DecodeShare, EveryBlockOnceAndEqualShares) {
  emulation::set_seed(5);
  std::mt19937 random(1);
  for (const size_t requests : {size_t{1}, size_t{3}, size_t{200}}) {
    for (const unsigned thread_blocks : {1u, 7u, 20u}) {
      Batch batch;
      for (size_t r = 0; r < requests; ++r) {
        batch.q_lens.push_back(static_cast<int32_t>(random() % 5));  // 4 is more than allowed
        batch.k_lens.push_back(
            static_cast<int32_t>(random() % 3 == 0 ? random() % 300 : random() % 20000));
      }
      const DecodeIndexParams p = batch.params();
      std::map<std::pair<int, int>, int> seen;
      std::vector<int> shares(thread_blocks, 0);
      std::vector<int32_t> prefix(requests + 1);
      emulation::run_grid(dim3(thread_blocks), 160, [&] {
        count_blocks<160>(p, prefix.data());
        for_requests(p, prefix.data(), [&](const ScoredRequest& part) {
          if (threadIdx.x != 3) return;
          EXPECT_EQ(part.rows.key_length, batch.k_lens[static_cast<size_t>(part.index)]);
          for (int block = part.begin; block < part.end; ++block) ++seen[{part.index, block}];
          shares[blockIdx.x] += part.end - part.begin;
        });
        __syncthreads();
      });
      size_t expected = 0;
      for (size_t r = 0; r < requests; ++r) {
        if (batch.q_lens[r] < 1 || batch.q_lens[r] > batch.max_queries) continue;
        const int64_t local = batch.local(r, batch.q_lens[r] - 1);
        if (local < batch.top_k) continue;  // all that is visible is taken
        expected += static_cast<size_t>(local);
        for (int64_t block = 0; block < local; ++block) {
          const std::pair<int, int> key = {static_cast<int>(r), static_cast<int>(block)};
          ASSERT_EQ(seen[key], 1) << "request " << r << " block " << block;
        }
      }
      EXPECT_EQ(seen.size(), expected);
      const auto [least, most] = std::minmax_element(shares.begin(), shares.end());
      EXPECT_LE(*most - *least, 1);
    }
  }
}

TEST(DecodeSelect, FollowsTheRule) {
  emulation::set_seed(6);
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (const int64_t top_k : {1, 4, 16, 17, 32}) {
    for (const int64_t longest : {1000, 80000}) {
      Batch batch;
      batch.top_k = top_k;
      batch.padded = 4;
      for (int r = 0; r < 4; ++r) {
        batch.q_lens.push_back(static_cast<int32_t>(r));
        batch.k_lens.push_back(
            r == 1 ? static_cast<int32_t>(longest)
                   : static_cast<int32_t>(random() % static_cast<unsigned>(longest)));
      }
      DecodeIndexParams p = batch.params();
      const bool ties = top_k % 2 == 0;
      batch.scores.resize(static_cast<size_t>(batch.rows() * batch.heads * p.score_stride));
      for (float& score : batch.scores) {  // what no score was written to is the best of all
        score = kInfinity;
      }
      for (size_t r = 0; r < batch.q_lens.size(); ++r) {
        for (int64_t t = 0; t < batch.q_lens[r]; ++t) {
          const int64_t all = std::max<int64_t>(batch.local(r, batch.q_lens[r] - 1), 0);
          for (int64_t n = 0; n < batch.heads * all; ++n) {
            const int64_t row = (batch.cu_q[r] + t) * batch.heads + n / all;
            batch.scores[static_cast<size_t>(row * p.score_stride + n % all)] =
                ties ? static_cast<float>(random() % 40) : normal(random);
          }
        }
      }
      p.scores = batch.scores.data();
      launch_decode_select(p, nullptr);
      for (int64_t t = 0; t < batch.rows(); ++t) {
        int64_t local = -1;
        for (size_t r = 0; r < batch.q_lens.size(); ++r) {
          if (t >= batch.cu_q[r] && t < batch.cu_q[r + 1])
            local = batch.local(r, t - batch.cu_q[r]);
        }
        for (int64_t h = 0; h < batch.heads; ++h) {
          std::vector<int32_t> expected;
          const float* own = batch.scores.data() + (t * batch.heads + h) * p.score_stride;
          for (int64_t b = 0; b < local; ++b) expected.push_back(static_cast<int32_t>(b));
          std::stable_sort(expected.begin(), expected.end(),
                           [&](int32_t a, int32_t b) { return own[a] > own[b]; });
          if (static_cast<int64_t>(expected.size()) > top_k - 1) {
            expected.resize(static_cast<size_t>(top_k - 1));
          }
          std::sort(expected.begin(), expected.end());
          if (local >= 0) expected.push_back(static_cast<int32_t>(local));
          expected.resize(static_cast<size_t>(top_k), -1);
          const auto from = batch.ids.begin() + (h * batch.rows() + t) * top_k;
          ASSERT_EQ(std::vector<int32_t>(from, from + top_k), expected)
              << "row " << t << " head " << h << " K " << top_k << " longest " << longest;
        }
      }
    }
  }
}

}  // namespace
}  // namespace msa::cuda
