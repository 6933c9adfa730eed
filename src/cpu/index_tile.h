// A tile of queries of one request for the index branch, the memory of the thread that works on it,
// and what turns candidate lists into outputs.
#pragma once

#include <cstdint>

#include "core/params.h"
#include "cpu/candidates.h"

namespace msa::cpu {

/// Keys are packed this many at a time; a larger block goes by in pieces.
inline constexpr int64_t kIndexPieceTokens = 128;
/// Rows whose dots lie in the first-level cache before they are reduced.
inline constexpr int64_t kIndexPanelRows = 24;

/// Row n of the tile is query n / Hkv, index head n % Hkv.
struct IndexTile {
  const core::IndexForwardParams* p = nullptr;
  int64_t request = 0;
  int64_t first_row = 0;  // packed row of the first query
  int64_t num_queries = 0;
  int64_t first_position = 0;
  int64_t num_keys = 0;     // of the request
  int64_t block_begin = 0;  // blocks [block_begin, block_end) are scored
  int64_t block_end = 0;
};

struct IndexScratch {
  float* q;          // [rows][Di]
  float* keys;       // panels of [Di][kIndexPieceTokens]
  float* dots;       // [kIndexPanelRows][kIndexPieceTokens]
  int64_t* offsets;  // [kIndexPieceTokens]
  float* maxima;     // [rows] of the block at hand
  LogSum* sums;      // [rows] of the block at hand
  Candidates candidates;
};

struct IndexLayout {
  int64_t tile_queries = 0;   // largest
  int64_t partial_bytes = 0;  // for the candidate lists of splits in flight
  int64_t* task_begin = nullptr;
  int64_t* slot_begin = nullptr;
  unsigned char* partials = nullptr;
  unsigned char* threads = nullptr;  // scratch of the first thread
  int64_t thread_bytes = 0;
  size_t bytes = 0;
};

/// With null, only measures.
IndexLayout lay_out_index(const core::IndexForwardParams& p, int num_threads, void* workspace);
IndexScratch index_scratch_of(const core::IndexForwardParams& p, const IndexLayout& layout,
                              int worker);
/// Bytes of the candidate lists of `num_queries` queries.
int64_t candidates_bytes(const core::IndexForwardParams& p, int64_t num_queries);

/// Rows before this position choose every block that they see. Where ids are all that is wanted,
/// nothing is scored for them; otherwise it is 0.
int64_t first_ranked_position(const core::IndexForwardParams& p);
/// Writes ids, lse_idx and what block_scores lack, for all rows of the tile.
void finish_index_tile(const IndexTile& tile, const Candidates& candidates);
/// ids -1, scores and lse -inf for packed rows [begin, end).
void write_empty_index_rows(const core::IndexForwardParams& p, int64_t begin, int64_t end);

}  // namespace msa::cpu
