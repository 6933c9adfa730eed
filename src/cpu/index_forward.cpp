// The index branch: scores blocks of keys and keeps the best, in one pass.
//
//   q_idx [Tq, Hkv, Di], k_idx by pages or packed [.., Di]  ->  ids [Hkv, Tq, K]
//   m = fl32(scale * max over visible j of the block of q_idx . k_idx[j])
//
// Prefill: a task is a tile of up to 512 rows (queries x index heads, which all share one key
// head). For each block: pack the keys once, S = Q K^T for 24 rows at a time in the first-level
// cache, the maximum of each row, and its candidate list (candidates.h). Nothing is kept of S.
// Rows that see at most K blocks choose them all, unscored, when ids are the only output.
// 2 Di FLOP for each row and token: bound by the FMA units. Decode: a task is a split of the keys
// (schedule.h), read once for all index heads: bound by memory, 2 Di bytes a token in bfloat16; the
// splits' lists are merged in ascending order. A row's bits depend on no other row.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/index_forward.cpp"
#include "cpu/targets.h"
// Targets come first: this header includes the file once for each.
#include "hwy/foreach_target.h"

#include <numbers>

#include "cpu/gemm-inl.h"
#include "cpu/index_tile.h"
#include "cpu/ops.h"
#include "cpu/pack-inl.h"
#include "cpu/reduce-inl.h"
#include "cpu/schedule.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

/// Dots of rows [first_row, rows) with the keys [first, first + tokens) of one block, reduced into
/// the rows' maxima and, when wanted, their sums of exponentials.
HWY_INLINE void reduce_piece(const IndexTile& tile, const IndexScratch& scratch, int64_t first_row,
                             int64_t first, int64_t tokens, bool first_piece) {
  const core::IndexForwardParams& p = *tile.p;
  const auto count = static_cast<size_t>(tokens);
  const auto dim = static_cast<size_t>(p.index_dim);
  fill_key_offsets(p.k_idx, p.sequences, tile.request, 0, first, tokens, scratch.offsets);
  with_type(p.k_idx.data, p.k_idx.dtype, [&](const auto* k) HWY_ATTR {
    pack_transposed(k, scratch.offsets, count, dim, scratch.keys);
  });
  const float* q[kIndexPanelRows];
  float* dots[kIndexPanelRows];
  const int64_t rows = tile.num_queries * p.num_kv_heads;
  const float scale_log2 = p.scale * std::numbers::log2e_v<float>;
  for (int64_t panel = first_row; panel < rows; panel += kIndexPanelRows) {
    const int64_t num_rows = std::min(kIndexPanelRows, rows - panel);
    for (int64_t n = 0; n < num_rows; ++n) {
      q[n] = scratch.q + (panel + n) * p.index_dim;
      dots[n] = scratch.dots + n * kIndexPieceTokens;
    }
    multiply(q, static_cast<size_t>(num_rows), scratch.keys, dim, padded_columns(count), count,
             dots);
    for (int64_t n = 0; n < num_rows; ++n) {
      const int64_t row = panel + n;
      const int64_t seen = tile.first_position + row / p.num_kv_heads - first + 1;
      const auto visible = static_cast<size_t>(std::clamp<int64_t>(seen, 0, tokens));
      const float largest = largest_dot(dots[n], visible);
      if (scratch.candidates.totals != nullptr) {
        if (first_piece) scratch.sums[row] = kEmptyLogSum;
        scratch.sums[row].add(p.scale * largest, sum_of_exp(dots[n], visible, largest, scale_log2));
      }
      scratch.maxima[row] = first_piece ? largest : std::max(scratch.maxima[row], largest);
    }
  }
}

void index_tile(const IndexTile& tile, const IndexScratch& scratch) {
  const core::IndexForwardParams& p = *tile.p;
  const int64_t heads = p.num_kv_heads;
  const int64_t rows = tile.num_queries * heads;
  const Candidates& candidates = scratch.candidates;
  candidates.clear(rows);
  const int64_t unranked = first_ranked_position(p) - tile.first_position;
  if (unranked >= tile.num_queries) return;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t offset =
        (tile.first_row + row / heads) * p.q_token_stride + row % heads * p.q_head_stride;
    with_type(p.q_idx, p.q_dtype, [&](const auto* q) HWY_ATTR {
      convert(q + offset, static_cast<size_t>(p.index_dim), scratch.q + row * p.index_dim);
    });
  }
  // The local block is taken unseen; its score matters only when it is an output.
  const bool score_local = p.block_scores != nullptr || candidates.totals != nullptr;
  if (candidates.capacity == 0 && !score_local) return;
  for (int64_t block = tile.block_begin; block < tile.block_end; ++block) {
    const int64_t first_key = block * p.block_size;
    const int64_t needed_from = score_local ? first_key : first_key + p.block_size;
    const int64_t skipped = std::max({int64_t{0}, unranked, needed_from - tile.first_position});
    if (skipped >= tile.num_queries) break;
    const int64_t end_key = std::min(tile.num_keys, first_key + p.block_size);
    for (int64_t first = first_key; first < end_key; first += kIndexPieceTokens) {
      reduce_piece(tile, scratch, skipped * heads, first,
                   std::min(kIndexPieceTokens, end_key - first), first == first_key);
    }
    for (int64_t row = skipped * heads; row < rows; ++row) {
      const float score = p.scale * scratch.maxima[row];
      const int64_t query = row / heads;
      if (p.block_scores != nullptr) {
        p.block_scores[row % heads * p.score_head_stride +
                       (tile.first_row + query) * p.score_token_stride + block] = score;
      }
      const bool local = tile.first_position + query < first_key + p.block_size;
      if (candidates.totals != nullptr && (local || candidates.lses == nullptr)) {
        candidates.totals[row].add(scratch.sums[row].maximum, scratch.sums[row].sum);
      }
      if (!local && candidates.wants(row, score)) {
        candidates.insert(row, score, static_cast<int32_t>(block),
                          candidates.lses == nullptr ? 0.0f : scratch.sums[row].value());
      }
    }
  }
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa::cpu {
namespace {

HWY_EXPORT(index_tile);

IndexTile tile_of(const core::IndexForwardParams& p, const Request& request, int64_t first_query,
                  int64_t num_queries) {
  const int64_t last_position = request.first_position() + first_query + num_queries - 1;
  return {
      .p = &p,
      .request = request.index,
      .first_row = request.first_row + first_query,
      .num_queries = num_queries,
      .first_position = request.first_position() + first_query,
      .num_keys = request.num_keys,
      .block_begin = p.block_begin,
      .block_end = last_position < 0 ? 0 : std::min(p.block_end, last_position / p.block_size + 1)};
}

/// Requests with one split: tiles of queries.
void run_tiles(const core::IndexForwardParams& p, const core::RunContext& run,
               const IndexLayout& layout) {
  const int64_t size = tile_queries(p.sequences, layout.tile_queries, 1, run.num_threads);
  TaskTable tasks(layout.task_begin, 0);
  for (int64_t r = 0; r < p.sequences.batch; ++r) {
    const Request request = request_at(p.sequences, r);
    const bool here = num_splits(request, p.block_size) == 1;
    tasks.append(here ? divide_up(request.num_queries, size) : 0);
  }
  const auto kernel = HWY_DYNAMIC_DISPATCH(index_tile);
  (*run.parallel_for)(tasks.total(), [&](int64_t task, int worker) {
    int64_t within = 0;
    const Request request = request_at(p.sequences, tasks.find(task, &within));
    // The last tiles see the most keys: they go first.
    const int64_t first = (divide_up(request.num_queries, size) - 1 - within) * size;
    const IndexTile tile = tile_of(p, request, first, std::min(size, request.num_queries - first));
    const IndexScratch scratch = index_scratch_of(p, layout, worker);
    kernel(tile, scratch);
    finish_index_tile(tile, scratch.candidates);
  });
}

/// One wave of split requests: [first, last), as many as the partial lists have room for.
void run_wave(const core::IndexForwardParams& p, const core::RunContext& run,
              const IndexLayout& layout, int64_t first, int64_t last) {
  TaskTable tasks(layout.task_begin, first);
  int64_t used = 0;
  for (int64_t r = first; r < last; ++r) {
    const Request request = request_at(p.sequences, r);
    const int64_t splits = num_splits(request, p.block_size);
    layout.slot_begin[r - first] = used;
    used += splits > 1 ? splits * candidates_bytes(p, request.num_queries) : 0;
    tasks.append(splits > 1 ? splits : 0);
  }
  const auto candidates_of = [&](const Request& request, int64_t split) {
    Arena arena(layout.partials + layout.slot_begin[request.index - first] +
                split * candidates_bytes(p, request.num_queries));
    return take_candidates(p, arena, request.num_queries * p.num_kv_heads);
  };
  const auto kernel = HWY_DYNAMIC_DISPATCH(index_tile);
  (*run.parallel_for)(tasks.total(), [&](int64_t task, int worker) {
    int64_t split = 0;
    const Request request = request_at(p.sequences, tasks.find(task, &split));
    const int64_t blocks = split_tokens(request.num_keys, p.block_size) / p.block_size;
    IndexTile tile = tile_of(p, request, 0, request.num_queries);
    tile.block_begin = std::max(tile.block_begin, split * blocks);
    tile.block_end = std::min(tile.block_end, (split + 1) * blocks);
    IndexScratch scratch = index_scratch_of(p, layout, worker);
    scratch.candidates = candidates_of(request, split);
    kernel(tile, scratch);
  });
  for (int64_t r = first; r < last; ++r) {
    const Request request = request_at(p.sequences, r);
    const int64_t splits = num_splits(request, p.block_size);
    if (splits == 1) continue;
    const Candidates all = candidates_of(request, 0);
    for (int64_t split = 1; split < splits; ++split) {
      const Candidates later = candidates_of(request, split);
      for (int64_t row = 0; row < request.num_queries * p.num_kv_heads; ++row) {
        all.merge(row, later);
      }
    }
    finish_index_tile(tile_of(p, request, 0, request.num_queries), all);
  }
}

void run_splits(const core::IndexForwardParams& p, const core::RunContext& run,
                const IndexLayout& layout) {
  const auto need = [&p](const Request& request) {
    const int64_t splits = num_splits(request, p.block_size);
    return splits > 1 ? splits * candidates_bytes(p, request.num_queries) : 0;
  };
  for_each_wave(p.sequences, layout.partial_bytes, need,
                [&](int64_t first, int64_t last) { run_wave(p, run, layout, first, last); });
}

}  // namespace

void index_forward(const core::IndexForwardParams& p, const core::RunContext& run) {
  const IndexLayout layout = lay_out_index(p, run.num_threads, run.workspace);
  run_tiles(p, run, layout);
  run_splits(p, run, layout);
  write_empty_index_rows(p, p.sequences.cu_seqlens_q[p.sequences.batch],
                         p.sequences.num_query_tokens);
}

}  // namespace msa::cpu
#endif  // HWY_ONCE
