// Recalls against a sum written once more, on the reference and on every SIMD target: packed and
// paged, all layouts and types, lists with repeats, ids outside and an early end.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "library/cases.h"
#include "library/scratch.h"
#include "library/simd_targets.h"

namespace msa::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr size_t kKinds = 4;

using Lists = std::vector<int32_t>;

struct Recalls {
  std::vector<float> rows[kKinds];  // [Hkv, Tq]
  float means[kKinds] = {77, 77, 77, 77};
};

Context context_of(Backend backend, int threads = 2) {
  ContextOptions options;
  options.backend = backend;
  options.num_threads = threads;
  return Context(options);
}

Recalls run(const Context& context, const Case& batch, const Lists& ids) {
  const CaseSpec& spec = batch.spec;
  Recalls result;
  RecallArgs args;
  args.q = batch.q;
  args.k = batch.k;
  args.sequences = batch.sequences;
  args.block_size = spec.block_size;
  args.block_ids = Tensor(ids.data(), DType::kInt32, {spec.kv_heads, batch.num_rows, spec.top_k});
  MutableTensor* const rows[] = {&args.rows.block_recall, &args.rows.score_recall,
                                 &args.rows.block_recall_without_local,
                                 &args.rows.score_recall_without_local};
  MutableTensor* const means[] = {&args.means.block_recall, &args.means.score_recall,
                                  &args.means.block_recall_without_local,
                                  &args.means.score_recall_without_local};
  for (size_t kind = 0; kind < kKinds; ++kind) {
    result.rows[kind].assign(static_cast<size_t>(spec.kv_heads * batch.num_rows), 77.0f);
    *rows[kind] = {result.rows[kind].data(), DType::kFloat32, {spec.kv_heads, batch.num_rows}};
    *means[kind] = {&result.means[kind], DType::kFloat32, {1}};
  }
  const Scratch workspace(recall_workspace_size(context, args));
  recall(context, args, workspace.view());
  return result;
}

std::vector<double> masses(const Case& batch, int64_t t, int64_t g) {
  const auto [request, position] = batch.row(t);
  const int64_t group = batch.spec.group;
  const double scale = 1 / std::sqrt(static_cast<double>(batch.spec.head_dim));
  std::vector<double> mass(static_cast<size_t>(position / batch.spec.block_size + 1), 0.0);
  for (int64_t h = g * group; h < (g + 1) * group; ++h) {
    const std::vector<float> q = batch.query_vector(t, h);
    std::vector<double> weights;
    double sum = 0;
    for (int64_t j = 0; j <= position; ++j) {
      const std::vector<float> k = batch.key_vector(request, j, g);
      double dot = 0;
      for (size_t d = 0; d < q.size(); ++d) {
        dot += static_cast<double>(q[d]) * static_cast<double>(k[d]);
      }
      weights.push_back(std::exp(scale * dot));
      sum += weights.back();
    }
    for (size_t j = 0; j < weights.size(); ++j) {
      mass[j / static_cast<size_t>(batch.spec.block_size)] +=
          weights[j] / sum / static_cast<double>(group);
    }
  }
  return mass;
}

/// The four recalls of a row, or nothing where it does not count.
std::vector<double> expected_row(const Case& batch, const Lists& ids, int64_t t, int64_t g) {
  const auto top_k = static_cast<size_t>(batch.spec.top_k);
  const auto [request, position] = batch.row(t);
  const int64_t local = position < 0 ? -1 : position / batch.spec.block_size;
  if (request < 0 || local + 1 <= batch.spec.top_k) return {};
  const std::vector<double> mass = masses(batch, t, g);
  std::vector<int64_t> order;
  for (size_t b = 0; b < mass.size(); ++b) order.push_back(static_cast<int64_t>(b));
  std::stable_sort(order.begin(), order.end(), [&mass](int64_t a, int64_t b) {
    return mass[static_cast<size_t>(a)] > mass[static_cast<size_t>(b)];
  });
  order.resize(top_k);
  const auto list = ids.begin() + (g * batch.num_rows + t) * batch.spec.top_k;
  const std::set<int64_t> chosen(list, std::find(list, list + batch.spec.top_k, -1));
  double sums[2][4] = {};  // best blocks, found blocks, best mass, found mass; then without local
  for (const int64_t block : order) {
    const double weight = mass[static_cast<size_t>(block)];
    const double found = chosen.count(block) > 0 ? 1 : 0;
    for (int part = 0; part < (block == local ? 1 : 2); ++part) {
      sums[part][0] += 1;
      sums[part][1] += found;
      sums[part][2] += weight;
      sums[part][3] += found * weight;
    }
  }
  std::vector<double> recalls;
  for (const auto& sum : sums) {
    recalls.push_back(sum[0] == 0 ? 1 : sum[1] / sum[0]);
    recalls.push_back(sum[2] == 0 ? 1 : sum[3] / sum[2]);
  }
  return recalls;
}

void check(const Context& context, const Case& batch, const Lists& ids, const std::string& what) {
  const Recalls got = run(context, batch, ids);
  double sums[kKinds] = {};
  int64_t count = 0;
  for (int64_t g = 0; g < batch.spec.kv_heads; ++g) {
    for (int64_t t = 0; t < batch.num_rows; ++t) {
      const std::vector<double> expected = expected_row(batch, ids, t, g);
      for (size_t kind = 0; kind < kKinds; ++kind) {
        const float value = got.rows[kind][static_cast<size_t>(g * batch.num_rows + t)];
        if (expected.empty()) {
          EXPECT_TRUE(std::isnan(value)) << what << " kind " << kind << " row " << t;
          continue;
        }
        EXPECT_NEAR(value, expected[kind], 1e-4) << what << " kind " << kind << " row " << t;
        sums[kind] += expected[kind];
      }
      count += expected.empty() ? 0 : 1;
    }
  }
  ASSERT_GT(count, 0) << what;
  for (size_t kind = 0; kind < kKinds; ++kind) {
    EXPECT_NEAR(got.means[kind], sums[kind] / static_cast<double>(count), 1e-4) << what;
  }
}

/// Lists as nobody should make them: repeats, ids outside, an end before the last place.
Lists hostile_lists(const Case& batch, uint32_t seed) {
  std::mt19937 random(seed);
  Lists ids;
  for (int64_t n = 0; n < batch.spec.kv_heads * batch.num_rows * batch.spec.top_k; ++n) {
    const auto draw = static_cast<int32_t>(random() % 12);
    ids.push_back(draw == 11 ? -1 : draw == 10 ? 1 << 30 : draw);
  }
  return ids;
}

CaseSpec long_spec(uint32_t seed) {
  CaseSpec spec;
  spec.kv_heads = 2;
  spec.group = 3;
  spec.top_k = 4;
  spec.q_lens = {5, 0, 3, 2};
  spec.k_lens = {70, 9, 61, 20};
  spec.padded_rows = 2;
  spec.seed = seed;
  return spec;
}

std::vector<CaseSpec> specs() {
  std::vector<CaseSpec> all;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (const bool paged : {false, true}) {
      CaseSpec spec = long_spec(static_cast<uint32_t>(all.size() + 1));
      spec.q_dtype = spec.kv_dtype = dtype;
      spec.paged = paged;
      spec.layout = static_cast<Layout>(all.size() % kNumLayouts);
      spec.stride_gap = paged ? 8 : 0;
      all.push_back(spec);
    }
  }
  CaseSpec wide = long_spec(20);  // more heads than a panel has rows, blocks longer than a piece
  wide.kv_heads = 1;
  wide.group = 26;
  wide.head_dim = 64;
  wide.block_size = 136;
  wide.top_k = 1;
  wide.q_lens = {2};
  wide.k_lens = {600};
  wide.padded_rows = 0;
  all.push_back(wide);
  return all;
}

void check_all(const Context& context) {
  for (const CaseSpec& spec : specs()) {
    const Case batch(spec);
    check(context, batch, hostile_lists(batch, spec.seed), "hostile " + spec.describe());
    check(context, batch, run_index(context, batch).ids, "chosen " + spec.describe());
  }
}

TEST(Recall, Reference) { check_all(context_of(Backend::kReference)); }

class CpuRecall : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Targets, CpuRecall, testing::ValuesIn(simd_targets()),
                         [](const auto& target) { return simd_target_name(target.param); });

TEST_P(CpuRecall, EqualsTheDefinition) {
  const ScopedSimdTarget only(GetParam());
  check_all(context_of(Backend::kCpu));
}

TEST(Recall, BitsDependOnNeitherThreadsNorBatch) {
  CaseSpec spec = long_spec(5);
  spec.q_lens = {6, 4};
  spec.k_lens = {70, 61};
  const Case both(spec);
  const Lists ids = hostile_lists(both, 9);
  const Recalls whole = run(context_of(Backend::kCpu, 1), both, ids);
  const Recalls threads = run(context_of(Backend::kCpu, 5), both, ids);
  CaseSpec alone_spec = spec;
  alone_spec.q_lens = {4};
  alone_spec.k_lens = {61};
  alone_spec.padded_rows = 0;
  Case alone(alone_spec);
  alone.copy_request(both, 1, 0);
  Lists alone_ids;
  for (int64_t g = 0; g < spec.kv_heads; ++g) {
    const auto from = ids.begin() + (g * both.num_rows + 6) * spec.top_k;
    alone_ids.insert(alone_ids.end(), from, from + 4 * spec.top_k);
  }
  const Recalls part = run(context_of(Backend::kCpu, 2), alone, alone_ids);
  const auto bits = [](float value) { return std::bit_cast<uint32_t>(value); };
  for (size_t kind = 0; kind < kKinds; ++kind) {
    EXPECT_EQ(bits(whole.means[kind]), bits(threads.means[kind]));
    for (size_t n = 0; n < whole.rows[kind].size(); ++n) {
      EXPECT_EQ(bits(whole.rows[kind][n]), bits(threads.rows[kind][n]));
    }
    for (int64_t g = 0; g < spec.kv_heads; ++g) {
      for (int64_t t = 0; t < 4; ++t) {
        EXPECT_EQ(bits(part.rows[kind][static_cast<size_t>(g * 4 + t)]),
                  bits(whole.rows[kind][static_cast<size_t>(g * both.num_rows + 6 + t)]));
      }
    }
  }
}

TEST(Recall, LogitsOfTenThousandStayFinite) {
  CaseSpec spec = long_spec(8);
  spec.magnitude = 60;
  const Case batch(spec);
  const Lists ids = hostile_lists(batch, 3);
  for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
    const Recalls got = run(context_of(backend), batch, ids);
    for (const float mean : got.means) {
      EXPECT_GE(mean, 0);
      EXPECT_LE(mean, 1);
    }
  }
}

TEST(Recall, NoRowThatCountsIsNaN) {
  CaseSpec spec = long_spec(4);
  spec.q_lens = {3};
  spec.k_lens = {32};  // four blocks, all of which are taken
  const Case batch(spec);
  for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
    const Recalls got = run(context_of(backend), batch, hostile_lists(batch, 1));
    for (const float mean : got.means) EXPECT_TRUE(std::isnan(mean));
  }
}

/// What the op says about arguments that `spoil` has changed.
std::string complaint(const std::function<void(RecallArgs&)>& spoil) {
  const Case batch(long_spec(1));
  const Lists ids = hostile_lists(batch, 1);
  float mean = kNaN;
  RecallArgs args;
  args.q = batch.q;
  args.k = batch.k;
  args.sequences = batch.sequences;
  args.block_size = batch.spec.block_size;
  args.block_ids =
      Tensor(ids.data(), DType::kInt32, {batch.spec.kv_heads, batch.num_rows, batch.spec.top_k});
  args.means.score_recall = {&mean, DType::kFloat32, {1}};
  spoil(args);
  try {
    recall(context_of(Backend::kReference), args, {});
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Recall, RefusesByName) {
  EXPECT_EQ(complaint([](RecallArgs&) {}), "no error");
  EXPECT_EQ(complaint([](RecallArgs& args) { args.block_ids.shape[2] = 0; }),
            "[recall] top-k is wrong: got 0, allowed 1 or more");
  EXPECT_EQ(complaint([](RecallArgs& args) { args.means.score_recall.shape[0] = 2; }),
            "[recall] means.score_recall has the wrong shape: got float32 [2], allowed [1]");
  EXPECT_EQ(complaint([](RecallArgs& args) {
              args.rows.block_recall = {args.means.score_recall.data, DType::kFloat32, {1, 1}};
            }),
            "[recall] rows.block_recall has the wrong shape: got float32 [1, 1], allowed [2, 12]");
  EXPECT_EQ(complaint([](RecallArgs& args) { args.block_size = 0; }),
            "[recall] block_size is wrong: got 0, allowed 1 to 2147483647");
  EXPECT_EQ(complaint([](RecallArgs& args) { args.scale = kNaN; }),
            "[recall] scale is wrong: got nan, allowed a finite number above 0");
}

TEST(Recall, CpuTakesMultiplesOfEight) {
  const Support support =
      supports(context_of(Backend::kCpu), Op::kRecall,
               {.num_q_heads = 2, .num_kv_heads = 1, .head_dim = 12, .block_size = 8, .top_k = 2},
               DType::kFloat32);
  EXPECT_FALSE(support.supported);
  EXPECT_EQ(support.reason, "head dim 12, allowed multiples of 8");
}

}  // namespace
}  // namespace msa::test
