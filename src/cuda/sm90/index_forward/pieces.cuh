// Tiles of rows, and how the blocks of a tile are cut into pieces, one for each thread block, for
// the index kernel and its merge alike. All pieces of a call have about one size, so that thread
// blocks end together however long each request is; with an LSE asked for it is a number of whole
// segments.
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

/// Blocks of a piece before it is rounded to segments: by the lengths on the device, as few as let
/// p.wanted_blocks thread blocks do all the work. All lanes of the calling warp get the answer.
__device__ __forceinline__ int common_piece(const IndexKernelParams& p) {
  if (p.splits == 1) return kWholePiece;
  const int lane = static_cast<int>(threadIdx.x % 32);
  int tiles = 0;
  int work = 0;
  int longest = 0;
  for (int64_t r = lane; r <= p.op.sequences.batch; r += 32) {
    const Request request = load_request(p.op.sequences, p.op.k_idx.num_rows, r);
    const auto own_tiles = static_cast<int>(p.tiles(request.num_rows));
    const int blocks = p.blocks(request.key_length);
    tiles += own_tiles;
    work += own_tiles * blocks;
    longest = own_tiles > 0 && blocks > longest ? blocks : longest;
  }
  return piece_size(p.wanted_blocks, p.even_splits, p.splits, __reduce_add_sync(~0u, tiles),
                    __reduce_add_sync(~0u, work), __reduce_max_sync(~0u, longest));
}

/// Pieces of the tiles of a request, at most.
__device__ __forceinline__ int most_pieces(const IndexKernelParams& p, const Request& request,
                                           int common) {
  const int blocks = p.blocks(request.key_length);
  return blocks > common ? (blocks + common - 1) / common : 1;
}

/// Tile `tile` of the request: queries [tile * tile_queries, + tile_queries).
__device__ __forceinline__ TilePieces tile_pieces(const IndexKernelParams& p,
                                                  const Request& request, int64_t tile,
                                                  int common) {
  const int64_t past = (tile + 1) << p.tile_shift;
  const int64_t last_row = (past < request.num_rows ? past : request.num_rows) - 1;
  const int64_t position = request.key_length - request.num_rows + last_row;
  const int blocks = p.blocks(request.key_length);
  TilePieces pieces = {0, 0, static_cast<int>(segment_blocks(blocks))};
  if (position >= 0) {
    pieces.end = (static_cast<int>(position) >> p.block_shift) + (p.scores_local() ? 1 : 0);
  }
  const int grain = p.op.lse_idx != nullptr ? pieces.segment : 1;
  pieces.size = (common + grain - 1) / grain * grain;
  return pieces;
}

/// Which rows and blocks a thread block works on.
struct IndexWork {
  int request;
  int first_key;
  int first_row;  // packed row t * Hkv + head of its row 0
  int first_position;
  int num_rows;  // 0: no work at all
  int segment;   // blocks of a segment of the LSE
  int alone;     // 1: no other thread block shares the tile
  int piece;     // number among those that do
  int begin;     // blocks [begin, end)
  int end;
};

/// The work of this thread block. All lanes of the calling warp get the answer.
__device__ __forceinline__ IndexWork find_work(const IndexKernelParams& p) {
  IndexWork work = {};
  const core::SequenceParams& sequences = p.op.sequences;
  const int common = common_piece(p);
  if (p.splits > 1 && blockIdx.x == 0 && threadIdx.x == 0) *p.common_piece = common;
  const TileLocation where = find_tile(blockIdx.x, sequences.batch + 1, [&](int64_t r) {
    const Request request = load_request(sequences, p.op.k_idx.num_rows, r);
    return p.tiles(request.num_rows) * most_pieces(p, request, common);
  });
  if (where.request < 0) return work;
  const Request request = load_request(sequences, p.op.k_idx.num_rows, where.request);
  const auto tiles = static_cast<uint32_t>(p.tiles(request.num_rows));
  const auto index = static_cast<uint32_t>(where.tile);  // piece by piece
  const int64_t tile = tiles - 1 - index % tiles;        // the last see most keys: they start first
  const auto piece = static_cast<int>(index / tiles);
  const TilePieces pieces = tile_pieces(p, request, tile, common);
  if (piece >= pieces.count()) return work;
  const int64_t skipped = tile << p.tile_shift;
  const int64_t queries_left = request.num_rows - skipped;
  const int64_t tile_queries = int64_t{1} << p.tile_shift;
  const int64_t num_queries = queries_left < tile_queries ? queries_left : tile_queries;
  work.request = static_cast<int>(where.request);
  work.first_key = static_cast<int>(request.first_key);
  work.first_row = static_cast<int>((request.first_row + skipped) << p.head_shift);
  work.first_position = static_cast<int>(request.position(request.first_row + skipped));
  work.num_rows = static_cast<int>(num_queries << p.head_shift);
  work.segment = pieces.segment;
  work.alone = pieces.count() == 1 ? 1 : 0;
  work.piece = piece;
  work.begin = piece * pieces.size;
  const int end = work.begin + pieces.size;
  work.end = end < pieces.end ? end : pieces.end;
  return work;
}

}  // namespace msa::cuda
