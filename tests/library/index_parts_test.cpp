// Context parallelism: any split of the blocks, merged in any order and grouping, has the bits of
// the whole, and the merged ids are those of index_forward. Merged states equal attention over all
// keys.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "core/element.h"
#include "library/check_results.h"
#include "library/compare.h"
#include "library/expect_error.h"
#include "library/merge_pair.h"
#include "library/scratch.h"
#include "library/simd_targets.h"

namespace msa::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Candidate lists [Hkv, Tq, K].
struct Part {
  std::vector<int32_t> ids;
  std::vector<float> scores;
};

void expect_same(const Part& got, const Part& expected, const std::string& what) {
  EXPECT_EQ(got.ids, expected.ids) << what;
  const Comparison same = compare_bits(got.scores, expected.scores);
  EXPECT_TRUE(same.ok) << what << ": " << same.message;
}

Part candidates(const Context& context, const Case& batch, BlockRange blocks) {
  const CaseSpec& spec = batch.spec;
  Part part;
  const auto size = static_cast<size_t>(spec.kv_heads * batch.num_rows * spec.top_k);
  part.ids.assign(size, 77);
  part.scores.assign(size, 77.0f);
  IndexCandidatesArgs args;
  args.q_idx = batch.q_idx;
  args.k_idx = batch.k_idx;
  args.sequences = batch.sequences;
  args.block_size = spec.block_size;
  args.blocks = blocks;
  args.candidate_ids = {
      part.ids.data(), DType::kInt32, {spec.kv_heads, batch.num_rows, spec.top_k}};
  args.candidate_scores = {
      part.scores.data(), DType::kFloat32, {spec.kv_heads, batch.num_rows, spec.top_k}};
  // A rank has no pages for the blocks of others.
  std::vector<int32_t> table;
  if (spec.paged) {
    const int64_t width = args.sequences.page_table.shape[1];
    const auto* pages = static_cast<const int32_t*>(args.sequences.page_table.data);
    for (int64_t n = 0; n < args.sequences.page_table.shape[0] * width; ++n) {
      table.push_back(n % width >= blocks.begin && n % width < blocks.end ? pages[n] : -99);
    }
    args.sequences.page_table.data = table.data();
  }
  const Scratch workspace(index_candidates_workspace_size(context, args));
  index_candidates(context, args, workspace.view());
  return part;
}

struct Merged {
  Part part;
  std::vector<int32_t> ids;  // in the layout of the case
};

Merged merge(const Context& context, const Case& batch, const std::vector<Part>& parts) {
  const CaseSpec& spec = batch.spec;
  const auto count = static_cast<int64_t>(parts.size());
  Part all;
  for (const Part& part : parts) {
    all.ids.insert(all.ids.end(), part.ids.begin(), part.ids.end());
    all.scores.insert(all.scores.end(), part.scores.begin(), part.scores.end());
  }
  const auto size = static_cast<size_t>(spec.kv_heads * batch.num_rows * spec.top_k);
  Merged merged;
  merged.part.ids.assign(size, 77);
  merged.part.scores.assign(size, 77.0f);
  merged.ids.assign(size, 77);
  const bool head_major = spec.id_layout == BlockIdLayout::kHeadMajor;
  MergeCandidatesArgs args;
  args.candidate_ids = {
      all.ids.data(), DType::kInt32, {count, spec.kv_heads, batch.num_rows, spec.top_k}};
  args.candidate_scores = {
      all.scores.data(), DType::kFloat32, {count, spec.kv_heads, batch.num_rows, spec.top_k}};
  args.merged_ids = {
      merged.part.ids.data(), DType::kInt32, {spec.kv_heads, batch.num_rows, spec.top_k}};
  args.merged_scores = {
      merged.part.scores.data(), DType::kFloat32, {spec.kv_heads, batch.num_rows, spec.top_k}};
  args.block_ids = {merged.ids.data(),
                    DType::kInt32,
                    {head_major ? spec.kv_heads : batch.num_rows,
                     head_major ? batch.num_rows : spec.kv_heads, spec.top_k}};
  args.block_id_layout = spec.id_layout;
  merge_candidates(context, args);
  return merged;
}

/// ids [Hkv, Tq, K] in the layout of the case.
std::vector<int32_t> in_layout(const Case& batch, const std::vector<int32_t>& ids) {
  if (batch.spec.id_layout == BlockIdLayout::kHeadMajor) return ids;
  std::vector<int32_t> moved;
  for (int64_t t = 0; t < batch.num_rows; ++t) {
    for (int64_t h = 0; h < batch.spec.kv_heads; ++h) {
      const auto from = ids.begin() + (h * batch.num_rows + t) * batch.spec.top_k;
      moved.insert(moved.end(), from, from + batch.spec.top_k);
    }
  }
  return moved;
}

/// Cuts all blocks at random places; some parts are empty, some overlap.
std::vector<BlockRange> random_split(std::mt19937& random, int64_t num_blocks) {
  std::vector<int64_t> cuts = {0, num_blocks + 3};
  for (int n = static_cast<int>(random() % 6); n > 0; --n) {
    cuts.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(num_blocks + 3)));
  }
  std::sort(cuts.begin(), cuts.end());
  std::vector<BlockRange> split;
  for (size_t n = 0; n + 1 < cuts.size(); ++n) split.push_back({cuts[n], cuts[n + 1]});
  if (random() % 4 == 0) split.push_back({0, 1 + static_cast<int64_t>(random() % 4)});
  std::shuffle(split.begin(), split.end(), random);
  return split;
}

void check_splits(const Context& context, const Case& batch, std::mt19937& random) {
  const std::string what = batch.spec.describe();
  const Part whole = candidates(context, batch, {});
  const std::vector<int32_t> ids =
      in_layout(batch, run_index(context, batch, {.scores = false, .lse = false}).ids);
  const Merged alone = merge(context, batch, {whole});
  expect_same(alone.part, whole, "one part " + what);
  EXPECT_EQ(alone.ids, ids) << what;
  std::vector<Part> parts;
  for (const BlockRange blocks : random_split(random, batch.max_blocks)) {
    parts.push_back(candidates(context, batch, blocks));
  }
  const Merged together = merge(context, batch, parts);
  expect_same(together.part, whole, "all parts at once " + what);
  EXPECT_EQ(together.ids, ids) << what;
  // Two at a time, in any order, until one is left.
  while (parts.size() > 1) {
    std::shuffle(parts.begin(), parts.end(), random);
    const Merged two = merge(context, batch, {parts[parts.size() - 1], parts[parts.size() - 2]});
    parts.pop_back();
    parts.back() = two.part;
  }
  expect_same(parts[0], whole, "two at a time " + what);
}

TEST(IndexParts, AnySplitMergedInAnyOrderIsTheWhole) {
  const Context cpu({.backend = Backend::kCpu, .num_threads = 2});
  const Context reference({.backend = Backend::kReference, .num_threads = 2});
  std::mt19937 random(20261124);
  int64_t cases = 0;
  for (const int64_t target : simd_targets()) {
    const ScopedSimdTarget only(target);
    for (int n = 0; n < 50; ++n) {
      const Case batch(random_spec(random));
      check_splits(cpu, batch, random);
      if (n < 10) check_splits(reference, batch, random);
      ++cases;
      if (HasFailure()) FAIL() << "on " << simd_target_name(target) << ", case " << n;
    }
  }
  fmt::print("  {} cases\n", cases);
}

TEST(IndexParts, TiesAndInfinitiesMergeByTheLowerId) {
  CaseSpec spec;
  spec.index_dim = 8;
  spec.block_size = 2;
  spec.top_k = 4;
  spec.q_lens = {3};
  spec.k_lens = {48};
  Case batch(spec);
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t d = 0; d < 8; ++d) batch.set_index_query(t, 0, d, d == 0 ? 3e38f : 0.0f);
  }
  const float scores[4] = {0.0f, -0.0f, 3e38f, -3e38f};  // ties of zeros and of both infinities
  for (int64_t j = 0; j < 48; ++j) {
    for (int64_t d = 0; d < 8; ++d) {
      batch.set_index_key(0, j, d, d == 0 ? scores[(j / 2 * 7 + 3) % 4] : 0.0f);
    }
  }
  batch.set_index_key(0, 9, 0, kNaN);
  std::mt19937 random(3);
  const Context cpu({.backend = Backend::kCpu, .num_threads = 1});
  const Context reference({.backend = Backend::kReference, .num_threads = 1});
  for (int n = 0; n < 50; ++n) check_splits(cpu, batch, random);
  check_splits(reference, batch, random);
  EXPECT_EQ(candidates(cpu, batch, {}).ids, candidates(reference, batch, {}).ids);
}

TEST(IndexParts, NoPartsAreEmptyLists) {
  CaseSpec spec;
  spec.q_lens = {2};
  spec.k_lens = {9};
  const Case batch(spec);
  const Context cpu({.backend = Backend::kCpu, .num_threads = 1});
  const Merged none = merge(cpu, batch, {});
  EXPECT_EQ(none.ids, std::vector<int32_t>(4, -1));
  EXPECT_EQ(none.part.scores, std::vector<float>(4, -kInfinity));
}

TEST(MergeStates, PartsOfTheKeysMakeTheWhole) {
  const Context cpu({.backend = Backend::kCpu, .num_threads = 2});
  const Context reference({.backend = Backend::kReference, .num_threads = 2});
  std::mt19937 random(7);
  int64_t empty_parts = 0;
  for (const int64_t target : simd_targets()) {
    const ScopedSimdTarget only(target);
    for (int n = 0; n < 20; ++n) {
      CaseSpec spec = random_spec(random);
      spec.q_dtype = spec.kv_dtype = DType::kFloat32;
      spec.magnitude = n % 10 == 0 ? 30 : spec.magnitude;
      const Case batch(spec);
      const AttentionResult whole = run_attention(reference, batch, nullptr);
      // Every block belongs to one of three parts.
      std::vector<int32_t> owner;
      for (int64_t b = 0; b < batch.max_blocks; ++b) {
        owner.push_back(static_cast<int32_t>(random() % 3));
      }
      for (const Context* context : {&cpu, &reference}) {
        std::vector<AttentionResult> states;
        for (int32_t part = 0; part < 3; ++part) {
          std::vector<int32_t> list;
          for (int32_t b = 0; b < static_cast<int32_t>(batch.max_blocks); ++b) {
            if (owner[static_cast<size_t>(b)] == part) list.push_back(b);
          }
          list.resize(static_cast<size_t>(batch.max_blocks), -1);
          std::vector<int32_t> ids;
          for (int64_t row = 0; row < spec.kv_heads * batch.num_rows; ++row) {
            ids.insert(ids.end(), list.begin(), list.end());
          }
          AttentionResult state = run_attention(*context, batch, &ids);
          for (size_t row = 0; row < state.lse.size(); ++row) {
            if (state.lse[row] != -kInfinity) continue;
            ++empty_parts;  // what an empty part holds must not matter
            std::fill_n(state.out.begin() + static_cast<int64_t>(row) * spec.head_dim,
                        spec.head_dim, kNaN);
          }
          states.push_back({state.out, state.lse});
        }
        std::shuffle(states.begin(), states.end(), random);
        const int64_t heads = spec.kv_heads * spec.group;
        const AttentionResult merged =
            merge_pair(*context, batch, heads, spec.head_dim, states[0],
                       merge_pair(*context, batch, heads, spec.head_dim, states[1], states[2]));
        std::vector<double> rows(whole.lse.size(), 1.0);
        if (spec.magnitude > 2) rows = logit_allowance(batch);
        std::vector<double> elements;
        std::vector<double> lse_rows = rows;
        for (size_t row = 0; row < rows.size(); ++row) {
          elements.insert(elements.end(), static_cast<size_t>(spec.head_dim), rows[row]);
          if (std::isfinite(whole.lse[row])) {
            lse_rows[row] *= std::max(1.0, std::abs(static_cast<double>(whole.lse[row])));
          }
        }
        const Comparison out = compare(merged.out, whole.out, {1e-5, 1e-5}, elements);
        EXPECT_TRUE(out.ok) << out.message << "\n" << spec.describe();
        const Comparison lse = compare(merged.lse, whole.lse, {1e-5, 0}, lse_rows);
        EXPECT_TRUE(lse.ok) << lse.message << "\n" << spec.describe();
      }
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(empty_parts, 300);
}

TEST(MergeStates, EmptyPartsTypesStridesAndPlaces) {
  const float out_a[3][8] = {{1, 2, 3, 4, 5, 6, 7, 8}, {kNaN}, {kNaN}};
  const float out_b[3][8] = {{kNaN}, {-1, -2, -3, -4, -5, -6, -7, -8.0078125f}, {kNaN}};
  const float lse_a[3] = {3, -kInfinity, -kInfinity};
  const float lse_b[3] = {-kInfinity, 1e30f, -kInfinity};
  for (const Backend backend : {Backend::kCpu, Backend::kReference}) {
    const Context context({.backend = backend, .num_threads = 1});
    MergeStatesArgs args;
    args.out_a = Tensor(out_a, DType::kFloat32, {3, 1, 8});
    args.out_b = Tensor(out_b, DType::kFloat32, {3, 1, 8});
    args.lse_a = Tensor(lse_a, DType::kFloat32, {3, 1});
    args.lse_b = Tensor(lse_b, DType::kFloat32, {3, 1});
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      std::vector<uint32_t> bytes(size_t{3} * 11, 0xABABABABu);
      std::vector<float> lse(3, 77);
      args.out = {bytes.data(), dtype, {3, 1, 8}, {11, 8, 1}};
      args.lse = {lse.data(), DType::kFloat32, {3, 1}};
      merge_states(context, args);
      EXPECT_EQ(lse, (std::vector<float>{3, 1e30f, -kInfinity}));
      for (int64_t d = 0; d < 8; ++d) {
        const float wanted[3] = {out_a[0][d], out_b[1][d], 0};
        for (int64_t t = 0; t < 3; ++t) {
          float rounded = wanted[t];
          if (dtype == DType::kBFloat16) {
            rounded = core::bfloat16_to_float(core::float_to_bfloat16(rounded));
          }
          if (dtype == DType::kFloat16) {
            rounded = core::float16_to_float(core::float_to_float16(rounded));
          }
          EXPECT_EQ(core::load_element(bytes.data(), dtype, t * 11 + d), rounded);
        }
      }
      for (int64_t t = 0; t < 2; ++t) {  // between rows nothing is written
        for (int64_t n = 8; n < 11; ++n) {
          const auto* halves = reinterpret_cast<const uint16_t*>(bytes.data());
          EXPECT_EQ(dtype == DType::kFloat32 ? bytes[static_cast<size_t>(t * 11 + n)] & 0xFFFFu
                                             : halves[t * 11 + n],
                    0xABABu);
        }
      }
    }
    // In place of the first part, and far apart: the larger wins whole.
    std::vector<float> a = {1, 1, 1, 1, 1, 1, 1, 1};
    const std::vector<float> b = {5, 5, 5, 5, 5, 5, 5, 5};
    std::vector<float> first = {2};
    const std::vector<float> second = {2};
    MergeStatesArgs in_place;
    in_place.out = {a.data(), DType::kFloat32, {1, 1, 8}};
    in_place.out_a = in_place.out;
    in_place.out_b = Tensor(b.data(), DType::kFloat32, {1, 1, 8});
    in_place.lse = {first.data(), DType::kFloat32, {1, 1}};
    in_place.lse_a = in_place.lse;
    in_place.lse_b = Tensor(second.data(), DType::kFloat32, {1, 1});
    merge_states(context, in_place);
    EXPECT_EQ(a, std::vector<float>(8, 3.0f));
    EXPECT_FLOAT_EQ(first[0], 2 + std::log(2.0f));
    first[0] = -1e4f;
    merge_states(context, in_place);
    EXPECT_EQ(a, b);
    EXPECT_EQ(first[0], 2);
  }
}

TEST(IndexParts, SameBitsForAnyThreads) {
  CaseSpec spec;
  spec.paged = true;
  spec.kv_heads = 2;
  spec.group = 4;
  spec.top_k = 5;
  spec.q_lens = {70, 3, 9, 1};
  spec.k_lens = {200, 2500, 5, 1500};
  const Case batch(spec);
  const Context one({.backend = Backend::kCpu, .num_threads = 1});
  const BlockRange ranges[] = {{0, 100}, {100, 1000}};
  const Part expected[2] = {candidates(one, batch, ranges[0]), candidates(one, batch, ranges[1])};
  const Merged merged = merge(one, batch, {expected[0], expected[1]});
  const AttentionResult whole = run_attention(one, batch, nullptr);
  const AttentionResult listed = run_attention(one, batch, &merged.ids);
  const AttentionResult states[2] = {{whole.out, whole.lse}, {listed.out, listed.lse}};
  const int64_t heads = batch.spec.kv_heads * batch.spec.group;
  const AttentionResult state =
      merge_pair(one, batch, heads, batch.spec.head_dim, states[0], states[1]);
  for (const int threads : {2, 5}) {
    const Context many({.backend = Backend::kCpu, .num_threads = threads});
    for (int part = 0; part < 2; ++part) {
      expect_same(candidates(many, batch, ranges[part]), expected[part], "threads");
    }
    expect_same(merge(many, batch, {expected[0], expected[1]}).part, merged.part, "threads");
    const AttentionResult got =
        merge_pair(many, batch, heads, batch.spec.head_dim, states[0], states[1]);
    EXPECT_TRUE(compare_bits(got.out, state.out).ok);
    EXPECT_TRUE(compare_bits(got.lse, state.lse).ok);
  }
}

TEST(IndexParts, BadArgumentsAreRefusedByName) {
  const Context cpu({.backend = Backend::kCpu, .num_threads = 1});
  CaseSpec spec;
  spec.q_lens = {2};
  spec.k_lens = {9};
  const Case batch(spec);
  expect_error([&] { candidates(cpu, batch, {3, 2}); },
               "[index_candidates] blocks is wrong: got 3 to 2, allowed 0 <= begin <= end");
  expect_error([&] { candidates(cpu, batch, {-1, 2}); },
               "[index_candidates] blocks is wrong: got -1 to 2, allowed 0 <= begin <= end");
  std::vector<float> floats(64);
  std::vector<int32_t> ids(64);
  MergeCandidatesArgs args;
  args.candidate_ids = {ids.data(), DType::kInt32, {2, 1, 2, 3}};
  args.candidate_scores = {floats.data(), DType::kFloat32, {2, 1, 2, 3}};
  args.merged_ids = {ids.data() + 32, DType::kInt32, {1, 2, 3}};
  args.merged_scores = {floats.data() + 32, DType::kFloat32, {1, 2, 2}};
  expect_error([&] { merge_candidates(cpu, args); },
               "[merge_candidates] merged_scores has the wrong shape: got float32 [1, 2, 2], "
               "allowed [1, 2, 3]");
  args.merged_scores = {floats.data() + 32, DType::kFloat32, {1, 2, 3}};
  args.block_ids = {ids.data() + 48, DType::kInt32, {1, 2, 2}};
  expect_error([&] { merge_candidates(cpu, args); },
               "[merge_candidates] block_ids has another top-k: got 2, allowed 3");
  MergeStatesArgs states;
  states.out_a = Tensor(floats.data(), DType::kFloat32, {1, 1, 8});
  states.out_b = Tensor(floats.data(), DType::kBFloat16, {1, 1, 8});
  expect_error([&] { merge_states(cpu, states); },
               "[merge_states] out_b has the wrong type: got bfloat16, allowed float32");
  states.out_b = Tensor(floats.data(), DType::kFloat32, {1, 1, 8});
  states.out = {floats.data(), DType::kFloat32, {1, 1, 8}};
  expect_error([&] { merge_states(cpu, states); },
               "[merge_states] lse_a is missing: got no tensor, allowed float32 of rank 2");
  states.lse_a = states.lse_b = Tensor(floats.data(), DType::kFloat32, {1, 1});
  for (Tensor* part : {&states.out_a, &states.out_b}) part->shape[2] = 7;
  states.out.shape[2] = 7;
  expect_error(
      [&] { merge_states(cpu, states); },
      "[merge_states] not supported by the cpu backend: head dim 7, allowed multiples of 8",
      ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace msa::test
