#include "cuda/op_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "cuda/cache_check.h"
#include "cuda/device_case.h"
#include "cuda/host/config.h"
#include "cuda/id_lists.h"
#include "library/check_results.h"
#include "library/compare.h"

namespace msa::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Backends {
  Context cuda{{.backend = Backend::kCuda}};
  Context reference{{.backend = Backend::kReference}};
};

double norm(const std::vector<float>& vector) {
  double sum = 0;
  for (const float x : vector) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum);
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// "" or what is wrong with ids, scores and LSE of one batch.
std::string index_problem(const Case& batch, const IndexResult& got, const IndexResult& law) {
  const CaseSpec& spec = batch.spec;
  const double scale = 1 / std::sqrt(static_cast<double>(spec.index_dim));
  const auto top_k = static_cast<size_t>(spec.top_k);
  std::vector<double> key_norms;
  for (size_t r = 0; r < spec.k_lens.size(); ++r) {
    double most = 0;
    for (int64_t j = 0; j < spec.k_lens[r]; ++j) {
      const double size = norm(batch.index_key_vector(static_cast<int64_t>(r), j));
      if (std::isfinite(size)) most = std::max(most, size);
    }
    key_norms.push_back(most);
  }
  std::vector<float> lse_got, lse_law;
  for (int64_t h = 0; h < spec.kv_heads; ++h) {
    for (int64_t t = 0; t < batch.num_rows; ++t) {
      const auto list = static_cast<size_t>(h * batch.num_rows + t);
      const auto ids_at = got.ids.begin() + static_cast<int64_t>(list * top_k);
      const std::vector<int32_t> ids(ids_at, ids_at + static_cast<int64_t>(top_k));
      const Case::Row row = batch.row(t);
      const int64_t visible = row.position < 0 ? 0 : row.position / spec.block_size + 1;
      const float* own = got.scores.data() + static_cast<int64_t>(list) * batch.max_blocks;
      const float* expected = law.scores.data() + static_cast<int64_t>(list) * batch.max_blocks;
      for (int64_t b = visible; b < batch.max_blocks; ++b) {
        if (own[b] != -kInfinity)
          return fmt::format("row {} head {}: score past the end is {}", t, h, own[b]);
      }
      if (visible == 0) {
        if (ids != std::vector<int32_t>(top_k, -1))
          return fmt::format("row {} is empty but has ids", t);
        if (got.lse[list] != -kInfinity)
          return fmt::format("row {} is empty, lse {}", t, got.lse[list]);
        continue;
      }
      if (ids != select_by_rule({own, own + visible}, spec.top_k)) {
        return fmt::format("row {} head {}: ids do not follow from the own scores: {} ...", t, h,
                           ids[0]);
      }
      const double tol = 1e-5 * scale * norm(batch.index_query_vector(t, h)) *
                         key_norms[static_cast<size_t>(row.request)];
      const auto law_ids = select_by_rule({expected, expected + visible}, spec.top_k);
      double cut = kInfinity;
      for (const int32_t id : law_ids) {
        if (id >= 0 && id != visible - 1) cut = std::min(cut, static_cast<double>(expected[id]));
      }
      for (int64_t b = 0; b < visible; ++b) {
        const double m = expected[b];
        const double mine = own[b];
        if (std::isfinite(m) ? !(std::abs(mine - m) <= tol) : mine != m) {
          return fmt::format("row {} head {} block {}: score {} for {}, allowed {:.3g}", t, h, b,
                             mine, m, tol);
        }
        if (b == visible - 1) continue;
        const bool taken = std::find(ids.begin(), ids.end(), static_cast<int32_t>(b)) != ids.end();
        if (!(taken ? m >= cut - tol : !(m > cut + tol))) {
          return fmt::format("row {} head {} block {}: wrong side of the cut", t, h, b);
        }
      }
      if (ids == law_ids) {
        lse_got.push_back(got.lse[list]);
        lse_law.push_back(law.lse[list]);
      }
    }
  }
  const Comparison lse = compare(lse_got, lse_law, {2e-3, 0});
  return lse.ok ? "" : "lse_idx: " + lse.message;
}

/// "" or how a result differs from the law.
std::string difference(const Case& batch, const AttentionResult& got, const AttentionResult& law) {
  const std::vector<double> rows =
      batch.spec.magnitude > 2 ? logit_allowance(batch) : std::vector<double>(law.lse.size(), 1.0);
  std::vector<double> elements;
  for (const double row : rows) {
    elements.insert(elements.end(), static_cast<size_t>(batch.spec.head_dim), row);
  }
  const Comparison lse = compare(got.lse, law.lse, {2e-3, 0}, rows);
  if (!lse.ok) return "lse: " + lse.message;
  const Comparison out = compare(got.out, law.out, {2e-2, 1e-2, 5e-3}, elements);
  return out.ok ? "" : "out: " + out.message;
}

/// Whether rows of `whole` that belong to the request `alone` have the bits of `own`.
bool same_rows(const DeviceCase& alone, const AttentionResult& own, const AttentionResult& whole) {
  const auto row_values = own.out.size() / static_cast<size_t>(alone.num_rows);
  const auto row_heads = own.lse.size() / static_cast<size_t>(alone.num_rows);
  const auto first = static_cast<size_t>(alone.first_row);
  return std::memcmp(own.out.data(), whole.out.data() + first * row_values,
                     own.out.size() * sizeof(float)) == 0 &&
         std::memcmp(own.lse.data(), whole.lse.data() + first * row_heads,
                     own.lse.size() * sizeof(float)) == 0;
}

/// The lists of one request out of those of the batch, [Hkv, rows, K].
std::vector<int32_t> lists_of(const Case& batch, const DeviceCase& alone,
                              const std::vector<int32_t>& ids) {
  const auto top_k = static_cast<int64_t>(ids.size()) / (batch.spec.kv_heads * batch.num_rows);
  std::vector<int32_t> result;
  for (int64_t h = 0; h < batch.spec.kv_heads; ++h) {
    const auto from = ids.begin() + (h * batch.num_rows + alone.first_row) * top_k;
    result.insert(result.end(), from, from + alone.num_rows * top_k);
  }
  return result;
}

/// The same bits however passes are cut.
std::string cut_problem(const Backends& on, const DeviceCase& device,
                        const std::vector<int32_t>& ids, const AttentionResult& got) {
  cuda::AttentionTuning& tuning = cuda::attention_tuning();
  const cuda::AttentionTuning before = tuning;
  tuning.most_chunk_rows = 32;
  const AttentionResult other = device.run_attention(on.cuda, ids);
  tuning = before;
  const bool same = same_bits(got.out, other.out) && same_bits(got.lse, other.lse);
  return same ? "" : "passes of 32 rows differ in bits";
}

/// Each way against the law, again, cut otherwise, and each request alone.
std::string attention_problem(const Backends& on, const Case& batch, const DeviceCase& device,
                              const std::vector<int32_t>& ids) {
  struct Way {
    bool query_tiles, own_lists;
    const char* name;
  };
  const AttentionResult law = run_attention(on.reference, batch, &ids);
  cuda::AttentionTuning& tuning = cuda::attention_tuning();
  const cuda::AttentionTuning before = tuning;
  std::string problem;
  for (const Way& way : {Way{false, true, " (gathered)"}, Way{false, false, " (packed lists)"},
                         Way{true, true, " (with query tiles)"}}) {
    tuning.query_tiles = way.query_tiles;
    tuning.own_lists = way.own_lists;
    const AttentionResult got = device.run_attention(on.cuda, ids);
    problem = difference(batch, got, law);
    const AttentionResult again = device.run_attention(on.cuda, ids);
    if (problem.empty() && (!same_bits(got.out, again.out) || !same_bits(got.lse, again.lse))) {
      problem = "a rerun differs in bits";
    }
    if (problem.empty()) problem = cut_problem(on, device, ids, got);
    const size_t requests = batch.spec.q_lens.size();
    for (size_t r = 0; problem.empty() && requests > 1 && r < requests; ++r) {
      const DeviceCase alone(batch, static_cast<int64_t>(r));
      if (alone.num_rows == 0) continue;
      const auto own = alone.run_attention(on.cuda, lists_of(batch, alone, ids));
      if (!same_rows(alone, own, got)) problem = fmt::format("request {} alone differs", r);
    }
    if (!problem.empty()) {
      problem += way.name;
      break;
    }
  }
  tuning = before;
  return problem;
}

std::string dense_problem(const Backends& on, const Case& batch, const DeviceCase& device) {
  const AttentionResult got = device.run_dense(on.cuda);
  const std::string problem = difference(batch, got, run_attention(on.reference, batch, nullptr));
  if (!problem.empty()) return "dense: " + problem;
  const AttentionResult again = device.run_dense(on.cuda);
  if (!same_bits(got.out, again.out) || !same_bits(got.lse, again.lse)) {
    return "dense: a rerun differs in bits";
  }
  for (size_t r = 0; batch.spec.q_lens.size() > 1 && r < batch.spec.q_lens.size(); ++r) {
    const DeviceCase alone(batch, static_cast<int64_t>(r));
    if (alone.num_rows > 0 && !same_rows(alone, alone.run_dense(on.cuda), got)) {
      return fmt::format("dense: request {} alone differs", r);
    }
  }
  return "";
}

void check_batch(Report& report, const Backends& on, const std::string& name, const Case& batch,
                 std::mt19937& random) {
  const CaseSpec& spec = batch.spec;
  std::string problem;
  try {
    const DeviceCase device(batch);
    const IndexResult got = device.run_index(on.cuda, {});
    problem = index_problem(batch, got, run_index(on.reference, batch));
    if (problem.empty()) {  // ids alone take another path: the local block is not scored
      const IndexResult alone = device.run_index(on.cuda, {.scores = false, .lse = false});
      if (!same_bits(alone.ids, got.ids)) problem = "ids without scores differ";
    }
    if (problem.empty()) {
      const IndexOptions all = {.ids = false, .lse = true, .scope = IndexLseScope::kVisible};
      const Comparison lse = compare(device.run_index(on.cuda, all).lse,
                                     run_index(on.reference, batch, all).lse, {2e-3, 0});
      if (!lse.ok) problem = "lse over all visible: " + lse.message;
    }
    if (problem.empty()) problem = attention_problem(on, batch, device, got.ids);
    if (problem.empty()) {
      problem = attention_problem(on, batch, device, hostile_ids(batch, got.ids, random));
      if (!problem.empty()) problem = "hostile ids: " + problem;
    }
    if (problem.empty()) problem = dense_problem(on, batch, device);

    // A request alone gives the same bits as among others.
    for (size_t r = 0; problem.empty() && r < spec.q_lens.size() && spec.q_lens.size() > 1; ++r) {
      const DeviceCase alone(batch, static_cast<int64_t>(r));
      if (alone.num_rows == 0) continue;
      const IndexResult own = alone.run_index(on.cuda, {.scores = false});
      for (int64_t h = 0; h < spec.kv_heads; ++h) {
        for (int64_t t = 0; t < alone.num_rows; ++t) {
          const auto a = static_cast<size_t>(h * alone.num_rows + t);
          const auto b = static_cast<size_t>(h * batch.num_rows + alone.first_row + t);
          const auto k = static_cast<size_t>(spec.top_k);
          if (std::memcmp(&own.ids[a * k], &got.ids[b * k], k * 4) != 0 ||
              std::memcmp(&own.lse[a], &got.lse[b], 4) != 0) {
            problem = fmt::format("request {} alone: index differs at row {} head {}", r, t, h);
          }
        }
      }
    }
  } catch (const Error& error) {
    problem = error.what();
  }
  report.add(name, problem.empty(), problem.empty() ? "" : problem + " | " + spec.describe());
}

/// Attention alone, with lists of neighbours that share some, most or all of their picks.
void check_neighbours(Report& report, const Backends& on, const std::string& name,
                      const Case& batch, std::mt19937& random) {
  const DeviceCase device(batch);
  for (const double keep : {0.0, 0.6, 0.9, 1.0}) {
    std::string problem;
    try {
      problem = attention_problem(on, batch, device, neighbour_ids(batch, keep, random));
    } catch (const Error& error) {
      problem = error.what();
    }
    report.add(fmt::format("{}, keep {}", name, keep), problem.empty(), problem);
  }
}

CaseSpec base_spec() {
  CaseSpec spec;
  spec.q_dtype = spec.kv_dtype = DType::kBFloat16;
  spec.kv_heads = 4;
  spec.group = 16;
  spec.head_dim = spec.index_dim = 128;
  spec.block_size = 128;
  spec.top_k = 16;
  return spec;
}

template <typename T>
T pick(std::mt19937& random, std::initializer_list<T> choices) {
  return *(choices.begin() + random() % choices.size());
}

CaseSpec random_device_spec(std::mt19937& random) {
  CaseSpec spec;
  spec.seed = static_cast<uint32_t>(random());
  spec.q_dtype = spec.kv_dtype = pick(random, {DType::kBFloat16, DType::kFloat16});
  spec.paged = random() % 2 == 0;
  spec.layout = static_cast<Layout>(random() % kNumLayouts);
  spec.id_layout = static_cast<BlockIdLayout>(random() % 2);
  spec.kv_heads = pick<int64_t>(random, {1, 2, 4, 8});
  spec.group = pick<int64_t>(random, {1, 2, 4, 8, 16});
  spec.head_dim = pick<int64_t>(random, {64, 128});
  spec.index_dim = pick<int64_t>(random, {64, 128});
  spec.block_size = pick<int64_t>(random, {64, 128});
  spec.top_k = pick<int64_t>(random, {4, 4, 8, 16, 32, 1, 5});
  spec.padded_rows = random() % 4 == 0 ? static_cast<int64_t>(random() % 9) : 0;
  spec.stride_gap = pick<int64_t>(random, {0, 0, 8, 24});
  spec.share_pages = random() % 4 == 0;
  spec.magnitude = pick(random, {0.5f, 1.0f, 1.5f});
  const size_t requests = 1 + random() % 4;
  for (size_t r = 0; r < requests; ++r) {
    int q_len = pick(random, {0, 1, 2, 16, 33, 65, 130});
    if (spec.kv_heads * spec.group > 32) q_len = std::min(q_len, 33);
    int k_len = static_cast<int>(random() % 1500);
    if (random() % 8 == 0) k_len = static_cast<int>(2000 + random() % 2500);  // several segments
    if (random() % 4 == 0) k_len = k_len / 128 * 128;
    if (random() % 8 != 0) k_len = std::max(k_len, q_len);
    spec.q_lens.push_back(q_len);
    spec.k_lens.push_back(k_len);
  }
  return spec;
}

}  // namespace

void check_each_kernel_once(Report& report) {
  const Backends on;
  cuda::AttentionTuning& tuning = cuda::attention_tuning();
  const cuda::AttentionTuning before = tuning;
  std::mt19937 random(3);
  CaseSpec spec = base_spec();
  spec.kv_heads = 2;
  spec.top_k = 4;
  spec.q_lens = {40};
  spec.k_lens = {700};
  const Case batch(spec);
  const DeviceCase device(batch);
  const IndexResult index = device.run_index(on.cuda, {});
  const std::string problem = index_problem(batch, index, run_index(on.reference, batch));
  report.add("index", problem.empty(), problem);
  for (const double keep : {0.0, 1.0}) {
    const std::vector<int32_t> ids = neighbour_ids(batch, keep, random);
    const AttentionResult law = run_attention(on.reference, batch, &ids);
    tuning.query_tiles = keep > 0;
    tuning.most_chunk_rows = 32;
    const std::string wrong = difference(batch, device.run_attention(on.cuda, ids), law);
    report.add(fmt::format("attention, keep {}", keep), wrong.empty(), wrong);
  }
  tuning = before;
  const std::string dense =
      difference(batch, device.run_dense(on.cuda), run_attention(on.reference, batch, nullptr));
  report.add("dense", dense.empty(), dense);
}

void check_ops(Report& report, const OpCheckOptions& options) {
  const Backends on;
  report.note("on " + on.cuda.description());
  std::mt19937 random(options.seed);

  CaseSpec spec = base_spec();
  spec.q_lens = {40};
  spec.k_lens = {40};
  check_batch(report, on, "one short request, local block alone", Case(spec), random);
  spec.q_lens = {150};
  spec.k_lens = {150};
  check_batch(report, on, "one request of two blocks", Case(spec), random);
  spec.top_k = 4;
  spec.q_lens = {20};
  spec.k_lens = {1300};
  check_batch(report, on, "a chunk with more blocks than K", Case(spec), random);
  spec.paged = true;
  spec.q_lens = {3, 0, 1, 20};
  spec.k_lens = {700, 0, 0, 515};
  spec.padded_rows = 3;
  check_batch(report, on, "pages, empty requests, padded rows", Case(spec), random);
  {
    Case batch(spec);  // values behind the position: infinite, NaN; and one that all see
    batch.set_value(3, 514, 1, 5, kNaN);
    batch.set_value(3, 510, 2, 127, kInfinity);
    batch.set_value(3, 20, 0, 0, 3.0e4f);
    check_batch(report, on, "NaN and infinity behind the position", batch, random);
  }
  {
    CaseSpec nan = spec;
    nan.seed = 9;
    Case batch(nan);  // a NaN index score is ignored; a block of NaN alone scores -inf
    for (int64_t j = 128; j < 256; ++j) batch.set_index_key(0, j, 3, kNaN);
    batch.set_index_key(0, 300, 0, kNaN);
    const DeviceCase device(batch);
    const IndexOptions no_lse = {.lse = false};
    IndexResult got = device.run_index(on.cuda, no_lse);
    IndexResult law = run_index(on.reference, batch, no_lse);
    got.lse.assign(static_cast<size_t>(nan.kv_heads * batch.num_rows), -kInfinity);
    law.lse = got.lse;
    const std::string problem = index_problem(batch, got, law);
    report.add("NaN in index keys", problem.empty(), problem);
  }
  CaseSpec shared = base_spec();
  shared.top_k = 4;
  shared.q_lens = {21, 9};
  shared.k_lens = {1500, 1203};
  check_neighbours(report, on, "neighbours", Case(shared), random);
  {
    Case batch(shared);  // rows of a tile that did not pick the block must not see it
    for (int64_t j = 0; j < 1200; j += 77) batch.set_value(0, j, j % 4, j % 128, kNaN);
    batch.set_value(1, 1200, 1, 3, kInfinity);
    check_neighbours(report, on, "neighbours, NaN in some blocks", batch, random);
  }
  check_caches(report, options.seed);
  if (options.small) return;

  for (const int64_t group : {16, 8}) {
    for (const int64_t block : {128, 64}) {
      CaseSpec wide = base_spec();
      wide.group = group;
      wide.kv_heads = 2;
      wide.block_size = block;
      wide.head_dim = block;  // 64 and 128
      wide.q_dtype = wide.kv_dtype = group == 8 ? DType::kFloat16 : DType::kBFloat16;
      wide.paged = group == 8;
      wide.top_k = block == 64 ? 32 : 16;
      wide.q_lens = {50, 1, 24};
      wide.k_lens = {6003, 4000, 24};
      check_neighbours(report, on, fmt::format("neighbours, group {} block {}", group, block),
                       Case(wide), random);
    }
  }

  CaseSpec large = base_spec();
  large.magnitude = 30;  // logits to +-1e4
  large.q_lens = {24};
  large.k_lens = {900};
  large.top_k = 4;
  check_batch(report, on, "logits in the thousands", Case(large), random);
  large.magnitude = 1;
  large.q_lens = {5, 4};
  large.k_lens = {9000, 5000};
  large.top_k = 16;
  check_batch(report, on, "long keys, split over thread blocks", Case(large), random);
  for (int n = 0; n < options.random_cases; ++n) {
    check_batch(report, on, fmt::format("random {}", n), Case(random_device_spec(random)), random);
    if (report.failures() > 12) {
      report.note("too many failures: the rest of the random cases is left out");
      return;
    }
  }
}

}  // namespace msa::test
