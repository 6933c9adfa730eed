// Candidate lists of P parts into one, row by row: msa/index_parts.h says what a list is.
//
// The order "highest score first, then the lowest id" is total over the blocks of a row, so the
// best K - 1 of all parts are one set in one order, whatever the order in which the parts come in.
// Each entry is inserted where it belongs: at most P K^2 / 2 comparisons a row.
#include <algorithm>
#include <limits>

#include "host/ops.h"

namespace msa::host {
namespace {

/// The list that grows: places 1 to K - 1 of a row.
struct List {
  int32_t* ids;
  float* scores;
  int64_t capacity;
  int64_t count = 0;

  bool before(int64_t at, float score, int32_t id) const {
    return scores[at] > score || (scores[at] == score && ids[at] < id);
  }
  void insert(float score, int32_t id) {
    int64_t at = count;
    while (at > 0 && !before(at - 1, score, id)) --at;
    const bool known = at < count && ids[at] == id;
    if (known || at == capacity) return;
    count = std::min(count + 1, capacity);
    std::copy_backward(ids + at, ids + count - 1, ids + count);
    std::copy_backward(scores + at, scores + count - 1, scores + count);
    ids[at] = id;
    scores[at] = score;
  }
};

void merge_row(const core::MergeCandidatesParams& p, int64_t head, int64_t t) {
  int32_t* const ids = p.merged_ids + head * p.merged_id_strides[0] + t * p.merged_id_strides[1];
  float* const scores =
      p.merged_scores + head * p.merged_score_strides[0] + t * p.merged_score_strides[1];
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  ids[0] = -1;
  scores[0] = -kInfinity;
  List list = {ids + 1, scores + 1, p.top_k - 1};
  for (int64_t part = 0; part < p.num_parts; ++part) {
    const int32_t* part_ids =
        p.ids + part * p.id_strides[0] + head * p.id_strides[1] + t * p.id_strides[2];
    const float* part_scores =
        p.scores + part * p.score_strides[0] + head * p.score_strides[1] + t * p.score_strides[2];
    if (part_ids[0] >= 0) {
      ids[0] = part_ids[0];
      scores[0] = kInfinity;
    }
    for (int64_t n = 1; n < p.top_k && part_ids[n] >= 0; ++n) {
      list.insert(part_scores[n], part_ids[n]);
    }
  }
  std::fill(list.ids + list.count, list.ids + list.capacity, -1);
  std::fill(list.scores + list.count, list.scores + list.capacity, -kInfinity);
  if (p.block_ids.data == nullptr) return;
  int32_t* const out =
      p.block_ids.data + head * p.block_ids.head_stride + t * p.block_ids.token_stride;
  int32_t* end = std::copy_n(list.ids, list.count, out);
  if (ids[0] >= 0) *end++ = ids[0];
  std::sort(out, end);
  std::fill(end, out + p.top_k, -1);
}

}  // namespace

void merge_candidates(const core::MergeCandidatesParams& p, const core::RunContext& run) {
  constexpr int64_t kRowsPerTask = 256;
  const int64_t rows = p.num_kv_heads * p.num_query_tokens;
  (*run.parallel_for)((rows + kRowsPerTask - 1) / kRowsPerTask, [&p, rows](int64_t task, int) {
    const int64_t end = std::min(rows, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < end; ++row) {
      merge_row(p, row / p.num_query_tokens, row % p.num_query_tokens);
    }
  });
}

}  // namespace msa::host
