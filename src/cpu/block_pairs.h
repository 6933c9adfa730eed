// The reverse index of a tile: which queries chose which block.
//
// The lists of a tile's queries become (block, query) pairs, sorted by block and then by query, so
// that a block is packed once and attended by all queries that chose it. Repeats are dropped, and
// ids without a visible token ignored, as the contract asks. A radix sort in the workspace: its
// memory follows from the tile and K, not from the length of the context.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/params.h"

namespace msa::cpu {

struct BlockPair {
  int32_t block;
  int32_t query;
};

inline constexpr int kRadixBits = 11;
inline constexpr int64_t kRadixSize = int64_t{1} << kRadixBits;

struct PairBuffers {
  BlockPair* pairs;    // [queries of a tile * K]
  BlockPair* other;    // [queries of a tile * K]
  int32_t* histogram;  // [kRadixSize]
};

/// Stable, so equal blocks keep their queries in ascending order. The result may lie in either
/// buffer.
inline const BlockPair* sort_pairs(const PairBuffers& buffers, int64_t count, int32_t largest) {
  BlockPair* from = buffers.pairs;
  BlockPair* to = buffers.other;
  for (int shift = 0; shift == 0 || (int64_t{largest} >> shift) != 0; shift += kRadixBits) {
    const auto digit = [shift](const BlockPair& pair) {
      return (pair.block >> shift) & static_cast<int32_t>(kRadixSize - 1);
    };
    std::memset(buffers.histogram, 0, static_cast<size_t>(kRadixSize) * sizeof(int32_t));
    for (int64_t n = 0; n < count; ++n) ++buffers.histogram[digit(from[n])];
    int32_t begin = 0;
    for (int64_t n = 0; n < kRadixSize; ++n) {
      begin += std::exchange(buffers.histogram[n], begin);
    }
    for (int64_t n = 0; n < count; ++n) to[buffers.histogram[digit(from[n])]++] = from[n];
    std::swap(from, to);
  }
  return from;
}

/// Pairs of queries at positions first_position + [0, num_queries), sorted, without repeats.
/// Returns the sorted pairs and sets their count.
inline const BlockPair* collect_pairs(const core::AttentionForwardParams& p, int64_t first_row,
                                      int64_t first_position, int64_t num_queries, int64_t kv_head,
                                      const PairBuffers& buffers, int64_t* num_pairs) {
  int64_t count = 0;
  int32_t largest = 0;
  for (int64_t n = 0; n < num_queries; ++n) {
    const int64_t position = first_position + n;
    if (position < 0) continue;
    const int32_t* ids = p.block_ids.data + kv_head * p.block_ids.head_stride +
                         (first_row + n) * p.block_ids.token_stride;
    const auto local = static_cast<int32_t>(position / p.block_size);
    for (int64_t k = 0; k < p.block_ids.top_k && ids[k] != -1; ++k) {
      if (ids[k] < 0 || ids[k] > local) continue;
      buffers.pairs[count++] = {ids[k], static_cast<int32_t>(n)};
      largest = std::max(largest, ids[k]);
    }
  }
  const BlockPair* sorted = sort_pairs(buffers, count, largest);
  BlockPair* unique = sorted == buffers.pairs ? buffers.pairs : buffers.other;
  int64_t kept = 0;
  for (int64_t n = 0; n < count; ++n) {
    const bool repeat = kept > 0 && unique[kept - 1].block == unique[n].block &&
                        unique[kept - 1].query == unique[n].query;
    if (!repeat) unique[kept++] = unique[n];
  }
  *num_pairs = kept;
  return unique;
}

}  // namespace msa::cpu
