// How the blocks of a tile of rows are cut into pieces, one for each thread block, for the index
// kernel and its merge alike. A piece is a range of blocks whose size follows from the request's
// length; with an LSE asked for it is a number of whole segments.
#pragma once

#include "cuda/device/sequence.cuh"
#include "cuda/sm90/index_forward/params.h"

namespace msa::cuda {

struct TilePieces {
  int end;      // blocks that the tile works on: up to the local one of its last query
  int size;     // of a piece, in blocks
  int segment;  // blocks of a segment of the LSE
  __device__ __forceinline__ int count() const { return end > size ? (end + size - 1) / size : 1; }
};

/// Tile `tile` of the request: queries [tile * tile_queries, + tile_queries).
__device__ __forceinline__ TilePieces tile_pieces(const IndexKernelParams& p,
                                                  const Request& request, int64_t tile) {
  const int64_t past = (tile + 1) << p.tile_shift;
  const int64_t last_row = (past < request.num_rows ? past : request.num_rows) - 1;
  const int64_t position = request.key_length - request.num_rows + last_row;
  const int blocks = p.blocks(request.key_length);
  TilePieces pieces = {0, 0, static_cast<int>(segment_blocks(blocks))};
  if (position >= 0) {
    pieces.end = (static_cast<int>(position) >> p.block_shift) + (p.scores_local() ? 1 : 0);
  }
  pieces.size = piece_blocks(blocks, p.splits, p.op.lse_idx != nullptr ? pieces.segment : 1);
  return pieces;
}

}  // namespace msa::cuda
