// The index branch as the paper states it, one row at a time, in double.
//
//   s[j] = scale * (q_idx[i,g] . k_idx[j])
//   m[b] = fl32(scale * max over visible j in b of the dot)
//   ids  = the local block and the K-1 others with the highest m, lower id first on ties, ascending
//   lse  = log sum of exp(s[j]) over the visible tokens of the chosen blocks, or of all
//
// A NaN token score is ignored by the maximum; a block of NaN alone has m = -inf. -0 equals +0.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "reference/ops.h"
#include "reference/visible.h"

namespace msa::reference {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// Dots of one row with the keys [first, last).
std::vector<double> key_dots(const core::IndexForwardParams& p, int64_t t, int64_t group,
                             const Row& row, int64_t first, int64_t last) {
  std::vector<double> dots;
  const int64_t q = t * p.q_token_stride + group * p.q_head_stride;
  for (int64_t j = first; j < last; ++j) {
    const int64_t k = core::key_offset(p.k_idx, p.sequences, row.request, j, 0);
    dots.push_back(dot(p.q_idx, p.q_dtype, q, p.k_idx.data, p.k_idx.dtype, k, p.index_dim));
  }
  return dots;
}

/// m of one block, or of what is visible of it.
float block_score(const core::IndexForwardParams& p, const double* dots, size_t count) {
  double best = kMinusInfinity;
  for (size_t j = 0; j < count; ++j) {
    if (dots[j] > best) best = dots[j];  // false for NaN
  }
  return static_cast<float>(static_cast<double>(p.scale) * best);
}

std::vector<float> block_scores(const core::IndexForwardParams& p,
                                const std::vector<double>& dots) {
  const auto block_size = static_cast<size_t>(p.block_size);
  std::vector<float> scores;
  for (size_t begin = 0; begin < dots.size(); begin += block_size) {
    scores.push_back(
        block_score(p, dots.data() + begin, std::min(block_size, dots.size() - begin)));
  }
  return scores;
}

/// The rule of selection, for any K and any number of visible blocks; ascending.
std::vector<int32_t> select(const std::vector<float>& scores, int64_t top_k) {
  const auto local = static_cast<int32_t>(scores.size()) - 1;
  std::vector<int32_t> others;
  for (int32_t b = 0; b < local; ++b) others.push_back(b);
  std::stable_sort(others.begin(), others.end(), [&](int32_t a, int32_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  others.resize(std::min(others.size(), static_cast<size_t>(top_k - 1)));
  others.push_back(local);
  std::sort(others.begin(), others.end());
  return others;
}

double log_sum_exp(const std::vector<double>& logits) {
  double largest = kMinusInfinity;
  for (double logit : logits) largest = std::max(largest, logit);
  if (largest == kMinusInfinity) return kMinusInfinity;
  double sum = 0;
  for (double logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

void index_row(const core::IndexForwardParams& p, int64_t t, int64_t g) {
  const Row row = find_row(p.sequences, t);
  std::vector<double> dots;
  std::vector<float> scores;
  std::vector<int32_t> ids;
  if (!row.empty()) {
    dots = key_dots(p, t, g, row, 0, row.position + 1);
    scores = block_scores(p, dots);
    if (p.block_ids.data != nullptr) ids = select(scores, p.block_ids.top_k);
  }
  if (p.block_ids.data != nullptr) {
    int32_t* out = p.block_ids.data + g * p.block_ids.head_stride + t * p.block_ids.token_stride;
    for (int64_t n = 0; n < p.block_ids.top_k; ++n) {
      out[n] = static_cast<size_t>(n) < ids.size() ? ids[static_cast<size_t>(n)] : -1;
    }
  }
  if (p.block_scores != nullptr) {
    float* out = p.block_scores + g * p.score_head_stride + t * p.score_token_stride;
    for (int64_t b = 0; b < p.max_blocks; ++b) {
      out[b] = static_cast<size_t>(b) < scores.size() ? scores[static_cast<size_t>(b)]
                                                      : -std::numeric_limits<float>::infinity();
    }
  }
  if (p.lse_idx != nullptr) {
    std::vector<double> logits;
    for (int64_t j = 0; j <= row.position; ++j) {
      const auto block = static_cast<int32_t>(j / p.block_size);
      if (p.lse_scope == IndexLseScope::kVisible ||
          std::binary_search(ids.begin(), ids.end(), block)) {
        logits.push_back(static_cast<double>(p.scale) * dots[static_cast<size_t>(j)]);
      }
    }
    p.lse_idx[g * p.lse_head_stride + t * p.lse_token_stride] =
        static_cast<float>(log_sum_exp(logits));
  }
}

/// The candidate list of one row over a part of the blocks; see msa/index_parts.h.
void candidates_row(const core::IndexForwardParams& p, int64_t t, int64_t g) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  int32_t* const ids =
      p.block_ids.data + g * p.block_ids.head_stride + t * p.block_ids.token_stride;
  float* const scores =
      p.candidate_scores + g * p.candidate_head_stride + t * p.candidate_token_stride;
  std::fill_n(ids, p.block_ids.top_k, -1);
  std::fill_n(scores, p.block_ids.top_k, -kInfinity);
  const Row row = find_row(p.sequences, t);
  if (row.empty()) return;
  const int64_t local = row.position / p.block_size;
  if (local >= p.block_begin && local < p.block_end) {
    ids[0] = static_cast<int32_t>(local);
    scores[0] = kInfinity;
  }
  std::vector<std::pair<float, int32_t>> others;
  for (int64_t block = p.block_begin; block < std::min(p.block_end, local); ++block) {
    const std::vector<double> dots =
        key_dots(p, t, g, row, block * p.block_size, (block + 1) * p.block_size);
    others.emplace_back(block_score(p, dots.data(), dots.size()), static_cast<int32_t>(block));
  }
  std::stable_sort(others.begin(), others.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  const auto kept = std::min(others.size(), static_cast<size_t>(p.block_ids.top_k - 1));
  for (size_t n = 0; n < kept; ++n) {
    scores[n + 1] = others[n].first;
    ids[n + 1] = others[n].second;
  }
}

}  // namespace

void index_candidates(const core::IndexForwardParams& p, const core::RunContext& run) {
  const int64_t num_rows = p.sequences.num_query_tokens * p.num_kv_heads;
  (*run.parallel_for)(num_rows, [&p](int64_t task, int) {
    candidates_row(p, task / p.num_kv_heads, task % p.num_kv_heads);
  });
}

void index_forward(const core::IndexForwardParams& p, const core::RunContext& run) {
  const int64_t num_rows = p.sequences.num_query_tokens * p.num_kv_heads;
  (*run.parallel_for)(num_rows, [&p](int64_t task, int) {
    index_row(p, task / p.num_kv_heads, task % p.num_kv_heads);
  });
}

}  // namespace msa::reference
