// Sweeps with a workbench whose times are known: totals, medians, and what ends the repeating. And
// the real workbench: that it measures what the accounting counts.
#include "bench/measure.h"

#include <gtest/gtest.h>

#include <set>

namespace msa::bench {
namespace {

LayerShape tiny_shape() {
  return {.name = "tiny",
          .q_heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .block_size = 4,
          .top_k = 2,
          .q_type = DType::kFloat32,
          .kv_type = DType::kFloat32};
}

/// Costs as many nanoseconds as its queries see tokens, times the number of the sweep for dense.
class KnownWorkbench final : public Workbench {
 public:
  void place(const std::vector<Request>& requests) override {
    pairs_ = visible_pairs(requests);
    ++places;
  }
  double seconds(Part part) override {
    called.push_back(part);
    if (part == Part::kIndex) return 1e-9 * pairs_;
    if (part == Part::kAttend) return 1e-6;
    return 1e-9 * pairs_ * static_cast<double>(places);
  }
  void prepare(Part part) override { prepared.push_back(part); }
  void cool() override { ++cools; }
  std::vector<int32_t> block_ids() const override { return std::vector<int32_t>(1 << 16, -1); }
  size_t workspace_bytes() const override { return 0; }

  int places = 0;
  int cools = 0;
  std::vector<Part> called, prepared;

 private:
  double pairs_ = 0;
};

const OnCall kNobody = [](const Piece&, Part) {};

TEST(Summaries, MedianOfOddAndEvenCounts) {
  EXPECT_EQ(summarise({3, 1, 2}).median, 2);
  EXPECT_EQ(summarise({4, 1, 2, 3}).median, 2.5);
  EXPECT_EQ(summarise({4, 1, 2, 3}).least, 1);
  EXPECT_EQ(summarise({4, 1, 2, 3}).most, 4);
  EXPECT_DOUBLE_EQ(summarise({4, 1, 2, 3}).spread(), 3 / 2.5);
  EXPECT_EQ(summarise({7}).spread(), 0);
  EXPECT_EQ(summarise({}).count, 0u);
}

TEST(Measure, SampledTotalsEqualTheKnownWhole) {
  KnownWorkbench workbench;
  const Plan plan = plan_calls({{8192, 8192}}, {.chunk = 128, .samples = 4});
  ASSERT_TRUE(plan.sampled);
  const Measurement result = measure(workbench, tiny_shape(), plan, {Part::kIndex, Part::kAttend},
                                     {.repeats = 3, .seconds = 100}, kNobody);
  ASSERT_EQ(result.parts.size(), 2u);
  ASSERT_EQ(result.parts[0].second.seconds.size(), 3u);
  for (const double seconds : result.parts[0].second.seconds) {
    EXPECT_NEAR(seconds, 1e-9 * 8192 * 8193 / 2, 1e-12);  // known: N (N + 1) / 2
  }
  EXPECT_NEAR(result.parts[1].second.seconds[0], 64e-6, 1e-12);  // 64 calls of 1 us
  EXPECT_NEAR(result.sum.seconds[0], 1e-9 * 8192 * 8193 / 2 + 64e-6, 1e-12);
  // Sampling does not see the first K B = 8 queries, which rank nothing.
  const double flop = index_work(tiny_shape(), {{8192, 8192}}).flop;
  EXPECT_NEAR(result.parts[0].second.work.flop, flop, 2e-6 * flop);
  EXPECT_EQ(workbench.places, 1 + 3 * 4);  // one call warms up
  EXPECT_EQ(workbench.cools, workbench.places);
}

TEST(Measure, AWholeRunSaysWhatSamplingWouldHaveSaid) {
  KnownWorkbench workbench;
  const Plan plan = plan_calls({{8192, 8192}}, {.chunk = 128, .samples = 4, .whole = true});
  const Measurement result = measure(workbench, tiny_shape(), plan, {Part::kIndex},
                                     {.repeats = 1, .seconds = 100}, kNobody);
  const Timing& index = result.parts[0].second;
  ASSERT_EQ(index.sample_seconds.size(), 1u);
  EXPECT_NEAR(index.seconds[0], 1e-9 * 8192 * 8193 / 2, 1e-12);
  EXPECT_NEAR(index.sample_seconds[0], index.seconds[0], 1e-12);
}

TEST(Measure, TimeEndsTheRepeatingAfterOneSweep) {
  KnownWorkbench workbench;
  const Plan plan = plan_calls({{16, 16}}, {});
  const Measurement result = measure(workbench, tiny_shape(), plan, {Part::kDense},
                                     {.repeats = 50, .seconds = 0}, kNobody);
  EXPECT_EQ(result.parts[0].second.seconds.size(), 1u);
}

TEST(Measure, WhatAPartTakesFromOthersIsNotTimed) {
  KnownWorkbench workbench;
  int told = 0;
  const Plan plan = plan_calls({{16, 16}}, {});
  measure(workbench, tiny_shape(), plan, {Part::kAttend},
          {.repeats = 1, .seconds = 0, .prepare = true},
          [&](const Piece&, Part part) { told += part == Part::kAttend ? 1 : 100; });
  EXPECT_EQ(workbench.prepared, (std::vector<Part>{Part::kAttend, Part::kAttend}));
  EXPECT_EQ(workbench.called, (std::vector<Part>{Part::kAttend, Part::kAttend}));
  EXPECT_EQ(told, 1);
}

TEST(HostWorkbench, TrainingRunsOnPackedKeys) {
  const Context context({.backend = Backend::kCpu, .num_threads = 1});
  const LayerShape shape = tiny_shape();
  const std::vector<Request> batch = {{61, 61}, {3, 3}};
  Room room;
  room.grow(shape, {{batch, 1, 0}});
  const auto workbench = make_host_workbench(context, shape, room, {}, Clock::kWall, nullptr, true);
  workbench->place(batch);
  for (const Part part : {Part::kBackward, Part::kDenseBackward, Part::kKl, Part::kDenseKl}) {
    workbench->prepare(part);
    EXPECT_GT(workbench->seconds(part), 0) << part_name(part);
  }
}

/// Every kind of picks: ascending, local block last, at most K, within what is visible.
TEST(HostWorkbench, PicksAreListsThatTheLibraryTakes) {
  const Context context({.backend = Backend::kCpu, .num_threads = 1});
  const LayerShape shape = tiny_shape();
  const std::vector<Request> batch = {{5, 61}, {3, 3}, {1, 40}};
  Room room;
  room.grow(shape, {{batch, 1, 0}});
  EXPECT_EQ(room.queries, 9);
  EXPECT_EQ(room.blocks, 16 + 1 + 10);
  EXPECT_EQ(room.table_blocks, 16);
  for (const PickKind kind :
       {PickKind::kIndex, PickKind::kRandom, PickKind::kKeep, PickKind::kSink}) {
    const auto workbench = make_host_workbench(
        context, shape, room, {.kind = kind, .keep = 0.5, .seed = 7}, Clock::kWall, nullptr, false);
    workbench->place(batch);
    for (const Part part : {Part::kAppend, Part::kIndex, Part::kAttend, Part::kDense}) {
      EXPECT_GT(workbench->seconds(part), 0) << part_name(part);
    }
    const std::vector<int32_t> ids = workbench->block_ids();
    ASSERT_EQ(ids.size(), 2u * 9 * 2);
    size_t at = 0;
    for (int group = 0; group < 2; ++group) {
      for (const Request& request : batch) {
        for (int64_t t = 0; t < request.q_len; ++t, at += 2) {
          const int64_t local = (request.k_len - request.q_len + t) / 4;
          const int64_t last = local == 0 ? ids[at] : ids[at + 1];
          EXPECT_EQ(last, local);
          if (local == 0) {
            EXPECT_EQ(ids[at + 1], -1);
          } else {
            EXPECT_GE(ids[at], 0);
            EXPECT_LT(ids[at], local);
          }
          EXPECT_TRUE(kind != PickKind::kSink || local == 0 || ids[at] == 0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace msa::bench
