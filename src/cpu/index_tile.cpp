#include "cpu/index_tile.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "cpu/ops.h"
#include "cpu/schedule.h"

namespace msa::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr int64_t kTileRows = 512;
constexpr int64_t kTileCandidates = int64_t{1} << 16;

IndexScratch take_scratch(const core::IndexForwardParams& p, Arena& arena, int64_t tile_queries) {
  const int64_t rows = tile_queries * p.num_kv_heads;
  IndexScratch scratch;
  scratch.q = arena.take<float>(rows * p.index_dim);
  scratch.keys = arena.take<float>(p.index_dim * kIndexPieceTokens);
  scratch.dots = arena.take<float>(kIndexPanelRows * kIndexPieceTokens);
  scratch.offsets = arena.take<int64_t>(kIndexPieceTokens);
  scratch.maxima = arena.take<float>(rows);
  scratch.sums = arena.take<LogSum>(rows);
  scratch.candidates = take_candidates(p, arena, rows);
  return scratch;
}

/// A split has up to kMaxSplitQueries queries whatever the size of a tile.
int64_t scratch_queries(const IndexLayout& layout) {
  return std::max(layout.tile_queries, kMaxSplitQueries);
}

void write_empty_row(const core::IndexForwardParams& p, int64_t t, int64_t head) {
  if (p.block_ids.data != nullptr) {
    std::fill_n(p.block_ids.data + head * p.block_ids.head_stride + t * p.block_ids.token_stride,
                p.block_ids.top_k, -1);
  }
  if (p.candidate_scores != nullptr) {
    std::fill_n(p.candidate_scores + head * p.candidate_head_stride + t * p.candidate_token_stride,
                p.block_ids.top_k, kMinusInfinity);
  }
  if (p.block_scores != nullptr) {
    std::fill_n(p.block_scores + head * p.score_head_stride + t * p.score_token_stride,
                p.max_blocks, kMinusInfinity);
  }
  if (p.lse_idx != nullptr) {
    p.lse_idx[head * p.lse_head_stride + t * p.lse_token_stride] = kMinusInfinity;
  }
}

/// The local block if it lies in the part, then the others as they are: best first.
void write_candidates(const core::IndexForwardParams& p, int64_t t, int64_t head, int64_t local,
                      const Candidates& candidates, int64_t row) {
  int32_t* const ids =
      p.block_ids.data + head * p.block_ids.head_stride + t * p.block_ids.token_stride;
  float* const scores =
      p.candidate_scores + head * p.candidate_head_stride + t * p.candidate_token_stride;
  const bool here = local >= p.block_begin && local < p.block_end;
  ids[0] = here ? static_cast<int32_t>(local) : -1;
  scores[0] = here ? -kMinusInfinity : kMinusInfinity;
  const int64_t count = candidates.counts[row];
  std::copy_n(candidates.ids + row * candidates.capacity, count, ids + 1);
  std::copy_n(candidates.scores + row * candidates.capacity, count, scores + 1);
  std::fill(ids + count + 1, ids + p.block_ids.top_k, -1);
  std::fill(scores + count + 1, scores + p.block_ids.top_k, kMinusInfinity);
}

}  // namespace

IndexLayout lay_out_index(const core::IndexForwardParams& p, int num_threads, void* workspace) {
  IndexLayout layout;
  Arena arena(workspace);
  const int64_t top_k = std::max<int64_t>(1, p.block_ids.top_k);
  layout.tile_queries =
      std::min({kTileRows / p.num_kv_heads, kTileCandidates / (p.num_kv_heads * top_k),
                p.sequences.num_query_tokens});
  layout.tile_queries = std::max<int64_t>(1, layout.tile_queries);
  layout.partial_bytes = partial_capacity(p.sequences.num_query_tokens, candidates_bytes(p, 1));
  layout.task_begin = arena.take<int64_t>(p.sequences.batch + 1);
  layout.slot_begin = arena.take<int64_t>(p.sequences.batch + 1);
  layout.partials = arena.take<unsigned char>(layout.partial_bytes);
  Arena scratch(nullptr);
  take_scratch(p, scratch, scratch_queries(layout));
  layout.thread_bytes = static_cast<int64_t>(scratch.bytes());
  layout.threads = arena.take<unsigned char>(layout.thread_bytes, num_threads);
  layout.bytes = arena.bytes();
  return layout;
}

IndexScratch index_scratch_of(const core::IndexForwardParams& p, const IndexLayout& layout,
                              int worker) {
  Arena arena(layout.threads + worker * layout.thread_bytes);
  return take_scratch(p, arena, scratch_queries(layout));
}

int64_t candidates_bytes(const core::IndexForwardParams& p, int64_t num_queries) {
  Arena arena(nullptr);
  take_candidates(p, arena, num_queries * p.num_kv_heads);
  return static_cast<int64_t>(arena.bytes());
}

size_t index_forward_workspace(const core::IndexForwardParams& p, int num_threads) {
  return lay_out_index(p, num_threads, nullptr).bytes;
}

int64_t first_ranked_position(const core::IndexForwardParams& p) {
  const bool ids_alone = p.block_ids.data != nullptr && p.candidate_scores == nullptr &&
                         p.block_scores == nullptr && p.lse_idx == nullptr;
  return ids_alone ? p.block_ids.top_k * p.block_size : 0;
}

void finish_index_tile(const IndexTile& tile, const Candidates& candidates) {
  const core::IndexForwardParams& p = *tile.p;
  const int64_t heads = p.num_kv_heads;
  const int64_t first_ranked = first_ranked_position(p);
  for (int64_t row = 0; row < tile.num_queries * heads; ++row) {
    const int64_t position = tile.first_position + row / heads;
    const int64_t t = tile.first_row + row / heads;
    const int64_t head = row % heads;
    if (position < 0) {
      write_empty_row(p, t, head);
      continue;
    }
    const int64_t local = position / p.block_size;
    const int64_t count = candidates.counts[row];
    if (p.candidate_scores != nullptr) {
      write_candidates(p, t, head, local, candidates, row);
    } else if (p.block_ids.data != nullptr) {
      int32_t* const ids =
          p.block_ids.data + head * p.block_ids.head_stride + t * p.block_ids.token_stride;
      if (position < first_ranked) {
        std::iota(ids, ids + local + 1, 0);
        std::fill(ids + local + 1, ids + p.block_ids.top_k, -1);
        continue;  // ids are the only output
      }
      std::copy_n(candidates.ids + row * candidates.capacity, count, ids);
      std::sort(ids, ids + count);
      ids[count] = static_cast<int32_t>(local);
      std::fill(ids + count + 1, ids + p.block_ids.top_k, -1);
    }
    if (p.block_scores != nullptr) {
      float* const scores = p.block_scores + head * p.score_head_stride + t * p.score_token_stride;
      std::fill(scores + local + 1, scores + p.max_blocks, kMinusInfinity);
    }
    if (p.lse_idx != nullptr) {
      LogSum total = candidates.totals[row];
      for (int64_t n = 0; candidates.lses != nullptr && n < count; ++n) {
        total.add(candidates.lses[row * candidates.capacity + n], 1.0f);
      }
      p.lse_idx[head * p.lse_head_stride + t * p.lse_token_stride] = total.value();
    }
  }
}

void write_empty_index_rows(const core::IndexForwardParams& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t head = 0; head < p.num_kv_heads; ++head) write_empty_row(p, t, head);
  }
}

}  // namespace msa::cpu
