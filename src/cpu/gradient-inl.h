// What the training ops share inside the kernels: rows as padded floats, weights from a stored lse,
// and the walk over the chunks of keys that a tile's queries read.
#if defined(MSA_CPU_GRADIENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_CPU_GRADIENT_INL_H_
#undef MSA_CPU_GRADIENT_INL_H_
#else
#define MSA_CPU_GRADIENT_INL_H_
#endif

#include <algorithm>
#include <numbers>

#include "cpu/attend-inl.h"
#include "cpu/block_pairs.h"
#include "cpu/key_gradients.h"
#include "cpu/outer-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

/// For sums that only grow: add_weighted_values with nothing to rescale.
constexpr float kOnes[kPanelRows] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/// One row as floats, 0 past its dims.
HWY_INLINE void load_row(const void* data, DType dtype, int64_t offset, int64_t dim, float* to) {
  const int64_t padded_dim = round_up(dim, kMaxLanes);
  std::memset(to + dim, 0, static_cast<size_t>(padded_dim - dim) * sizeof(float));
  with_type(data, dtype, [&](const auto* from) HWY_ATTR {
    convert(from + offset, static_cast<size_t>(dim), to);
  });
}

/// exp(scale * dot - lse) of that logarithm. An lse that does not cover the tokens may ask for
/// weights above 1; they end at 2^126.
HWY_INLINE Vector weight_of(Vector logarithm) {
  const Floats d;
  const Vector power = hn::Mul(logarithm, hn::Set(d, std::numbers::log2e_v<float>));
  return exp2_nonpositive(hn::Min(hn::Set(d, 126.0f), power));  // NaN last: it stays
}

/// Calls `chunk(queries, count, keys)` for each chunk of keys in ascending order with the queries
/// of the tile, ascending, that read it and see its first key. Sparse: chunks of the listed blocks.
template <class Body>
HWY_INLINE void for_each_chunk(const AttentionTile& tile, int32_t* queries,
                               const PairBuffers& buffers, const Body& body) {
  const core::AttentionForwardParams& p = *tile.p;
  const auto walk = [&](int64_t count, int64_t begin, int64_t end) HWY_ATTR {
    int64_t skipped = 0;
    for (int64_t first = begin; first < end; first += kChunkTokens) {
      while (skipped < count && tile.first_position + queries[skipped] < first) ++skipped;
      if (skipped == count) break;
      body(queries + skipped, count - skipped,
           KeyRange{first, std::min(kChunkTokens, end - first)});
    }
  };
  if (p.block_size == 0) {
    for (int64_t n = 0; n < tile.num_queries; ++n) queries[n] = static_cast<int32_t>(n);
    walk(tile.num_queries, 0, tile.key_end);
    return;
  }
  int64_t num_pairs = 0;
  const BlockPair* pairs = collect_pairs(p, tile.first_row, tile.first_position, tile.num_queries,
                                         tile.kv_head, buffers, &num_pairs);
  int64_t end = 0;
  for (int64_t begin = 0; begin < num_pairs; begin = end) {
    const int64_t block = pairs[begin].block;
    end = begin;
    while (end < num_pairs && pairs[end].block == block) {
      queries[end - begin] = pairs[end].query;
      ++end;
    }
    walk(end - begin, block * p.block_size, std::min(tile.key_end, (block + 1) * p.block_size));
  }
}

/// Tokens of the chunk that a query sees.
HWY_INLINE size_t visible_tokens(const AttentionTile& tile, int32_t query, const KeyRange& keys) {
  return static_cast<size_t>(std::min(tile.first_position + query - keys.first + 1, keys.tokens));
}

/// Tile number `tile` of a request's tiles.
HWY_INLINE AttentionTile gradient_tile(const core::AttentionForwardParams& p,
                                       const GradientTask& task, int64_t tile_queries,
                                       int64_t tile) {
  const Request& request = task.request;
  const int64_t first = tile * tile_queries;
  const int64_t num_queries = std::min(tile_queries, request.num_queries - first);
  return {.p = &p,
          .request = request.index,
          .first_row = request.first_row + first,
          .num_queries = num_queries,
          .first_position = request.first_position() + first,
          .kv_head = task.kv_head,
          .key_begin = 0,
          .key_end = std::max<int64_t>(0, request.first_position() + first + num_queries),
          .finish = true};
}

/// The part's sums of the request's keys, before the first tile.
HWY_INLINE void clear_plane(const KeyPlanes& planes, const GradientTask& task, int64_t first_key) {
  std::memset(planes.row(task.part, task.kv_head, first_key), 0,
              static_cast<size_t>(task.request.num_keys * planes.columns) * sizeof(float));
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MSA_CPU_GRADIENT_INL_H_
