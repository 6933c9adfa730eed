#include "library/check_results.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "library/compare.h"

namespace msa::test {
namespace {

double norm(const std::vector<float>& vector) {
  double sum = 0;
  for (float x : vector) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum);
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t n = 0; n < a.size(); ++n)
    sum += static_cast<double>(a[n]) * static_cast<double>(b[n]);
  return sum;
}

/// max_j norm(k_idx_j) over the tokens of each request.
std::vector<double> largest_key_norms(const Case& batch) {
  std::vector<double> largest;
  for (size_t r = 0; r < batch.spec.k_lens.size(); ++r) {
    double most = 0;
    for (int64_t j = 0; j < batch.spec.k_lens[r]; ++j) {
      most = std::max(most, norm(batch.index_key_vector(static_cast<int64_t>(r), j)));
    }
    largest.push_back(most);
  }
  return largest;
}

bool low_precision(DType dtype) { return dtype != DType::kFloat32; }

}  // namespace

std::vector<int32_t> select_by_rule(const std::vector<float>& scores, int64_t top_k) {
  const auto local = static_cast<int32_t>(scores.size()) - 1;
  std::vector<int32_t> ids = {local};
  std::vector<bool> taken(scores.size(), false);
  while (static_cast<int64_t>(ids.size()) < std::min<int64_t>(top_k, local + 1)) {
    int32_t best = -1;  // the first of the highest that are left
    for (int32_t b = 0; b < local; ++b) {
      if (taken[static_cast<size_t>(b)]) continue;
      if (best < 0 || scores[static_cast<size_t>(b)] > scores[static_cast<size_t>(best)]) best = b;
    }
    taken[static_cast<size_t>(best)] = true;
    ids.push_back(best);
  }
  std::sort(ids.begin(), ids.end());
  ids.resize(static_cast<size_t>(top_k), -1);
  return ids;
}

std::vector<double> logit_allowance(const Case& batch) {
  const CaseSpec& spec = batch.spec;
  const double scale = 1 / std::sqrt(static_cast<double>(spec.head_dim));
  std::vector<double> allowance;
  for (int64_t t = 0; t < batch.num_rows; ++t) {
    const Case::Row row = batch.row(t);
    for (int64_t h = 0; h < spec.kv_heads * spec.group; ++h) {
      double largest = 0;
      for (int64_t j = 0; j <= row.position; ++j) {
        const double logit =
            scale * dot(batch.query_vector(t, h), batch.key_vector(row.request, j, h / spec.group));
        if (std::isfinite(logit)) largest = std::max(largest, std::abs(logit));
      }
      allowance.push_back(std::max(1.0, largest / 100));
    }
  }
  return allowance;
}

void check_attention(const Context& context, const Context& reference, const Case& batch,
                     const std::vector<int32_t>* ids) {
  const CaseSpec& spec = batch.spec;
  const AttentionResult got = run_attention(context, batch, ids);
  const AttentionResult expected = run_attention(reference, batch, ids);
  // The exact allowance is as much work as the op: only large magnitudes need it.
  const std::vector<double> rows =
      spec.magnitude > 2 ? logit_allowance(batch) : std::vector<double>(expected.lse.size(), 1.0);
  std::vector<double> elements;
  for (double row : rows) elements.insert(elements.end(), static_cast<size_t>(spec.head_dim), row);
  const bool low = low_precision(spec.q_dtype) || low_precision(spec.kv_dtype);
  const Comparison out =
      compare(got.out, expected.out,
              low ? Tolerance{2e-2, 1e-2, 5e-3} : Tolerance{1e-5, 1e-5, 1e300}, elements);
  EXPECT_TRUE(out.ok) << (ids == nullptr ? "dense out: " : "sparse out: ") << out.message << "\n"
                      << spec.describe();
  std::vector<double> lse_allowance = rows;
  for (size_t n = 0; !low && n < rows.size(); ++n) {
    if (std::isfinite(expected.lse[n])) {
      lse_allowance[n] *= std::max(1.0, std::abs(static_cast<double>(expected.lse[n])));
    }
  }
  const Comparison lse =
      compare(got.lse, expected.lse, low ? Tolerance{2e-3, 0} : Tolerance{1e-5, 0}, lse_allowance);
  EXPECT_TRUE(lse.ok) << (ids == nullptr ? "dense lse: " : "sparse lse: ") << lse.message << "\n"
                      << spec.describe();
}

CaseCounts check_case(const Context& context, const Context& reference, const Case& batch) {
  const CaseSpec& spec = batch.spec;
  CaseCounts counts;
  const IndexResult got = run_index(context, batch);
  const IndexResult expected = run_index(reference, batch);
  // Where ids are the only output, rows that see at most K blocks are not scored.
  EXPECT_EQ(run_index(context, batch, {.scores = false, .lse = false}).ids, got.ids)
      << spec.describe();
  const std::vector<double> key_norms = largest_key_norms(batch);
  const double scale = 1 / std::sqrt(static_cast<double>(spec.index_dim));
  const auto top_k = static_cast<size_t>(spec.top_k);
  std::vector<float> lse_got;
  std::vector<float> lse_expected;
  for (int64_t h = 0; h < spec.kv_heads; ++h) {
    for (int64_t t = 0; t < batch.num_rows; ++t) {
      const auto list = static_cast<size_t>(h * batch.num_rows + t);
      const std::vector<int32_t> ids(got.ids.begin() + static_cast<int64_t>(list * top_k),
                                     got.ids.begin() + static_cast<int64_t>((list + 1) * top_k));
      const auto score_begin = static_cast<int64_t>(list) * batch.max_blocks;
      const std::vector<float> own(got.scores.begin() + score_begin,
                                   got.scores.begin() + score_begin + batch.max_blocks);
      const std::vector<float> law(expected.scores.begin() + score_begin,
                                   expected.scores.begin() + score_begin + batch.max_blocks);
      const Case::Row row = batch.row(t);
      const int64_t visible = row.position < 0 ? 0 : row.position / spec.block_size + 1;
      for (int64_t b = visible; b < batch.max_blocks; ++b) {
        EXPECT_EQ(own[static_cast<size_t>(b)], -std::numeric_limits<float>::infinity());
      }
      if (visible == 0) {
        EXPECT_EQ(ids, std::vector<int32_t>(top_k, -1)) << spec.describe();
        EXPECT_EQ(got.lse[list], -std::numeric_limits<float>::infinity());
        continue;
      }
      ++counts.rows;
      if (visible > spec.top_k) ++counts.rows_beyond_k;
      // Given the backend's own scores the selection is exact.
      const std::vector<float> own_visible(own.begin(), own.begin() + visible);
      EXPECT_EQ(ids, select_by_rule(own_visible, spec.top_k))
          << "row " << t << " " << spec.describe();
      // Against the reference it may differ only next to the cut.
      const double tol = 1e-5 * scale * norm(batch.index_query_vector(t, h)) *
                         key_norms[static_cast<size_t>(row.request)];
      const std::vector<float> law_visible(law.begin(), law.begin() + visible);
      const std::vector<int32_t> law_ids = select_by_rule(law_visible, spec.top_k);
      double cut = std::numeric_limits<double>::infinity();
      for (int32_t id : law_ids) {
        if (id >= 0 && id != visible - 1) {
          cut = std::min(cut, static_cast<double>(law[static_cast<size_t>(id)]));
        }
      }
      for (int64_t b = 0; b < visible; ++b) {
        const double m = law[static_cast<size_t>(b)];
        if (std::isfinite(m)) {
          EXPECT_NEAR(own[static_cast<size_t>(b)], m, tol) << "block " << b << spec.describe();
        }
        if (b == visible - 1) continue;
        const bool taken = std::find(ids.begin(), ids.end(), static_cast<int32_t>(b)) != ids.end();
        EXPECT_TRUE(taken ? m >= cut - tol : !(m > cut + tol)) << "block " << b << spec.describe();
      }
      if (ids == law_ids) {
        lse_got.push_back(got.lse[list]);
        lse_expected.push_back(expected.lse[list]);
      } else {
        ++counts.rows_that_differ;
      }
    }
  }
  const bool low = low_precision(spec.q_dtype) || low_precision(spec.kv_dtype);
  const Comparison lse =
      compare(lse_got, lse_expected, low ? Tolerance{2e-3, 0} : Tolerance{1e-5, 1e-5});
  EXPECT_TRUE(lse.ok) << "lse_idx: " << lse.message << "\n" << spec.describe();
  check_attention(context, reference, batch, &got.ids);
  check_attention(context, reference, batch, nullptr);
  return counts;
}

}  // namespace msa::test
