// Sparse attention: exact softmax over the visible tokens of the listed blocks.
//
//   q [Tq, Hq, D], k and v by pages or packed, ids [Hkv, Tq, K]  ->  out [Tq, Hq, D], lse [Tq, Hq]
//
// A task is a tile of queries and one key-value head. The tile's lists are turned around
// (block_pairs.h): for each block that anyone in the tile chose, its keys and values are packed
// once and attended by exactly the rows that chose it, wherever they stand. Blocks go by in
// ascending order, so each row sums in the order of its own list. 4 D FLOP for each row and token;
// packing a block costs as much as two or three rows, so tiles are as large as a second-level cache
// can hold their sums: up to 512 queries.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention_forward.cpp"
#include "cpu/targets.h"
// Targets come first: this header includes the file once for each.
#include "hwy/foreach_target.h"

#include "cpu/attend-inl.h"
#include "cpu/block_pairs.h"
#include "cpu/ops.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

void sparse_tile(const AttentionTile& tile, const AttentionScratch& scratch,
                 const PairBuffers& buffers) {
  const core::AttentionForwardParams& p = *tile.p;
  const int64_t group = p.group_size();
  begin_tile(tile, scratch);
  int64_t num_pairs = 0;
  const BlockPair* pairs = collect_pairs(p, tile.first_row, tile.first_position, tile.num_queries,
                                         tile.kv_head, buffers, &num_pairs);
  int64_t end = 0;
  for (int64_t begin = 0; begin < num_pairs; begin = end) {
    const int64_t block = pairs[begin].block;
    end = begin;
    while (end < num_pairs && pairs[end].block == block) {
      scratch.queries[end - begin] = pairs[end].query;
      ++end;
    }
    const int64_t block_end = std::min(tile.key_end, (block + 1) * p.block_size);
    int64_t skipped = 0;  // queries are ascending: those before a chunk come first
    for (int64_t first = block * p.block_size; first < block_end; first += kChunkTokens) {
      while (skipped < end - begin && tile.first_position + scratch.queries[skipped] < first) {
        ++skipped;
      }
      if (skipped == end - begin) break;
      attend_chunk(tile, scratch, scratch.queries + skipped, end - begin - skipped,
                   {first, std::min(kChunkTokens, block_end - first)});
    }
  }
  // A row saw something exactly when it is in a pair.
  for (int64_t n = 0; n < tile.num_queries; ++n) scratch.queries[n] = 0;
  for (int64_t n = 0; n < num_pairs; ++n) scratch.queries[pairs[n].query] = 1;
  for (int64_t n = 0; n < tile.num_queries * group; ++n) {
    finish_row(p, tile.first_row + n / group, tile.kv_head * group + n % group,
               scratch.queries[n / group] != 0, scratch.out + n * round_up(p.head_dim, kMaxLanes),
               scratch.state[n]);
  }
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa::cpu {
namespace {

HWY_EXPORT(sparse_tile);

constexpr int64_t kTileQueries = 512;
constexpr int64_t kTileSumBytes = int64_t{1} << 20;  // of the sums of a tile
constexpr int64_t kTilePairs = int64_t{1} << 16;

struct Layout {
  int64_t tile_queries = 0;  // largest
  int64_t* task_begin = nullptr;
  void* threads = nullptr;  // scratch of the first thread
  int64_t thread_bytes = 0;
  size_t bytes = 0;
};

PairBuffers take_pair_buffers(const core::AttentionForwardParams& p, Arena& arena,
                              int64_t tile_queries) {
  const int64_t pairs = tile_queries * p.block_ids.top_k;
  return {arena.take<BlockPair>(pairs), arena.take<BlockPair>(pairs),
          arena.take<int32_t>(kRadixSize)};
}

Layout lay_out(const core::AttentionForwardParams& p, int num_threads, void* workspace) {
  Layout layout;
  Arena arena(workspace);
  const int64_t query_bytes = p.group_size() * round_up(p.head_dim, kMaxLanes) * 4;
  layout.tile_queries = std::min({kTileQueries, kTileSumBytes / query_bytes,
                                  kTilePairs / std::max<int64_t>(1, p.block_ids.top_k),
                                  p.sequences.num_query_tokens});
  layout.tile_queries = std::max<int64_t>(1, layout.tile_queries);
  layout.task_begin = arena.take<int64_t>(p.sequences.batch + 1);
  Arena scratch(nullptr);
  take_attention_scratch(p, scratch, layout.tile_queries);
  take_pair_buffers(p, scratch, layout.tile_queries);
  layout.thread_bytes = static_cast<int64_t>(scratch.bytes());
  layout.threads = arena.take<unsigned char>(layout.thread_bytes, num_threads);
  layout.bytes = arena.bytes();
  return layout;
}

}  // namespace

size_t attention_forward_workspace(const core::AttentionForwardParams& p, int num_threads) {
  return lay_out(p, num_threads, nullptr).bytes;
}

void attention_forward(const core::AttentionForwardParams& p, const core::RunContext& run) {
  const Layout layout = lay_out(p, run.num_threads, run.workspace);
  const int64_t size =
      tile_queries(p.sequences, layout.tile_queries, p.num_kv_heads, run.num_threads);
  TaskTable tasks(layout.task_begin, 0);
  for (int64_t r = 0; r < p.sequences.batch; ++r) {
    tasks.append(divide_up(p.sequences.query_length(r), size) * p.num_kv_heads);
  }
  const auto kernel = HWY_DYNAMIC_DISPATCH(sparse_tile);
  (*run.parallel_for)(tasks.total(), [&](int64_t task, int worker) {
    int64_t within = 0;
    const Request request = request_at(p.sequences, tasks.find(task, &within));
    const int64_t first = within / p.num_kv_heads * size;
    Arena arena(static_cast<unsigned char*>(layout.threads) + worker * layout.thread_bytes);
    const AttentionScratch scratch = take_attention_scratch(p, arena, layout.tile_queries);
    kernel({.p = &p,
            .request = request.index,
            .first_row = request.first_row + first,
            .num_queries = std::min(size, request.num_queries - first),
            .first_position = request.first_position() + first,
            .kv_head = within % p.num_kv_heads,
            .key_begin = 0,
            .key_end = request.num_keys,
            .finish = true},
           scratch, take_pair_buffers(p, arena, layout.tile_queries));
  });
  write_empty_attention_rows(p, p.sequences.cu_seqlens_q[p.sequences.batch],
                             p.sequences.num_query_tokens);
}

}  // namespace msa::cpu
#endif  // HWY_ONCE
