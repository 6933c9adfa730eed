// The sampler: ties, cuts, reproducibility and the distribution itself.
#include "runner/sampler.h"

#include <cmath>
#include <limits>

#include "tests/runner/fixture.h"

namespace msa::runner::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<int64_t> histogram(const SamplerOptions& options, const std::vector<float>& logits,
                               int draws) {
  Sampler sampler(options);
  std::vector<int64_t> counts(logits.size(), 0);
  for (int n = 0; n < draws; ++n) ++counts[static_cast<size_t>(sampler.next(logits))];
  return counts;
}

TEST(Sampler, GreedyTakesTheLowestIdOfATie) {
  Sampler sampler({});
  EXPECT_EQ(sampler.next(std::vector<float>{1, 3, 3, 2}), 1);
  EXPECT_EQ(sampler.next(std::vector<float>{-kInfinity, -5}), 1);
  EXPECT_EQ(sampler.next(std::vector<float>{NAN, -5, NAN}), 1);
  EXPECT_EQ(sampler.next(std::vector<float>{1, kInfinity, kInfinity}), 1);
  EXPECT_EQ(sampler.next(std::vector<float>{-0.0f, 0.0f}), 0);
}

TEST(Sampler, RefusesWhatCannotBeSampled) {
  Sampler sampler({.temperature = 1});
  const std::vector<float> nothing = {-kInfinity, NAN};
  expect_error([&] { sampler.next(nothing); }, {"[sampler]", "no token", "2"});
  expect_error([&] { sampler.next({}); }, {"[sampler]", "no token"});
  expect_error([] { Sampler({.temperature = -1}); }, {"temperature", "got -1"});
  expect_error([] { Sampler({.temperature = NAN}); }, {"temperature"});
  expect_error([] { Sampler({.top_k = -1}); }, {"top_k", "got -1"});
  expect_error([] { Sampler({.top_p = 0}); }, {"top_p", "got 0"});
  expect_error([] { Sampler({.top_p = 1.5f}); }, {"top_p", "got 1.5"});
}

TEST(Sampler, DrawsAreThoseOfSplitMix64) {
  // Published first outputs of SplitMix64 for seed 1234567: with two equal logits, the top bit of
  // each output chooses.
  const uint64_t outputs[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                              4593380528125082431u, 16408922859458223821u};
  Sampler sampler({.temperature = 1, .seed = 1234567});
  for (uint64_t output : outputs) {
    EXPECT_EQ(sampler.next(std::vector<float>{0, 0}), static_cast<int32_t>(output >> 63));
  }
}

TEST(Sampler, FollowsTheSoftmax) {
  const std::vector<float> logits = {0, 1, 2, -1, 0.5f};
  constexpr int kDraws = 40000;
  for (float temperature : {0.5f, 1.0f, 2.0f}) {
    const auto counts = histogram({.temperature = temperature, .seed = 11}, logits, kDraws);
    double total = 0;
    for (float logit : logits) total += std::exp(static_cast<double>(logit / temperature));
    for (size_t id = 0; id < logits.size(); ++id) {
      const double p = std::exp(static_cast<double>(logits[id] / temperature)) / total;
      const double deviation = std::sqrt(kDraws * p * (1 - p));
      EXPECT_NEAR(static_cast<double>(counts[id]), kDraws * p, 4.5 * deviation) << id;
    }
  }
}

TEST(Sampler, CutsByTopKAndTopP) {
  const std::vector<float> logits = {1, 3, 2, 3, -1, NAN};
  auto counts = histogram({.temperature = 1, .top_k = 2, .seed = 3}, logits, 2000);
  EXPECT_EQ(counts[1] + counts[3], 2000);
  EXPECT_GT(counts[3], 800);
  counts = histogram({.temperature = 1, .top_k = 1, .seed = 3}, logits, 100);
  EXPECT_EQ(counts[1], 100);  // the lower id of the tie
  counts = histogram({.temperature = 1, .top_p = 0.3f, .seed = 3}, logits, 100);
  EXPECT_EQ(counts[1], 100);  // 3 and 3 hold 0.40 each
  counts = histogram({.temperature = 1, .top_p = 0.5f, .seed = 3}, logits, 2000);
  EXPECT_EQ(counts[1] + counts[3], 2000);
  counts = histogram({.temperature = 1, .top_p = 1, .seed = 3}, logits, 20000);
  EXPECT_GT(counts[4], 0);
  EXPECT_EQ(counts[5], 0);
}

TEST(Sampler, SameSeedSameTokens) {
  const std::vector<float> logits = {0, 0.1f, 0.2f, 0.3f};
  const auto run = [&](uint64_t seed) {
    Sampler sampler({.temperature = 1, .seed = seed});
    std::vector<int32_t> ids;
    for (int n = 0; n < 50; ++n) ids.push_back(sampler.next(logits));
    return ids;
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
}

}  // namespace
}  // namespace msa::runner::test
