// What the decode kernels get. They take requests of at most 16 query rows, as many as fill one
// tile of the tensor cores; a row is found by its request and its place in it.
#pragma once

#include <cuda.h>

#include "core/params.h"
#include "cuda/device/layout.h"

namespace msa::cuda {

inline constexpr int kDecodeQueries = 16;     // of a request, at most
inline constexpr int kDecodeIndexRows = 64;   // queries x index heads of a request, at most
inline constexpr int kDecodeIndexStages = 5;  // of the ring of key blocks
inline constexpr int kDecodeMostRequests = 4096;
inline constexpr int kDecodeCluster = 8;     // thread blocks that share a query and its group
inline constexpr int kDecodeMostBlocks = 4;  // of a thread block: 32 / kDecodeCluster

inline constexpr int kDecodeDensePieces = 99;  // of a query's blocks in dense attention, at most
inline constexpr int kDecodeDenseBlocks = 4;   // of a piece, at least

struct DecodeIndexParams {
  core::IndexForwardParams op;
  int max_queries = 0;  // of a request
  int block_shift = 0;  // log2(B)
  int head_shift = 0;   // log2(Hkv)
  int64_t score_stride = 0;
  float* scores = nullptr;  // workspace [Tq * Hkv, score_stride], rows t * Hkv + head

  /// Blocks that are scored for a request: those before the local one of its last row, unless every
  /// row can take all that it sees.
  MSA_HOST_DEVICE int scored_blocks(int64_t num_rows, int64_t key_length) const {
    if (num_rows < 1 || num_rows > max_queries || key_length < 1) return 0;
    const int local = static_cast<int>((key_length - 1) >> block_shift);
    return local >= op.block_ids.top_k ? local : 0;
  }
};

struct DecodeAttentionParams {
  core::AttentionForwardParams op;
  int max_queries = 0;
  int block_shift = 0;    // log2(B)
  int group_shift = 0;    // log2(G)
  int stages = 1;         // blocks whose keys and values fit the shared memory at once
  bool pad_rows = false;  // write the rows past the last request, too
  // Dense attention: workspace, [most_pieces, Tq, Hq] of the following.
  int most_pieces = 0;
  float* partial = nullptr;       // [D]: output with weights 2^(logit - max2)
  float* partial_max2 = nullptr;  // largest base-two logit
  float* partial_sum = nullptr;   // sum of the weights
};
struct DecodeAttentionMaps {
  CUtensorMap k;
  CUtensorMap v;
};

}  // namespace msa::cuda
