// The K best scores of every row, on the host: one right result, so every backend whose memory the
// host can read shares this. A row's best so far are a heap with the worst of them on top; a later
// block enters if it is better than that, so of equal scores the lower ids stay.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "host/ops.h"

namespace msa::host {
namespace {

void select_row(const core::SelectBlocksParams& p, int64_t head, int64_t t, int32_t* best) {
  const float* scores = p.scores + head * p.score_head_stride + t * p.score_token_stride;
  int32_t* ids = p.block_ids.data + head * p.block_ids.head_stride + t * p.block_ids.token_stride;
  const bool has_local = p.local_blocks != nullptr;
  const int64_t local = has_local ? p.local_blocks[t] : -1;
  const int64_t candidates = has_local ? std::clamp<int64_t>(local, 0, p.max_blocks) : p.max_blocks;
  const int64_t kept = std::min(candidates, p.block_ids.top_k - (has_local ? 1 : 0));
  const auto score_of = [&](int32_t id) {
    const float score = scores[id];
    return std::isnan(score) ? -std::numeric_limits<float>::infinity() : score;
  };
  const auto better = [&](int32_t a, int32_t b) {
    const float score_a = score_of(a);
    const float score_b = score_of(b);
    return score_a > score_b || (score_a == score_b && a < b);
  };
  std::iota(best, best + kept, 0);
  std::make_heap(best, best + kept, better);
  for (int64_t id = kept; kept > 0 && id < candidates; ++id) {
    if (!better(static_cast<int32_t>(id), best[0])) continue;
    std::pop_heap(best, best + kept, better);
    best[kept - 1] = static_cast<int32_t>(id);
    std::push_heap(best, best + kept, better);
  }
  std::sort(best, best + kept);
  std::copy_n(best, kept, ids);
  std::fill(ids + kept, ids + p.block_ids.top_k, -1);
  if (local >= 0) ids[kept] = static_cast<int32_t>(local);
}

}  // namespace

void select_blocks(const core::SelectBlocksParams& p, const core::RunContext& run) {
  const auto places = static_cast<size_t>(std::min(p.block_ids.top_k, p.max_blocks));
  std::vector<int32_t> best(static_cast<size_t>(run.num_threads) * places);
  const int64_t num_rows = p.num_kv_heads * p.num_query_tokens;
  (*run.parallel_for)(num_rows, [&](int64_t task, int thread) {
    select_row(p, task / p.num_query_tokens, task % p.num_query_tokens,
               best.data() + static_cast<size_t>(thread) * places);
  });
}

}  // namespace msa::host
