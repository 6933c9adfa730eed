// What a task of the KL loss keeps: a tile of queries of one request and group, and the packed keys
// of both branches of a chunk.
#pragma once

#include "cpu/attention_tile.h"
#include "cpu/block_pairs.h"
#include "cpu/key_gradients.h"

namespace msa::cpu {

/// Row n of q is query n / G, head n % G; rows of the index branch are queries.
struct KlScratch {
  float* q;           // [queries * G][padded D]
  float* lse;         // [queries * G]
  float* q_idx;       // [queries][padded Di]
  float* dq_idx;      // [queries][padded Di]
  float* lse_idx;     // [queries]
  float* keys;        // panels of [D][kChunkTokens]
  float* index_keys;  // panels of [Di][kChunkTokens]
  float* index_rows;  // panels of [kChunkTokens][padded Di]
  float* dots;        // [kPanelRows][kChunkTokens] of rows of q
  float* teacher;     // [kPanelRows][kChunkTokens] of queries
  float* student;     // [kPanelRows][kChunkTokens] of queries; then r - p
  int64_t* offsets;   // [2][kChunkTokens] of keys and index keys
  int32_t* queries;   // [queries of a tile]
  PairBuffers pairs;  // of the sparse scope
};

inline KlScratch take_kl_scratch(const core::KlParams& p, Arena& arena, int64_t tile_queries) {
  const core::AttentionForwardParams& f = p.teacher;
  const int64_t rows = tile_queries * f.group_size();
  const int64_t padded_index_dim = round_up(p.index_dim, kMaxLanes);
  KlScratch scratch;
  scratch.q = arena.take<float>(rows * round_up(f.head_dim, kMaxLanes));
  scratch.lse = arena.take<float>(rows);
  scratch.q_idx = arena.take<float>(tile_queries * padded_index_dim);
  scratch.dq_idx = arena.take<float>(tile_queries * padded_index_dim);
  scratch.lse_idx = arena.take<float>(tile_queries);
  scratch.keys = arena.take<float>(f.head_dim * kChunkTokens);
  scratch.index_keys = arena.take<float>(p.index_dim * kChunkTokens);
  scratch.index_rows = arena.take<float>(kChunkTokens * padded_index_dim);
  scratch.dots = arena.take<float>(kPanelRows * kChunkTokens);
  scratch.teacher = arena.take<float>(kPanelRows * kChunkTokens);
  scratch.student = arena.take<float>(kPanelRows * kChunkTokens);
  scratch.offsets = arena.take<int64_t>(2 * kChunkTokens);
  scratch.queries = arena.take<int32_t>(tile_queries);
  const int64_t pairs = tile_queries * f.block_ids.top_k;
  scratch.pairs = {arena.take<BlockPair>(pairs), arena.take<BlockPair>(pairs),
                   arena.take<int32_t>(kRadixSize)};
  return scratch;
}

/// One task: a part of a request, of one group, and the planes that it adds to.
struct KlPart {
  const core::KlParams* p = nullptr;
  GradientTask task;
  int64_t tile_queries = 1;
  KeyPlanes dk_idx;
};

}  // namespace msa::cpu
