// The KL loss of the index branch with its value and both gradients, over listed blocks or over all
// visible tokens.
//
//   q [Tq, Hq, D], k, lse, q_idx [Tq, Hkv, Di], k_idx [Tk, Di], lse_idx  ->  loss, dq_idx, dk_idx
//   p = mean over the group of exp(scale q.k - lse)      r = exp(s - lse_idx), s = scale_idx dots
//   loss = coefficient / normaliser * sum of p (log p - (s - lse_idx))
//   dq_idx = c sum (r - p) k_idx      dk_idx = c sum (r - p) q_idx      c = scale_idx * coefficient
//                                                                           / normaliser
// A task is a part of a request (key_gradients.h) and one group. Panels of queries meet chunks of
// keys: dots of all heads become p, then the index dots become r - p, which goes through the two
// products of the gradients. (2 G D + 6 Di) FLOP and G + 1 exponentials for each query, group and
// token; p is never stored beyond a panel. Losses are added up in double, in the order of tasks.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kl_forward_backward.cpp"
#include "cpu/targets.h"
// Targets come first: this header includes the file once for each.
#include "hwy/foreach_target.h"

#include "cpu/gradient-inl.h"
#include "cpu/kl_forward_backward.h"
#include "cpu/ops.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

/// Queries of a tile that meet a chunk together.
struct KlPanel {
  size_t count = 0;
  int32_t query[kPanelRows];
  size_t visible[kPanelRows];
};

/// teacher += share * exp(scale * dot - lse).
HWY_INLINE void add_teacher_row(const float* dots, size_t visible, float scale, float lse,
                                float share, float* teacher) {
  const Floats d;
  const Vector scales = hn::Set(d, scale);
  const Vector lses = hn::Set(d, lse);
  const Vector shares = hn::Set(d, share);
  for (size_t i = 0; i < visible; i += kLanes) {
    const Vector weight = weight_of(hn::MulSub(hn::LoadU(d, dots + i), scales, lses));
    hn::StoreU(hn::MulAdd(weight, shares, hn::LoadU(d, teacher + i)), d, teacher + i);
  }
}

/// Dots of the index branch become r - p; returns the row's sum of p (log p - log r).
HWY_INLINE float compare_row(const float* teacher, float* student, size_t visible, float scale,
                             float lse) {
  const Floats d;
  const Vector scales = hn::Set(d, scale);
  const Vector lses = hn::Set(d, lse);
  Vector sum = hn::Zero(d);
  for (size_t i = 0; i < visible; i += kLanes) {
    const Vector p = hn::LoadU(d, teacher + i);
    const Vector log_r = hn::MulSub(hn::LoadU(d, student + i), scales, lses);
    const Vector term = hn::Mul(p, hn::Sub(hn::Log(d, p), log_r));
    // 0 log 0 = 0, also where log r is -inf. A NaN is not 0, though Ne is false for it on AVX.
    const auto counts = hn::AndNot(hn::Eq(p, hn::Zero(d)), hn::FirstN(d, visible - i));
    sum = hn::Add(sum, hn::IfThenElseZero(counts, term));
    hn::StoreU(hn::Sub(weight_of(log_r), p), d, student + i);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// scratch.teacher of the panel: all heads of its queries, kPanelRows rows of q at a time.
HWY_INLINE void find_teacher(const core::KlParams& p, const KlPanel& panel,
                             const KlScratch& scratch, size_t tokens) {
  const core::AttentionForwardParams& f = p.teacher;
  const int64_t group = f.group_size();
  const int64_t padded_dim = round_up(f.head_dim, kMaxLanes);
  const float share = 1.0f / static_cast<float>(group);
  std::memset(scratch.teacher, 0, panel.count * kChunkTokens * sizeof(float));
  const int64_t num_rows = static_cast<int64_t>(panel.count) * group;
  for (int64_t first = 0; first < num_rows; first += kPanelRows) {
    const auto rows = static_cast<size_t>(std::min(kPanelRows, num_rows - first));
    const float* q[kPanelRows];
    float* dots[kPanelRows];
    for (size_t r = 0; r < rows; ++r) {
      const int64_t n = first + static_cast<int64_t>(r);
      q[r] = scratch.q + (panel.query[n / group] * group + n % group) * padded_dim;
      dots[r] = scratch.dots + r * kChunkTokens;
    }
    const int64_t last = (first + static_cast<int64_t>(rows) - 1) / group;
    multiply(q, rows, scratch.keys, static_cast<size_t>(f.head_dim), padded_columns(tokens),
             panel.visible[last], dots);
    for (size_t r = 0; r < rows; ++r) {
      const int64_t n = first + static_cast<int64_t>(r);
      const int64_t query = n / group;
      add_teacher_row(dots[r], panel.visible[query], f.scale,
                      scratch.lse[panel.query[query] * group + n % group], share,
                      scratch.teacher + query * kChunkTokens);
    }
  }
}

/// Adds to dq_idx of the tile and to `dk_idx` [tokens][columns]; returns the panel's divergence.
inline HWY_NOINLINE double kl_panel(const core::KlParams& p, const KlPanel& panel,
                                    const KlScratch& scratch, size_t tokens, float* dk_idx) {
  const auto dim = static_cast<size_t>(p.index_dim);
  const int64_t padded_dim = round_up(p.index_dim, kMaxLanes);
  find_teacher(p, panel, scratch, tokens);
  const float* q_idx[kPanelRows];
  float* dq_idx[kPanelRows];
  float* student[kPanelRows];
  for (size_t r = 0; r < panel.count; ++r) {
    q_idx[r] = scratch.q_idx + panel.query[r] * padded_dim;
    dq_idx[r] = scratch.dq_idx + panel.query[r] * padded_dim;
    student[r] = scratch.student + r * kChunkTokens;
  }
  multiply(q_idx, panel.count, scratch.index_keys, dim, padded_columns(tokens),
           panel.visible[panel.count - 1], student);
  double divergence = 0;
  for (size_t r = 0; r < panel.count; ++r) {
    divergence += static_cast<double>(compare_row(scratch.teacher + r * kChunkTokens, student[r],
                                                  panel.visible[r], p.scale_idx,
                                                  scratch.lse_idx[panel.query[r]]));
  }
  const Chunk keys = {scratch.index_keys, scratch.index_rows, tokens, dim};
  add_weighted_values(student, panel.visible, panel.count, kOnes, keys, dq_idx);
  add_outer(scratch.student, q_idx, panel.visible, panel.count, padded_columns(dim), dk_idx,
            static_cast<size_t>(padded_dim));
  return divergence;
}

/// Rows of the tile as floats, both lse, and sums of 0.
HWY_INLINE void begin_kl_tile(const core::KlParams& p, const AttentionTile& tile,
                              const KlScratch& scratch) {
  const core::AttentionForwardParams& f = p.teacher;
  const int64_t group = f.group_size();
  const int64_t padded_dim = round_up(p.index_dim, kMaxLanes);
  for (int64_t n = 0; n < tile.num_queries; ++n) {
    const int64_t t = tile.first_row + n;
    for (int64_t h = 0; h < group; ++h) {
      const int64_t head = tile.kv_head * group + h;
      const int64_t row = n * group + h;
      load_row(f.q, f.q_dtype, t * f.q_token_stride + head * f.q_head_stride, f.head_dim,
               scratch.q + row * round_up(f.head_dim, kMaxLanes));
      scratch.lse[row] = p.lse.data[p.lse.offset(t, head)];
    }
    load_row(p.q_idx.data, p.q_idx.dtype, p.q_idx.offset(t, tile.kv_head), p.index_dim,
             scratch.q_idx + n * padded_dim);
    scratch.lse_idx[n] = p.lse_idx.data[p.lse_idx.offset(t, tile.kv_head)];
  }
  std::memset(scratch.dq_idx, 0,
              static_cast<size_t>(tile.num_queries * padded_dim) * sizeof(float));
}

HWY_INLINE double kl_chunk(const KlPart& part, const AttentionTile& tile, const KlScratch& scratch,
                           const int32_t* queries, int64_t num_queries, const KeyRange& keys) {
  const core::KlParams& p = *part.p;
  const core::AttentionForwardParams& f = p.teacher;
  const auto count = static_cast<size_t>(keys.tokens);
  int64_t* const index_offsets = scratch.offsets + kChunkTokens;
  fill_key_offsets(f.k, f.sequences, tile.request, tile.kv_head, keys.first, keys.tokens,
                   scratch.offsets);
  fill_key_offsets(p.k_idx, f.sequences, tile.request, 0, keys.first, keys.tokens, index_offsets);
  with_type(f.k.data, f.k.dtype, [&](const auto* k) HWY_ATTR {
    pack_transposed(k, scratch.offsets, count, static_cast<size_t>(f.head_dim), scratch.keys);
  });
  with_type(p.k_idx.data, p.k_idx.dtype, [&](const auto* k) HWY_ATTR {
    const auto dim = static_cast<size_t>(p.index_dim);
    pack_transposed(k, index_offsets, count, dim, scratch.index_keys);
    pack_rows(k, index_offsets, count, dim, scratch.index_rows);
  });
  float* const dk_idx = part.dk_idx.row(part.task.part, tile.kv_head,
                                        f.sequences.cu_seqlens_k[tile.request] + keys.first);
  double divergence = 0;
  KlPanel panel;
  for (int64_t n = 0; n < num_queries; ++n) {
    panel.query[panel.count] = queries[n];
    panel.visible[panel.count] = visible_tokens(tile, queries[n], keys);
    if (++panel.count == kPanelRows || n + 1 == num_queries) {
      divergence += kl_panel(p, panel, scratch, count, dk_idx);
      panel.count = 0;
    }
  }
  return divergence;
}

/// Returns the sum of p (log p - log r) over the part.
double kl_part(const KlPart& part, float factor, const KlScratch& scratch) {
  const core::KlParams& p = *part.p;
  const core::AttentionForwardParams& f = p.teacher;
  const GradientTask& task = part.task;
  clear_plane(part.dk_idx, task, f.sequences.cu_seqlens_k[task.request.index]);
  double divergence = 0;
  const int64_t num_tiles = divide_up(task.request.num_queries, part.tile_queries);
  for (int64_t n = task.part; n < num_tiles; n += task.num_parts) {
    const AttentionTile tile = gradient_tile(f, task, part.tile_queries, n);
    begin_kl_tile(p, tile, scratch);
    for_each_chunk(tile, scratch.queries, scratch.pairs,
                   [&](const int32_t* queries, int64_t count, const KeyRange& keys) HWY_ATTR {
                     divergence += kl_chunk(part, tile, scratch, queries, count, keys);
                   });
    for (int64_t row = 0; row < tile.num_queries; ++row) {
      store_row(scratch.dq_idx + row * round_up(p.index_dim, kMaxLanes), factor,
                static_cast<size_t>(p.index_dim), p.dq_idx.data, p.dq_idx.dtype,
                p.dq_idx.offset(tile.first_row + row, tile.kv_head));
    }
  }
  return divergence;
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa::cpu {
namespace {

HWY_EXPORT(kl_part);

struct Layout {
  int64_t* task_begin = nullptr;
  double* divergences = nullptr;  // of each task
  KeyPlanes dk_idx;
  unsigned char* threads = nullptr;  // scratch of the first thread
  int64_t thread_bytes = 0;
  int64_t scratch_queries = 1;
  size_t bytes = 0;
};

GradientPlan plan_of(const core::KlParams& p) {
  const core::AttentionForwardParams& f = p.teacher;
  const int64_t floats =
      f.group_size() * round_up(f.head_dim, kMaxLanes) + 2 * round_up(p.index_dim, kMaxLanes);
  return {floats * int64_t{sizeof(float)}, f.num_kv_heads, f.sequences.num_query_tokens};
}

Layout lay_out(const core::KlParams& p, int num_threads, void* workspace) {
  const core::AttentionForwardParams& f = p.teacher;
  const GradientPlan plan = plan_of(p);
  Layout layout;
  Arena arena(workspace);
  layout.task_begin = arena.take<int64_t>(f.sequences.batch + 1);
  layout.divergences = arena.take<double>(f.sequences.batch * f.num_kv_heads, plan.most_parts);
  layout.dk_idx =
      KeyPlanes::take(arena, plan, f.num_kv_heads, f.k.num_rows, round_up(p.index_dim, kMaxLanes));
  layout.scratch_queries = std::clamp<int64_t>(f.sequences.num_query_tokens, 1, plan.tile_queries);
  Arena scratch(nullptr);
  take_kl_scratch(p, scratch, layout.scratch_queries);
  layout.thread_bytes = static_cast<int64_t>(scratch.bytes());
  layout.threads = arena.take<unsigned char>(layout.thread_bytes, num_threads);
  layout.bytes = arena.bytes();
  return layout;
}

}  // namespace

size_t kl_forward_backward_workspace(const core::KlParams& p, int num_threads) {
  return lay_out(p, num_threads, nullptr).bytes;
}

void kl_forward_backward(const core::KlParams& p, const core::RunContext& run) {
  const core::AttentionForwardParams& f = p.teacher;
  const core::SequenceParams& sequences = f.sequences;
  const GradientPlan plan = plan_of(p);
  const Layout layout = lay_out(p, run.num_threads, run.workspace);
  const TaskTable tasks = gradient_tasks(sequences, plan, f.num_kv_heads, layout.task_begin);
  const double share = static_cast<double>(p.coefficient) / p.normaliser;
  const auto factor = static_cast<float>(static_cast<double>(p.scale_idx) * share);
  const auto kernel = HWY_DYNAMIC_DISPATCH(kl_part);
  (*run.parallel_for)(tasks.total(), [&](int64_t task, int worker) {
    Arena arena(layout.threads + worker * layout.thread_bytes);
    layout.divergences[task] =
        kernel({&p, gradient_task(sequences, plan, f.num_kv_heads, tasks, task), plan.tile_queries,
                layout.dk_idx},
               factor, take_kl_scratch(p, arena, layout.scratch_queries));
  });
  double loss = 0;
  for (int64_t task = 0; task < tasks.total(); ++task) loss += layout.divergences[task];
  *p.loss = static_cast<float>(loss * share);
  write_key_gradients({.planes = layout.dk_idx,
                       .to = p.dk_idx,
                       .dim = p.index_dim,
                       .factor = factor,
                       .over_heads = true},
                      sequences, plan, layout.task_begin, run);
  write_zero_rows(p.dq_idx, sequences.cu_seqlens_q[sequences.batch], sequences.num_query_tokens,
                  f.num_kv_heads, p.index_dim);
}

}  // namespace msa::cpu
#endif  // HWY_ONCE
