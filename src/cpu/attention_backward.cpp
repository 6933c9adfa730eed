// Gradients of attention, sparse and dense, in one pass: P is recomputed from the stored lse.
//
//   q, out, dout [Tq, Hq, D], k and v packed, lse [Tq, Hq]  ->  dq [Tq, Hq, D], dk, dv [Tk, Hkv, D]
//   P = exp(scale q.k - lse)   D_row = dout.out - dlse   dS = P * (dout.v - D_row)
//   dq = scale dS k            dk = scale sum dS^T q     dv = sum P^T dout
//
// A task is a part of a request (key_gradients.h) and one key-value head. It walks its tiles of
// queries; in each, every chunk of keys that anyone reads is packed once, and panels of the rows
// that read it go through five products: q.k and dout.v, dS k into the tile's dq, dS^T q and
// P^T dout into the part's plane. 10 D FLOP for each row and token, the least without storing P:
// two passes, one for dq and one for dk and dv, would need no planes and 14 D. Beside the products,
// a chunk costs three packings and 16 D bytes a token of sums read and written back.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention_backward.cpp"
#include "cpu/targets.h"
// Targets come first: this header includes the file once for each.
#include "hwy/foreach_target.h"

#include "cpu/attention_backward.h"
#include "cpu/gradient-inl.h"
#include "cpu/ops.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

/// Rows of a tile that meet a chunk together, in ascending order of their queries.
struct BackwardPanel {
  size_t count = 0;
  const float* q[kPanelRows];
  const float* dout[kPanelRows];
  float* dq[kPanelRows];
  float lse[kPanelRows];
  float mean[kPanelRows];
  size_t visible[kPanelRows];
};

/// Where the chunk's gradients are summed: [tokens][columns].
struct ChunkSums {
  float* dk;
  float* dv;
};

/// Dots q.k become P, dots dout.v become dS.
HWY_INLINE void differentiate_row(float* weights, float* differences, size_t visible, float scale,
                                  float lse, float mean) {
  const Floats d;
  const Vector scales = hn::Set(d, scale);
  const Vector lses = hn::Set(d, lse);
  const Vector means = hn::Set(d, mean);
  for (size_t i = 0; i < visible; i += kLanes) {
    const Vector weight = weight_of(hn::MulSub(hn::LoadU(d, weights + i), scales, lses));
    hn::StoreU(weight, d, weights + i);
    hn::StoreU(hn::Mul(weight, hn::Sub(hn::LoadU(d, differences + i), means)), d, differences + i);
  }
}

inline HWY_NOINLINE void backward_panel(const BackwardPanel& rows, const BackwardScratch& scratch,
                                        size_t tokens, size_t dim, float scale,
                                        const ChunkSums& sums) {
  float* weights[kPanelRows];
  float* differences[kPanelRows];
  for (size_t r = 0; r < rows.count; ++r) {
    weights[r] = scratch.weights + r * kChunkTokens;
    differences[r] = scratch.differences + r * kChunkTokens;
  }
  const size_t most = rows.visible[rows.count - 1];
  multiply(rows.q, rows.count, scratch.keys, dim, padded_columns(tokens), most, weights);
  multiply(rows.dout, rows.count, scratch.values, dim, padded_columns(tokens), most, differences);
  for (size_t r = 0; r < rows.count; ++r) {
    differentiate_row(weights[r], differences[r], rows.visible[r], scale, rows.lse[r],
                      rows.mean[r]);
  }
  const Chunk keys = {scratch.keys, scratch.key_rows, tokens, dim};
  add_weighted_values(differences, rows.visible, rows.count, kOnes, keys, rows.dq);
  const size_t stride = static_cast<size_t>(round_up(static_cast<int64_t>(dim), kMaxLanes));
  const size_t columns = padded_columns(dim);
  add_outer(scratch.differences, rows.q, rows.visible, rows.count, columns, sums.dk, stride);
  add_outer(scratch.weights, rows.dout, rows.visible, rows.count, columns, sums.dv, stride);
}

/// D_row of `count` rows of the tile from row `first` on, at most kLanes of them. The sum over dims
/// is the chain of FMA that makes dout . v (gemm-inl.h): where all weight lies on one token and out
/// is its value, dS is exactly 0 however large q and k are.
HWY_INLINE void find_means(const core::AttentionBackwardParams& p, const AttentionTile& tile,
                           const BackwardScratch& scratch, int64_t first, int64_t count) {
  const Floats d;
  const core::AttentionForwardParams& f = p.forward;
  const int64_t group = f.group_size();
  const auto dim = static_cast<size_t>(f.head_dim);
  int64_t dout_offsets[kLanes];
  int64_t out_offsets[kLanes];
  for (int64_t n = 0; n < count; ++n) {
    const int64_t t = tile.first_row + (first + n) / group;
    const int64_t h = tile.kv_head * group + (first + n) % group;
    dout_offsets[n] = p.dout.offset(t, h);
    out_offsets[n] = p.out.offset(t, h);
  }
  // The memory of packed keys and values is still free.
  with_type(p.dout.data, p.dout.dtype, [&](const auto* dout) HWY_ATTR {
    pack_transposed(dout, dout_offsets, static_cast<size_t>(count), dim, scratch.keys);
  });
  with_type(p.out.data, p.out.dtype, [&](const auto* out) HWY_ATTR {
    pack_transposed(out, out_offsets, static_cast<size_t>(count), dim, scratch.values);
  });
  Vector sum = hn::Zero(d);
  for (size_t n = 0; n < dim; ++n) {
    sum = hn::MulAdd(hn::LoadU(d, scratch.keys + n * kLanes),
                     hn::LoadU(d, scratch.values + n * kLanes), sum);
  }
  float sums[kLanes];
  hn::StoreU(sum, d, sums);
  for (int64_t n = 0; n < count; ++n) {
    const int64_t t = tile.first_row + (first + n) / group;
    const int64_t h = tile.kv_head * group + (first + n) % group;
    const float dlse = p.dlse.data == nullptr ? 0.0f : p.dlse.data[p.dlse.offset(t, h)];
    scratch.mean[first + n] = sums[n] - dlse;
    scratch.lse[first + n] = p.lse.data[p.lse.offset(t, h)];
  }
}

/// Rows of the tile as floats, lse, D_row, and sums of 0.
HWY_INLINE void begin_backward_tile(const core::AttentionBackwardParams& p,
                                    const AttentionTile& tile, const BackwardScratch& scratch) {
  const core::AttentionForwardParams& f = p.forward;
  const int64_t group = f.group_size();
  const int64_t padded_dim = round_up(f.head_dim, kMaxLanes);
  const int64_t rows = tile.num_queries * group;
  for (int64_t n = 0; n < rows; ++n) {
    const int64_t t = tile.first_row + n / group;
    const int64_t h = tile.kv_head * group + n % group;
    load_row(f.q, f.q_dtype, t * f.q_token_stride + h * f.q_head_stride, f.head_dim,
             scratch.q + n * padded_dim);
    load_row(p.dout.data, p.dout.dtype, p.dout.offset(t, h), f.head_dim,
             scratch.dout + n * padded_dim);
  }
  constexpr auto kStep = static_cast<int64_t>(kLanes);
  for (int64_t n = 0; n < rows; n += kStep) {
    find_means(p, tile, scratch, n, std::min(kStep, rows - n));
  }
  std::memset(scratch.dq, 0, static_cast<size_t>(rows * padded_dim) * sizeof(float));
}

HWY_INLINE void backward_chunk(const BackwardPart& part, const AttentionTile& tile,
                               const BackwardScratch& scratch, const int32_t* queries,
                               int64_t num_queries, const KeyRange& keys) {
  const core::AttentionForwardParams& f = part.p->forward;
  const int64_t group = f.group_size();
  const int64_t padded_dim = round_up(f.head_dim, kMaxLanes);
  const auto count = static_cast<size_t>(keys.tokens);
  const auto dim = static_cast<size_t>(f.head_dim);
  int64_t* const v_offsets = scratch.offsets + kChunkTokens;
  fill_key_offsets(f.k, f.sequences, tile.request, tile.kv_head, keys.first, keys.tokens,
                   scratch.offsets);
  fill_key_offsets(f.v, f.sequences, tile.request, tile.kv_head, keys.first, keys.tokens,
                   v_offsets);
  with_type(f.k.data, f.k.dtype, [&](const auto* k) HWY_ATTR {
    pack_transposed(k, scratch.offsets, count, dim, scratch.keys);
    pack_rows(k, scratch.offsets, count, dim, scratch.key_rows);
  });
  with_type(f.v.data, f.v.dtype, [&](const auto* v) HWY_ATTR {
    pack_transposed(v, v_offsets, count, dim, scratch.values);
  });
  const int64_t key = f.sequences.cu_seqlens_k[tile.request] + keys.first;
  const ChunkSums sums = {part.dk.row(part.task.part, tile.kv_head, key),
                          part.dv.row(part.task.part, tile.kv_head, key)};
  BackwardPanel panel;
  for (int64_t n = 0; n < num_queries; ++n) {
    const size_t visible = visible_tokens(tile, queries[n], keys);
    for (int64_t h = 0; h < group; ++h) {
      const int64_t row = queries[n] * group + h;
      panel.q[panel.count] = scratch.q + row * padded_dim;
      panel.dout[panel.count] = scratch.dout + row * padded_dim;
      panel.dq[panel.count] = scratch.dq + row * padded_dim;
      panel.lse[panel.count] = scratch.lse[row];
      panel.mean[panel.count] = scratch.mean[row];
      panel.visible[panel.count] = visible;
      if (++panel.count == kPanelRows) {
        backward_panel(panel, scratch, count, dim, f.scale, sums);
        panel.count = 0;
      }
    }
  }
  if (panel.count > 0) backward_panel(panel, scratch, count, dim, f.scale, sums);
}

void backward_part(const BackwardPart& part, const BackwardScratch& scratch) {
  const core::AttentionBackwardParams& p = *part.p;
  const core::AttentionForwardParams& f = p.forward;
  const GradientTask& task = part.task;
  const int64_t group = f.group_size();
  const int64_t first_key = f.sequences.cu_seqlens_k[task.request.index];
  clear_plane(part.dk, task, first_key);
  clear_plane(part.dv, task, first_key);
  const int64_t num_tiles = divide_up(task.request.num_queries, part.tile_queries);
  for (int64_t n = task.part; n < num_tiles; n += task.num_parts) {
    const AttentionTile tile = gradient_tile(f, task, part.tile_queries, n);
    begin_backward_tile(p, tile, scratch);
    for_each_chunk(tile, scratch.queries, scratch.pairs,
                   [&](const int32_t* queries, int64_t count, const KeyRange& keys)
                       HWY_ATTR { backward_chunk(part, tile, scratch, queries, count, keys); });
    for (int64_t row = 0; row < tile.num_queries * group; ++row) {
      store_row(scratch.dq + row * round_up(f.head_dim, kMaxLanes), f.scale,
                static_cast<size_t>(f.head_dim), p.dq.data, p.dq.dtype,
                p.dq.offset(tile.first_row + row / group, tile.kv_head * group + row % group));
    }
  }
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa::cpu {
namespace {

HWY_EXPORT(backward_part);

struct Layout {
  int64_t* task_begin = nullptr;
  KeyPlanes dk;
  KeyPlanes dv;
  unsigned char* threads = nullptr;  // scratch of the first thread
  int64_t thread_bytes = 0;
  int64_t scratch_queries = 1;
  size_t bytes = 0;
};

GradientPlan plan_of(const core::AttentionForwardParams& f) {
  const int64_t row_bytes = 3 * round_up(f.head_dim, kMaxLanes) * int64_t{sizeof(float)};
  return {f.group_size() * row_bytes, f.num_kv_heads, f.sequences.num_query_tokens};
}

Layout lay_out(const core::AttentionBackwardParams& p, int num_threads, void* workspace) {
  const core::AttentionForwardParams& f = p.forward;
  const GradientPlan plan = plan_of(f);
  const int64_t padded_dim = round_up(f.head_dim, kMaxLanes);
  Layout layout;
  Arena arena(workspace);
  layout.task_begin = arena.take<int64_t>(f.sequences.batch + 1);
  layout.dk = KeyPlanes::take(arena, plan, f.num_kv_heads, f.k.num_rows, padded_dim);
  layout.dv = KeyPlanes::take(arena, plan, f.num_kv_heads, f.k.num_rows, padded_dim);
  layout.scratch_queries = std::clamp<int64_t>(f.sequences.num_query_tokens, 1, plan.tile_queries);
  Arena scratch(nullptr);
  take_backward_scratch(f, scratch, layout.scratch_queries);
  layout.thread_bytes = static_cast<int64_t>(scratch.bytes());
  layout.threads = arena.take<unsigned char>(layout.thread_bytes, num_threads);
  layout.bytes = arena.bytes();
  return layout;
}

}  // namespace

size_t attention_backward_workspace(const core::AttentionBackwardParams& p, int num_threads) {
  return lay_out(p, num_threads, nullptr).bytes;
}

void attention_backward(const core::AttentionBackwardParams& p, const core::RunContext& run) {
  const core::AttentionForwardParams& f = p.forward;
  const core::SequenceParams& sequences = f.sequences;
  const GradientPlan plan = plan_of(f);
  const Layout layout = lay_out(p, run.num_threads, run.workspace);
  const TaskTable tasks = gradient_tasks(sequences, plan, f.num_kv_heads, layout.task_begin);
  const auto kernel = HWY_DYNAMIC_DISPATCH(backward_part);
  (*run.parallel_for)(tasks.total(), [&](int64_t task, int worker) {
    Arena arena(layout.threads + worker * layout.thread_bytes);
    kernel({&p, gradient_task(sequences, plan, f.num_kv_heads, tasks, task), plan.tile_queries,
            layout.dk, layout.dv},
           take_backward_scratch(f, arena, layout.scratch_queries));
  });
  const auto merge = [&](const KeyPlanes& planes, const core::RowsParams<void*>& to, float factor) {
    write_key_gradients({.planes = planes, .to = to, .dim = f.head_dim, .factor = factor},
                        sequences, plan, layout.task_begin, run);
  };
  merge(layout.dk, p.dk, f.scale);
  merge(layout.dv, p.dv, 1.0f);
  write_zero_rows(p.dq, sequences.cu_seqlens_q[sequences.batch], sequences.num_query_tokens,
                  f.num_q_heads, f.head_dim);
}

}  // namespace msa::cpu
#endif  // HWY_ONCE
