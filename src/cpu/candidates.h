// The best blocks so far of each row, while scores stream by: what makes score and top-k one pass.
//
// A row keeps at most K - 1 candidates (the local block has its own place), sorted by falling score
// and, among equals, rising id. Blocks are offered in ascending order of id, so a later equal never
// displaces an earlier one: the list is exactly "highest score, then lowest id". -0 equals +0 and
// infinities tie, as floats compare; scores are never NaN. At 64K tokens in blocks of 64 a row is
// offered 1024 blocks and takes some 66 of them when scores come in random order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/params.h"
#include "cpu/workspace.h"

namespace msa::cpu {

/// log of a sum of exponentials, kept as the largest term and the sum relative to it.
struct LogSum {
  float maximum;  // of the scaled scores
  float sum;

  void add(float other_maximum, float other_sum) {
    const float largest = std::max(maximum, other_maximum);
    const float origin = largest == -std::numeric_limits<float>::infinity() ? 0.0f : largest;
    sum = sum * std::exp(maximum - origin) + other_sum * std::exp(other_maximum - origin);
    maximum = largest;
  }
  float value() const { return maximum + std::log(sum); }
};
inline constexpr LogSum kEmptyLogSum = {-std::numeric_limits<float>::infinity(), 0.0f};

/// Candidates of the rows of a tile; row = query * Hkv + head.
struct Candidates {
  int64_t capacity = 0;       // K - 1, or 0 when no ids are wanted
  int32_t* counts = nullptr;  // [rows]
  float* cutoffs = nullptr;   // [rows] the lowest score of a full list
  float* scores = nullptr;    // [rows][capacity]
  int32_t* ids = nullptr;     // [rows][capacity]
  float* lses = nullptr;      // [rows][capacity] of each block; null when not wanted
  LogSum* totals = nullptr;   // [rows] over the local block, or over all; null when not wanted

  void clear(int64_t rows) const {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (int64_t row = 0; row < rows; ++row) {
      counts[row] = 0;
      cutoffs[row] = capacity == 0 ? kInfinity : -kInfinity;  // an empty list wants nothing
      if (totals != nullptr) totals[row] = kEmptyLogSum;
    }
  }

  bool wants(int64_t row, float score) const {
    return score > cutoffs[row] || counts[row] < capacity;
  }

  /// Only when the row wants the score.
  void insert(int64_t row, float score, int32_t id, float lse) const {
    float* const row_scores = scores + row * capacity;
    int32_t* const row_ids = ids + row * capacity;
    float* const row_lses = lses == nullptr ? nullptr : lses + row * capacity;
    int64_t at = counts[row] < capacity ? counts[row]++ : capacity - 1;
    while (at > 0 && row_scores[at - 1] < score) {
      row_scores[at] = row_scores[at - 1];
      row_ids[at] = row_ids[at - 1];
      if (row_lses != nullptr) row_lses[at] = row_lses[at - 1];
      --at;
    }
    row_scores[at] = score;
    row_ids[at] = id;
    if (row_lses != nullptr) row_lses[at] = lse;
    if (counts[row] == capacity) cutoffs[row] = row_scores[capacity - 1];
  }

  /// Takes over what `later` holds: blocks of higher ids.
  void merge(int64_t row, const Candidates& later) const {
    for (int64_t n = 0; n < later.counts[row]; ++n) {
      const int64_t from = row * capacity + n;
      if (!wants(row, later.scores[from])) break;  // the rest are lower still
      insert(row, later.scores[from], later.ids[from], lses == nullptr ? 0.0f : later.lses[from]);
    }
    if (totals != nullptr) totals[row].add(later.totals[row].maximum, later.totals[row].sum);
  }
};

inline Candidates take_candidates(const core::IndexForwardParams& p, Arena& arena, int64_t rows) {
  Candidates candidates;
  candidates.capacity = p.block_ids.data == nullptr ? 0 : p.block_ids.top_k - 1;
  candidates.counts = arena.take<int32_t>(rows);
  candidates.cutoffs = arena.take<float>(rows);
  candidates.scores = arena.take<float>(rows * candidates.capacity);
  candidates.ids = arena.take<int32_t>(rows * candidates.capacity);
  if (p.lse_idx != nullptr) {
    if (p.lse_scope == IndexLseScope::kSelected) {
      candidates.lses = arena.take<float>(rows * candidates.capacity);
    }
    candidates.totals = arena.take<LogSum>(rows);
  }
  return candidates;
}

}  // namespace msa::cpu
