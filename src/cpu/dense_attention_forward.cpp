// Dense attention: exact softmax over all visible tokens.
//
//   q [Tq, Hq, D], k and v by pages or packed  ->  out [Tq, Hq, D], lse [Tq, Hq]
//
// Prefill: tasks are tiles of up to 512 rows (queries x heads of a group); each walks its keys in
// chunks of 128 tokens, packs them once, and runs the two products and the softmax between them
// (attend-inl.h). 4 D FLOP for each row and token against 1/512 of the packing: bound by the FMA
// units. Decode: tasks are splits of the keys (schedule.h); a split reads its part of the cache
// once for all heads of the group: bound by memory, 4 D bytes for each token and key-value head in
// bfloat16. Source: the online softmax of FlashAttention (arXiv 2205.14135).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/dense_attention_forward.cpp"
#include "cpu/targets.h"
// Targets come first: this header includes the file once for each.
#include "hwy/foreach_target.h"

#include "cpu/attend-inl.h"
#include "cpu/ops.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

void dense_tile(const AttentionTile& tile, const AttentionScratch& scratch) {
  const core::AttentionForwardParams& p = *tile.p;
  const int64_t group = p.group_size();
  begin_tile(tile, scratch);
  for (int64_t n = 0; n < tile.num_queries; ++n) scratch.queries[n] = static_cast<int32_t>(n);
  for (int64_t first = tile.key_begin; first < tile.key_end; first += kChunkTokens) {
    const int64_t skipped = std::max<int64_t>(0, first - tile.first_position);
    if (skipped >= tile.num_queries) break;
    attend_chunk(tile, scratch, scratch.queries + skipped, tile.num_queries - skipped,
                 {first, std::min(kChunkTokens, tile.key_end - first)});
  }
  if (!tile.finish) return;
  for (int64_t n = 0; n < tile.num_queries * group; ++n) {
    finish_row(p, tile.first_row + n / group, tile.kv_head * group + n % group,
               tile.first_position + n / group >= 0,
               scratch.out + n * round_up(p.head_dim, kMaxLanes), scratch.state[n]);
  }
}

/// Merges the partial results of a row, in ascending order of the splits, and writes it.
void merge_dense_row(const core::AttentionForwardParams& p, int64_t packed_row, int64_t head,
                     bool saw_any, const AttentionScratch* splits, int64_t num_splits,
                     int64_t row) {
  const Floats d;
  const int64_t padded_dim = round_up(p.head_dim, kMaxLanes);
  RowState all = {kMinusInfinity, 0.0f};
  for (int64_t s = 0; s < num_splits; ++s) {
    all.maximum = std::max(all.maximum, splits[s].state[row].maximum);
  }
  const float origin = all.maximum == kMinusInfinity ? 0.0f : all.maximum;
  const float scale_log2 = p.scale * std::numbers::log2e_v<float>;
  float* const sums = splits[0].out + row * padded_dim;
  for (int64_t s = 0; s < num_splits; ++s) {
    const RowState& state = splits[s].state[row];
    const Vector weight = exp2_nonpositive(hn::Set(d, (state.maximum - origin) * scale_log2));
    all.sum += hn::GetLane(weight) * state.sum;
    const float* part = splits[s].out + row * padded_dim;
    for (int64_t c = 0; c < padded_dim; c += static_cast<int64_t>(kLanes)) {
      const Vector before = s == 0 ? hn::Zero(d) : hn::LoadU(d, sums + c);
      hn::StoreU(hn::MulAdd(weight, hn::LoadU(d, part + c), before), d, sums + c);
    }
  }
  finish_row(p, packed_row, head, saw_any, sums, all);
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa::cpu {
namespace {

HWY_EXPORT(dense_tile);
HWY_EXPORT(merge_dense_row);

constexpr int64_t kTileRows = 512;

struct Layout {
  int64_t tile_queries = 0;    // largest
  int64_t partial_floats = 0;  // for the partial results in flight
  int64_t* task_begin = nullptr;
  int64_t* slot_begin = nullptr;
  float* partials = nullptr;
  void* threads = nullptr;  // scratch of the first thread
  int64_t thread_bytes = 0;
  size_t bytes = 0;
};

int64_t partial_floats_per_query(const core::AttentionForwardParams& p) {
  return p.num_q_heads * (round_up(p.head_dim, kMaxLanes) + 2);
}

Layout lay_out(const core::AttentionForwardParams& p, int num_threads, void* workspace) {
  Layout layout;
  Arena arena(workspace);
  layout.tile_queries = std::max<int64_t>(1, kTileRows / p.group_size());
  layout.tile_queries =
      std::min(layout.tile_queries, std::max<int64_t>(1, p.sequences.num_query_tokens));
  const auto float_bytes = static_cast<int64_t>(sizeof(float));
  layout.partial_floats =
      partial_capacity(p.sequences.num_query_tokens, partial_floats_per_query(p) * float_bytes) /
      float_bytes;
  layout.task_begin = arena.take<int64_t>(p.sequences.batch + 1);
  layout.slot_begin = arena.take<int64_t>(p.sequences.batch + 1);
  layout.partials = arena.take<float>(layout.partial_floats);
  Arena scratch(nullptr);
  take_attention_scratch(p, scratch, std::max(layout.tile_queries, kMaxSplitQueries));
  layout.thread_bytes = static_cast<int64_t>(scratch.bytes());
  layout.threads = arena.take<unsigned char>(layout.thread_bytes, num_threads);
  layout.bytes = arena.bytes();
  return layout;
}

AttentionScratch scratch_of(const core::AttentionForwardParams& p, const Layout& layout,
                            int worker) {
  Arena arena(static_cast<unsigned char*>(layout.threads) + worker * layout.thread_bytes);
  return take_attention_scratch(p, arena, std::max(layout.tile_queries, kMaxSplitQueries));
}

/// Requests with one split: tiles of queries.
void run_tiles(const core::AttentionForwardParams& p, const core::RunContext& run,
               const Layout& layout) {
  const int64_t size =
      tile_queries(p.sequences, layout.tile_queries, p.num_kv_heads, run.num_threads);
  TaskTable tasks(layout.task_begin, 0);
  for (int64_t r = 0; r < p.sequences.batch; ++r) {
    const Request request = request_at(p.sequences, r);
    const bool here = num_splits(request, kChunkTokens) == 1;
    tasks.append(here ? divide_up(request.num_queries, size) * p.num_kv_heads : 0);
  }
  const auto kernel = HWY_DYNAMIC_DISPATCH(dense_tile);
  (*run.parallel_for)(tasks.total(), [&](int64_t task, int worker) {
    int64_t within = 0;
    const Request request = request_at(p.sequences, tasks.find(task, &within));
    // The last tiles see the most keys: they go first.
    const int64_t tile = divide_up(request.num_queries, size) - 1 - within / p.num_kv_heads;
    const int64_t num_queries = std::min(size, request.num_queries - tile * size);
    const int64_t first_position = request.first_position() + tile * size;
    kernel({.p = &p,
            .request = request.index,
            .first_row = request.first_row + tile * size,
            .num_queries = num_queries,
            .first_position = first_position,
            .kv_head = within % p.num_kv_heads,
            .key_begin = 0,
            .key_end = std::max<int64_t>(0, first_position + num_queries),
            .finish = true},
           scratch_of(p, layout, worker));
  });
}

/// Where split `split` of a request and key-value head leaves its sums and states.
struct PartialSlots {
  const core::AttentionForwardParams& p;
  float* first;
  int64_t num_splits;
  int64_t rows;
  float* begin(int64_t kv_head, int64_t split) const {
    const int64_t floats = rows * (round_up(p.head_dim, kMaxLanes) + 2);
    return first + (kv_head * num_splits + split) * floats;
  }
  void place(int64_t kv_head, int64_t split, AttentionScratch& scratch) const {
    scratch.out = begin(kv_head, split);
    scratch.state =
        reinterpret_cast<RowState*>(scratch.out + rows * round_up(p.head_dim, kMaxLanes));
  }
};

/// One wave of split requests: [first, last), as many as the partial results have room for.
void run_wave(const core::AttentionForwardParams& p, const core::RunContext& run,
              const Layout& layout, int64_t first, int64_t last) {
  TaskTable tasks(layout.task_begin, first);
  int64_t used = 0;
  for (int64_t r = first; r < last; ++r) {
    const Request request = request_at(p.sequences, r);
    const int64_t splits = num_splits(request, kChunkTokens);
    layout.slot_begin[r - first] = used;
    used += splits > 1 ? splits * request.num_queries * partial_floats_per_query(p) : 0;
    tasks.append(splits > 1 ? splits * p.num_kv_heads : 0);
  }
  const auto slots_of = [&](const Request& request) {
    return PartialSlots{p, layout.partials + layout.slot_begin[request.index - first],
                        num_splits(request, kChunkTokens), request.num_queries * p.group_size()};
  };
  const auto kernel = HWY_DYNAMIC_DISPATCH(dense_tile);
  (*run.parallel_for)(tasks.total(), [&](int64_t task, int worker) {
    int64_t within = 0;
    const Request request = request_at(p.sequences, tasks.find(task, &within));
    const PartialSlots slots = slots_of(request);
    const int64_t tokens = split_tokens(request.num_keys, kChunkTokens);
    const int64_t split = within / p.num_kv_heads;
    const int64_t kv_head = within % p.num_kv_heads;
    AttentionScratch scratch = scratch_of(p, layout, worker);
    slots.place(kv_head, split, scratch);
    kernel({.p = &p,
            .request = request.index,
            .first_row = request.first_row,
            .num_queries = request.num_queries,
            .first_position = request.first_position(),
            .kv_head = kv_head,
            .key_begin = split * tokens,
            .key_end = std::min(request.num_keys, (split + 1) * tokens),
            .finish = false},
           scratch);
  });
  TaskTable merges(layout.task_begin, first);
  for (int64_t r = first; r < last; ++r) {
    const Request request = request_at(p.sequences, r);
    merges.append(num_splits(request, kChunkTokens) > 1 ? p.num_kv_heads : 0);
  }
  const auto merge = HWY_DYNAMIC_DISPATCH(merge_dense_row);
  (*run.parallel_for)(merges.total(), [&](int64_t task, int) {
    int64_t kv_head = 0;
    const Request request = request_at(p.sequences, merges.find(task, &kv_head));
    const PartialSlots slots = slots_of(request);
    AttentionScratch parts[kMaxSplits];
    for (int64_t s = 0; s < slots.num_splits; ++s) slots.place(kv_head, s, parts[s]);
    const int64_t group = p.group_size();
    for (int64_t n = 0; n < slots.rows; ++n) {
      merge(p, request.first_row + n / group, kv_head * group + n % group,
            request.first_position() + n / group >= 0, parts, slots.num_splits, n);
    }
  });
}

void run_splits(const core::AttentionForwardParams& p, const core::RunContext& run,
                const Layout& layout) {
  const auto need = [&p](const Request& request) {
    const int64_t splits = num_splits(request, kChunkTokens);
    return splits > 1 ? splits * request.num_queries * partial_floats_per_query(p) : 0;
  };
  for_each_wave(p.sequences, layout.partial_floats, need,
                [&](int64_t first, int64_t last) { run_wave(p, run, layout, first, last); });
}

}  // namespace

size_t dense_attention_forward_workspace(const core::AttentionForwardParams& p, int num_threads) {
  return lay_out(p, num_threads, nullptr).bytes;
}

void dense_attention_forward(const core::AttentionForwardParams& p, const core::RunContext& run) {
  const Layout layout = lay_out(p, run.num_threads, run.workspace);
  run_tiles(p, run, layout);
  run_splits(p, run, layout);
  write_empty_attention_rows(p, p.sequences.cu_seqlens_q[p.sequences.batch],
                             p.sequences.num_query_tokens);
}

}  // namespace msa::cpu
#endif  // HWY_ONCE
