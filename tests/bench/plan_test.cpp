// Slices, and the integral that sampled tiles make: where it is exact, and by how much it is wrong
// where it is not.
#include "bench/plan.h"

#include <gtest/gtest.h>

#include "bench/accounting.h"

namespace msa::bench {
namespace {

using Positions = std::vector<std::pair<size_t, int64_t>>;  // (request, position) of each query

TEST(Plan, SlicesKeepPositions) {
  const std::vector<Request> batch = {{3, 10}, {1, 4}, {5, 5}};
  const std::vector<Request> part = slice(batch, 2, 6);
  ASSERT_EQ(part.size(), 3u);
  EXPECT_EQ(part[0].q_len, 1);
  EXPECT_EQ(part[0].k_len, 10);
  EXPECT_EQ(part[1].q_len, 1);
  EXPECT_EQ(part[1].k_len, 4);
  EXPECT_EQ(part[2].q_len, 2);
  EXPECT_EQ(part[2].k_len, 2);
  EXPECT_TRUE(slice(batch, 9, 12).empty());
  EXPECT_EQ(count_queries(slice(batch, 0, 9)), 9);
  // The calls of a plan see each pair of query and token once.
  for (const int64_t chunk : {1, 2, 4, 100}) {
    const Plan plan = plan_calls(batch, {.chunk = chunk, .samples = 100});
    double pairs = 0;
    for (const Piece& piece : plan.pieces) {
      EXPECT_LE(count_queries(piece.requests), chunk);
      EXPECT_EQ(piece.weight, 1);
      pairs += visible_pairs(piece.requests);
    }
    EXPECT_EQ(pairs, visible_pairs(batch));
    EXPECT_FALSE(plan.sampled);
    EXPECT_EQ(plan.measured_queries, 9);
  }
}

TEST(Plan, AContextIsReadInChunks) {
  const Plan plan = plan_calls({{2500, 2500}}, {.chunk = 1024, .samples = 8});
  ASSERT_EQ(plan.pieces.size(), 3u);
  EXPECT_EQ(plan.pieces[1].requests[0].k_len, 2048);
  EXPECT_EQ(plan.pieces[2].requests[0].q_len, 452);
  EXPECT_EQ(plan.pieces[2].requests[0].k_len, 2500);
}

/// sum of weight * cost over the pieces.
template <typename Cost>
double integral(const Plan& plan, const Cost& cost) {
  double sum = 0;
  for (const Piece& piece : plan.pieces) sum += piece.weight * cost(piece.requests);
  return sum;
}

/// Cost of queries by their positions.
template <typename Cost>
auto by_position(const Cost& cost) {
  return [cost](const std::vector<Request>& requests) {
    double sum = 0;
    for (const Request& request : requests) {
      for (int64_t t = 0; t < request.q_len; ++t) {
        sum += cost(static_cast<double>(request.k_len - request.q_len + t));
      }
    }
    return sum;
  };
}

TEST(Plan, SampledWeightsCoverEveryQuery) {
  for (const int64_t samples : {1, 3, 8}) {
    const Plan plan = plan_calls({{65536, 65536}}, {.chunk = 1000, .samples = samples});
    EXPECT_TRUE(plan.sampled);
    EXPECT_EQ(plan.pieces.size(), static_cast<size_t>(samples));
    EXPECT_NEAR(integral(plan, by_position([](double) { return 1.0; })), 65536, 1e-6);
  }
}

TEST(Plan, SamplingIsExactForCostThatIsLinearInThePosition) {
  // Dense attention's products. Known: N (N + 1) / 2 pairs.
  const Plan plan = plan_calls({{65536, 65536}}, {.chunk = 1024, .samples = 8});
  EXPECT_DOUBLE_EQ(integral(plan, visible_pairs), 65536.0 * 65537 / 2);
  // The last part of a longer context, and a length that nothing divides: begins of tiles are
  // rounded to whole queries, which is at most half a query of 60,000.
  EXPECT_DOUBLE_EQ(
      integral(plan_calls({{16384, 100000}}, {.chunk = 256, .samples = 4}), visible_pairs),
      visible_pairs({{16384, 100000}}));
  const std::vector<Request> odd = {{60001, 70003}};
  EXPECT_NEAR(
      integral(plan_calls(odd, {.chunk = 999, .samples = 7}), visible_pairs) / visible_pairs(odd),
      1, 2e-5);
}

TEST(Plan, SamplingMissesWhatTheMidpointRuleMisses) {
  // Of cost x^2 over N, midpoints of S parts, averaged over tiles of C, miss
  // (N^2 / S^2 - C^2) / 12 of a mean of N^2 / 3: here (8192^2 - 1024^2) / 12 over 65536^2 / 3.
  const Plan plan = plan_calls({{65536, 65536}}, {.chunk = 1024, .samples = 8});
  const auto square = by_position([](double x) { return (x + 0.5) * (x + 0.5); });
  const double exact = 65536.0 * 65536.0 * 65536.0 / 3;
  const double missed = (8192.0 * 8192 - 1024.0 * 1024) / 12 / (65536.0 * 65536 / 3);
  EXPECT_NEAR(1 - integral(plan, square) / exact, missed, 1e-6);
  EXPECT_NEAR(missed, 0.0038, 1e-4);
  // Sparse attention's products have one bend, at K B tokens: it lies in the first part, whose tile
  // is beyond it. Known: 1024 * 1025 / 2 + 1024 (N - 1024).
  const auto bend = by_position([](double x) { return std::min(x + 1, 1024.0); });
  const double known = 1024.0 * 1025 / 2 + 1024.0 * (65536 - 1024);
  EXPECT_NEAR(integral(plan, bend) / known - 1, 512.0 / 65536, 1e-4);
}

TEST(Plan, SamplingGoesAcrossRequests) {
  std::vector<Request> batch;
  for (int64_t r = 0; r < 64; ++r) batch.push_back({8, 1000 + 10 * r});
  const Plan plan = plan_calls(batch, {.chunk = 32, .samples = 4});
  EXPECT_TRUE(plan.sampled);
  EXPECT_EQ(plan.num_queries, 512);
  EXPECT_EQ(plan.measured_queries, 128);
  EXPECT_NEAR(integral(plan, visible_pairs) / visible_pairs(batch), 1, 1e-3);
}

TEST(Plan, AWholeRunCarriesItsOwnCheck) {
  const std::vector<Request> context = {{65536, 65536}};
  const PlanOptions options = {.chunk = 1024, .samples = 8, .whole = true};
  const Plan plan = plan_calls(context, options);
  EXPECT_TRUE(plan.checks_sampling);
  EXPECT_FALSE(plan.sampled);
  EXPECT_EQ(plan.pieces.size(), 64u + 8u);
  EXPECT_DOUBLE_EQ(integral(plan, visible_pairs), visible_pairs(context));
  double sampled = 0;
  for (size_t n = 0; n < plan.pieces.size(); ++n) {
    const Piece& piece = plan.pieces[n];
    sampled += piece.sample_weight * visible_pairs(piece.requests);
    if (piece.sample_weight == 0) continue;
    // Beside the calls of the same queries.
    EXPECT_EQ(piece.weight, 0);
    ASSERT_GT(n, 0u);
    EXPECT_LE(std::abs(piece.requests[0].k_len - plan.pieces[n - 1].requests[0].k_len), 1024);
  }
  EXPECT_DOUBLE_EQ(sampled, visible_pairs(context));
  // Nothing to check where everything is run anyway.
  EXPECT_FALSE(plan_calls({{4096, 4096}}, options).checks_sampling);
}

}  // namespace
}  // namespace msa::bench
