// What the sparse and the dense op share outside the kernels: a tile of queries of one request and
// key-value head, and the scratch memory of the thread that works on it.
#pragma once

#include <cstdint>

#include "core/params.h"
#include "cpu/workspace.h"

namespace msa::cpu {

/// Keys are packed and attended this many at a time. At D = 64 packed keys and values take 64 KiB;
/// larger pieces leave the second-level cache at large D, smaller ones rescale the sums more often.
inline constexpr int64_t kChunkTokens = 128;
/// Rows whose scores lie in the first-level cache between the two products: 12 KiB of scores.
inline constexpr int64_t kPanelRows = 24;

/// Running softmax of one row: the largest raw dot so far, and the sum of exp(scale * (dot - it)).
struct RowState {
  float maximum;
  float sum;
};

/// Queries [0, num_queries) of the tile at positions from first_position on; row n of the tile is
/// query n / G, head n % G of the group.
struct AttentionTile {
  const core::AttentionForwardParams* p = nullptr;
  int64_t request = 0;
  int64_t first_row = 0;  // packed row of the first query
  int64_t num_queries = 0;
  int64_t first_position = 0;
  int64_t kv_head = 0;
  int64_t key_begin = 0;  // dense: keys [key_begin, key_end) of the request
  int64_t key_end = 0;
  bool finish = true;  // write out and lse; else leave sums and states as a partial result
};

/// Consecutive keys of the tile's request.
struct KeyRange {
  int64_t first = 0;
  int64_t tokens = 0;
};

struct AttentionScratch {
  float* q;          // [rows][D]
  float* out;        // [rows][padded D], sums before the division
  RowState* state;   // [rows]
  float* keys;       // panels of [D][kChunkTokens]
  float* values;     // panels of [kChunkTokens][padded D]
  float* scores;     // [kPanelRows][kChunkTokens]
  int64_t* offsets;  // [2][kChunkTokens] of keys and values
  int32_t* queries;  // [queries of a tile]
};

/// Takes the scratch of a thread; rows' sums and states apart when they live in a partial result.
inline AttentionScratch take_attention_scratch(const core::AttentionForwardParams& p, Arena& arena,
                                               int64_t tile_queries) {
  const int64_t rows = tile_queries * p.group_size();
  const int64_t padded_dim = round_up(p.head_dim, kMaxLanes);
  AttentionScratch scratch;
  scratch.q = arena.take<float>(rows * p.head_dim);
  scratch.out = arena.take<float>(rows * padded_dim);
  scratch.state = arena.take<RowState>(rows);
  scratch.keys = arena.take<float>(p.head_dim * kChunkTokens);
  scratch.values = arena.take<float>(kChunkTokens * padded_dim);
  scratch.scores = arena.take<float>(kPanelRows * kChunkTokens);
  scratch.offsets = arena.take<int64_t>(2 * kChunkTokens);
  scratch.queries = arena.take<int32_t>(tile_queries);
  return scratch;
}

/// out = 0 and lse = -inf for packed rows [begin, end).
void write_empty_attention_rows(const core::AttentionForwardParams& p, int64_t begin, int64_t end);

}  // namespace msa::cpu
