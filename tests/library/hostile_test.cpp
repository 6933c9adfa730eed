// The cases that break kernels, one by one, on every SIMD target.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "library/check_results.h"
#include "library/compare.h"
#include "library/scratch.h"
#include "library/simd_targets.h"

namespace msa::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

class Hostile : public testing::TestWithParam<int64_t> {
 protected:
  const ScopedSimdTarget only_{GetParam()};
  const Context cpu_{{.backend = Backend::kCpu, .num_threads = 2}};
  const Context reference_{{.backend = Backend::kReference, .num_threads = 2}};
};
INSTANTIATE_TEST_SUITE_P(Targets, Hostile, testing::ValuesIn(simd_targets()),
                         [](const auto& target) { return simd_target_name(target.param); });

CaseSpec small_spec() {
  CaseSpec spec;
  spec.kv_heads = 2;
  spec.group = 4;
  spec.head_dim = 24;
  spec.index_dim = 16;
  spec.block_size = 8;
  spec.top_k = 4;
  spec.q_lens = {20};
  spec.k_lens = {100};
  return spec;
}

/// Index keys of one dim, so that a token's score is its number times the query's.
void set_token_scores(Case& batch, const std::vector<float>& scores) {
  for (size_t j = 0; j < scores.size(); ++j) {
    for (int64_t d = 0; d < batch.spec.index_dim; ++d) {
      batch.set_index_key(0, static_cast<int64_t>(j), d, d == 0 ? scores[j] : 0.0f);
    }
  }
}

/// One query over blocks of 4 whose scores are given; ids of the cpu.
std::vector<int32_t> select(const Context& context, const std::vector<float>& block_scores,
                            int64_t top_k) {
  CaseSpec spec;
  spec.index_dim = 8;
  spec.head_dim = 8;
  spec.block_size = 4;
  spec.top_k = top_k;
  spec.q_lens = {1};
  spec.k_lens = {static_cast<int32_t>(block_scores.size() * 4)};
  Case batch(spec);
  for (int64_t d = 0; d < 8; ++d) batch.set_index_query(0, 0, d, d == 0 ? 1.0f : 0.0f);
  std::vector<float> tokens;
  for (float score : block_scores) tokens.insert(tokens.end(), 4, score);
  set_token_scores(batch, tokens);
  const IndexResult result = run_index(context, batch, {.lse = false});
  for (size_t b = 0; b < block_scores.size(); ++b) {
    const float m = result.scores[b];
    EXPECT_FALSE(std::isnan(m));
    if (std::isnan(block_scores[b])) {
      EXPECT_EQ(m, -kInfinity);
    }
  }
  return result.ids;
}

using Ids = std::vector<int32_t>;

TEST_P(Hostile, TiesGoToTheLowerId) {
  EXPECT_EQ(select(cpu_, {1, 1, 1, 1, 1, 1}, 3), (Ids{0, 1, 5}));
  EXPECT_EQ(select(cpu_, {1, 2, 1, 2, 1, 2, 0}, 5), (Ids{0, 1, 3, 5, 6}));
  EXPECT_EQ(select(cpu_, std::vector<float>(500, 0.25f), 4), (Ids{0, 1, 2, 499}));
}

TEST_P(Hostile, MinusZeroEqualsZero) {
  EXPECT_EQ(select(cpu_, {-0.0f, 0, -0.0f, 0, 0}, 3), (Ids{0, 1, 4}));
  EXPECT_EQ(select(cpu_, {-1, -0.0f, 0, -0.0f, 0}, 2), (Ids{1, 4}));
  EXPECT_EQ(select(cpu_, {-1, 0, -0.0f, 0, 0}, 3), (Ids{1, 2, 4}));
}

TEST_P(Hostile, NaNIsIgnoredByTheMaximum) {
  EXPECT_EQ(select(cpu_, {kNaN, -5, kNaN, -9, 0}, 3), (Ids{1, 3, 4}));
  EXPECT_EQ(select(cpu_, {kNaN, kNaN, kNaN, kNaN}, 3), (Ids{0, 1, 3}));
  // One NaN among numbers: every place of the vector in turn.
  for (int64_t place = 0; place < 32; ++place) {
    CaseSpec spec = small_spec();
    spec.block_size = 32;
    spec.top_k = 2;
    spec.k_lens = {150};
    Case batch(spec);
    batch.set_index_key(0, 32 + place, 3, kNaN);
    IndexOptions no_lse;
    no_lse.lse = false;  // a log of a sum with NaN is NaN; only the maximum ignores it
    const IndexResult got = run_index(cpu_, batch, no_lse);
    const IndexResult expected = run_index(reference_, batch, no_lse);
    EXPECT_EQ(got.ids, expected.ids);
    EXPECT_TRUE(compare(got.scores, expected.scores, {1e-5, 1e-5}).ok) << place;
  }
}

TEST_P(Hostile, InfinitiesTieById) {
  // A dim of 0 times infinity is NaN, so queries and keys of infinite score have one dim each.
  EXPECT_EQ(select(cpu_, {-3e38f, 3e38f, 3e38f, 0, 3e38f, 0}, 3), (Ids{1, 2, 5}));
  CaseSpec spec;
  spec.index_dim = 8;
  spec.head_dim = 8;
  spec.block_size = 2;
  spec.top_k = 3;
  spec.q_lens = {1};
  spec.k_lens = {14};
  Case batch(spec);
  for (int64_t d = 0; d < 8; ++d) batch.set_index_query(0, 0, d, 3e38f);
  const std::vector<float> blocks = {-1, 3e38f, 1, 3e38f, -3e38f, 3e38f, 0};
  for (int64_t j = 0; j < 14; ++j) {
    for (int64_t d = 0; d < 8; ++d)
      batch.set_index_key(0, j, d, blocks[static_cast<size_t>(j / 2)]);
  }
  const IndexResult result = run_index(cpu_, batch, {.lse = false});
  EXPECT_EQ(result.scores[1], kInfinity);
  EXPECT_EQ(result.scores[4], -kInfinity);
  EXPECT_EQ(result.ids, (Ids{1, 2, 6}));  // block 2 too is infinite: 8 * 3e38
}

TEST_P(Hostile, TheLocalBlockIsTakenEvenWhenItIsWorst) {
  EXPECT_EQ(select(cpu_, {5, 4, 3, 2, -1e30f}, 1), (Ids{4}));
  EXPECT_EQ(select(cpu_, {5, 4, 3, 2, -1e30f}, 2), (Ids{0, 4}));
  EXPECT_EQ(select(cpu_, {5, 4, 3}, 8), (Ids{0, 1, 2, -1, -1, -1, -1, -1}));
}

TEST_P(Hostile, RisingScoresReplaceEveryCandidate) {
  std::vector<float> scores;
  for (int n = 0; n < 600; ++n) scores.push_back(static_cast<float>(n) * 0.5f);  // split decode too
  EXPECT_EQ(select(cpu_, scores, 4), (Ids{596, 597, 598, 599}));
}

TEST_P(Hostile, LogitsOfTenThousand) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    CaseSpec spec = small_spec();
    spec.q_dtype = dtype;
    spec.kv_dtype = dtype;
    spec.magnitude = 60;  // logits of about 60 * 60 * sqrt(24) / sqrt(24) * 3 = 1e4
    const Case batch(spec);
    check_case(cpu_, reference_, batch);
    spec.q_lens = {2};
    spec.k_lens = {1500};  // merged from splits
    check_case(cpu_, reference_, Case(spec));
  }
}

TEST_P(Hostile, OnePeakInFarBlock) {
  CaseSpec spec = small_spec();
  spec.q_lens = {1, 20};
  spec.k_lens = {1300, 130};
  Case batch(spec);
  for (int64_t d = 0; d < spec.head_dim; ++d) {
    const float q = batch.query_vector(0, 0)[static_cast<size_t>(d)];
    batch.set_key(0, 700, 0, d, 200 * q);
  }
  check_attention(cpu_, reference_, batch, nullptr);
}

TEST_P(Hostile, NaNBehindThePositionOfARow) {
  // Values and keys that later queries see, and earlier ones must not touch.
  CaseSpec spec = small_spec();
  Case batch(spec);
  for (int64_t h = 0; h < spec.kv_heads; ++h) {
    for (int64_t d = 0; d < spec.head_dim; ++d) {
      batch.set_value(0, 90, h, d, kNaN);
      batch.set_key(0, 95, h, d, kNaN);
    }
  }
  for (const bool dense : {true, false}) {
    const Ids all_blocks = [&] {
      Ids ids;
      for (int64_t n = 0; n < spec.kv_heads * batch.num_rows; ++n) {
        for (int32_t b = 0; b < 13; ++b) ids.push_back(b);
      }
      return ids;
    }();
    const AttentionResult got = run_attention(cpu_, batch, dense ? nullptr : &all_blocks);
    const AttentionResult expected =
        run_attention(reference_, batch, dense ? nullptr : &all_blocks);
    const Comparison out = compare(got.out, expected.out, {1e-5, 1e-5});
    EXPECT_TRUE(out.ok) << out.message;
    const Comparison lse = compare(got.lse, expected.lse, {1e-5, 1e-5});
    EXPECT_TRUE(lse.ok) << lse.message;
    const int64_t row = spec.kv_heads * spec.group;  // elements before position 90 are finite
    for (int64_t n = 0; n < 10 * row * spec.head_dim; ++n) {
      ASSERT_TRUE(std::isfinite(got.out[static_cast<size_t>(n)])) << n;
    }
    EXPECT_TRUE(std::isnan(got.out[static_cast<size_t>(10 * row * spec.head_dim)]));
  }
}

TEST_P(Hostile, LogitsOfMinusInfinity) {
  // A whole block of -inf before finite ones weighs nothing; rows of nothing else are NaN.
  CaseSpec spec = small_spec();
  spec.q_lens = {100};
  Case batch(spec);
  for (int64_t t = 0; t < 100; ++t) {
    for (int64_t h = 0; h < 8; ++h) {
      for (int64_t d = 0; d < 24; ++d)
        batch.set_query(t, h, d, 1.0f + 0.1f * static_cast<float>(h));
    }
  }
  for (int64_t j = 0; j < 16; ++j) {
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t d = 0; d < 24; ++d) batch.set_key(0, j, h, d, -kInfinity);
    }
  }
  const AttentionResult got = run_attention(cpu_, batch, nullptr);
  const AttentionResult expected = run_attention(reference_, batch, nullptr);
  EXPECT_TRUE(std::isnan(got.out[0]));
  EXPECT_TRUE(std::isfinite(got.out.back()));
  const Comparison out = compare(got.out, expected.out, {1e-5, 1e-5});
  EXPECT_TRUE(out.ok) << out.message;
}

TEST_P(Hostile, BadIds) {
  CaseSpec spec = small_spec();
  const Case batch(spec);
  const Ids lists[] = {
      {-1, 3, 2, 1},                 // nothing at all
      {5, 5, 5, 5},                  // a repeat counts once
      {9, 2, 7, 0},                  // any order
      {1000000, 3, 2147483647, 12},  // outside the sequence
      {-2, -2147483647 - 1, 4, -1},  // negative, but not the end
      {12, 11, -1, 0},               // blocks that early rows do not see; past the end unread
  };
  for (const Ids& list : lists) {
    Ids ids;
    for (int64_t n = 0; n < spec.kv_heads * batch.num_rows; ++n) {
      ids.insert(ids.end(), list.begin(), list.end());
    }
    check_attention(cpu_, reference_, batch, &ids);
  }
  const Ids none;  // K = 0
  const AttentionResult result = run_attention(cpu_, batch, &none);
  EXPECT_EQ(result.out, std::vector<float>(result.out.size(), 0.0f));
  EXPECT_EQ(result.lse, std::vector<float>(result.lse.size(), -kInfinity));
}

TEST_P(Hostile, EmptyThings) {
  struct Lengths {
    std::vector<int32_t> q, k;
    int64_t padded;
  };
  const Lengths all[] = {{{}, {}, 0},
                         {{}, {}, 3},
                         {{0}, {0}, 0},
                         {{0, 0}, {5, 0}, 2},
                         {{7}, {0}, 0},
                         {{7}, {3}, 1},
                         {{1, 0, 2}, {1, 9, 1}, 0},
                         {{16}, {8}, 0},
                         {{40}, {39}, 4}};
  for (const bool paged : {false, true}) {
    for (const Lengths& lengths : all) {
      CaseSpec spec = small_spec();
      spec.paged = paged;
      spec.q_lens = lengths.q;
      spec.k_lens = lengths.k;
      spec.padded_rows = lengths.padded;
      check_case(cpu_, reference_, Case(spec));
    }
  }
}

TEST_P(Hostile, LargeBlocksGoByInPieces) {
  CaseSpec spec = small_spec();
  spec.block_size = 300;
  spec.top_k = 2;
  spec.q_lens = {30, 1};
  spec.k_lens = {950, 1400};
  check_case(cpu_, reference_, Case(spec));
}

TEST_P(Hostile, IndexLseOverAllVisibleTokens) {
  CaseSpec spec = small_spec();
  spec.q_lens = {20, 2, 5};
  spec.k_lens = {100, 1900, 3};
  const Case batch(spec);
  const IndexOptions visible = {.ids = false, .scope = IndexLseScope::kVisible};
  const Comparison lse = compare(run_index(cpu_, batch, visible).lse,
                                 run_index(reference_, batch, visible).lse, {1e-5, 1e-5});
  EXPECT_TRUE(lse.ok) << lse.message;
}

TEST_P(Hostile, StridesFarApart) {
  // Two tokens at the two ends of address space that has no memory between them.
  constexpr int64_t kFar = int64_t{1} << 31;  // elements: offsets do not fit 32 bits
  const std::vector<float> q(8, 0.5f);
  std::vector<float> near(16, 0.0f);
  for (size_t n = 0; n < near.size(); ++n) near[n] = static_cast<float>(n);
  const std::vector<int32_t> cu_q = {0, 1};
  const std::vector<int32_t> cu_k = {0, 2};
  std::vector<float> far_out(8), near_out(8);
  const auto run = [&](const void* data, int64_t token_stride, std::vector<float>& out) {
    DenseAttentionForwardArgs args;
    args.q = Tensor(q.data(), DType::kFloat32, {1, 1, 8});
    args.k = Tensor(data, DType::kFloat32, {2, 1, 8}, {token_stride, 8, 1});
    args.v = args.k;
    args.sequences.cu_seqlens_q = Tensor(cu_q.data(), DType::kInt32, {2});
    args.sequences.cu_seqlens_k = Tensor(cu_k.data(), DType::kInt32, {2});
    args.out = MutableTensor(out.data(), DType::kFloat32, {1, 1, 8});
    const Scratch workspace(dense_attention_forward_workspace_size(cpu_, args));
    dense_attention_forward(cpu_, args, workspace.view());
  };
  run(near.data(), 8, near_out);
  // A negative stride: the view starts at the last token.
  const std::vector<float> reversed = {8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7};
  run(reversed.data() + 8, -8, far_out);
  EXPECT_EQ(far_out, near_out);
  const SparseFloats huge(kFar + 8);
  std::copy_n(near.begin(), 8, huge.data());
  std::copy_n(near.begin() + 8, 8, huge.data() + kFar);
  run(huge.data(), kFar, far_out);
  EXPECT_EQ(far_out, near_out);
}

}  // namespace
}  // namespace msa::test
