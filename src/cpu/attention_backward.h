// What a task of the attention gradients keeps: a tile of queries of one request and key-value
// head, and packed keys and values of a chunk.
#pragma once

#include "cpu/attention_tile.h"
#include "cpu/block_pairs.h"
#include "cpu/key_gradients.h"

namespace msa::cpu {

/// Row n of the tile is query n / G, head n % G of the group.
struct BackwardScratch {
  float* q;            // [rows][padded D]
  float* dout;         // [rows][padded D]
  float* dq;           // [rows][padded D]
  float* lse;          // [rows]
  float* mean;         // [rows] D_row = sum of dout * out - dlse
  float* keys;         // panels of [D][kChunkTokens]
  float* values;       // panels of [D][kChunkTokens]
  float* key_rows;     // panels of [kChunkTokens][padded D]
  float* weights;      // [kPanelRows][kChunkTokens] P
  float* differences;  // [kPanelRows][kChunkTokens] dS
  int64_t* offsets;    // [2][kChunkTokens] of keys and values
  int32_t* queries;    // [queries of a tile]
  PairBuffers pairs;   // of the sparse op
};

inline BackwardScratch take_backward_scratch(const core::AttentionForwardParams& p, Arena& arena,
                                             int64_t tile_queries) {
  const int64_t rows = tile_queries * p.group_size();
  const int64_t padded_dim = round_up(p.head_dim, kMaxLanes);
  BackwardScratch scratch;
  scratch.q = arena.take<float>(rows * padded_dim);
  scratch.dout = arena.take<float>(rows * padded_dim);
  scratch.dq = arena.take<float>(rows * padded_dim);
  scratch.lse = arena.take<float>(rows);
  scratch.mean = arena.take<float>(rows);
  scratch.keys = arena.take<float>(p.head_dim * kChunkTokens);
  scratch.values = arena.take<float>(p.head_dim * kChunkTokens);
  scratch.key_rows = arena.take<float>(kChunkTokens * padded_dim);
  scratch.weights = arena.take<float>(kPanelRows * kChunkTokens);
  scratch.differences = arena.take<float>(kPanelRows * kChunkTokens);
  scratch.offsets = arena.take<int64_t>(2 * kChunkTokens);
  scratch.queries = arena.take<int32_t>(tile_queries);
  const int64_t pairs = tile_queries * p.block_ids.top_k;
  scratch.pairs = {arena.take<BlockPair>(pairs), arena.take<BlockPair>(pairs),
                   arena.take<int32_t>(kRadixSize)};
  return scratch;
}

/// One task: a part of a request, of one key-value head, and the planes that it adds to.
struct BackwardPart {
  const core::AttentionBackwardParams* p = nullptr;
  GradientTask task;
  int64_t tile_queries = 1;
  KeyPlanes dk;
  KeyPlanes dv;
};

}  // namespace msa::cpu
