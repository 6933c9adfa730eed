// What the attention ops check alike, forward and backward, sparse and dense: queries, keys,
// values, sequences and block ids.
#pragma once

#include "core/backend.h"
#include "core/check.h"

namespace msa::ops {

inline constexpr std::initializer_list<DType> kFloatTypes = {DType::kFloat32, DType::kBFloat16,
                                                             DType::kFloat16};

inline core::RunContext run_context(const Context& context, const Workspace& workspace) {
  return {.parallel_for = &context.parallel_for(),
          .num_threads = context.num_threads(),
          .stream = workspace.stream,
          .workspace = workspace.data};
}

/// Data and strides of a view [T, heads, dim] or [T, heads].
template <typename Pointer, typename View>
core::RowsParams<Pointer> rows_params(const View& view) {
  return {static_cast<Pointer>(view.data), view.dtype, view.stride[0], view.stride[1]};
}

/// q, k and the sequences; all argument structs have these fields under the same names.
template <typename Args>
core::AttentionForwardParams fill_queries_and_keys(const char* op, const Args& args) {
  using core::check;
  const bool paged = args.sequences.page_table.present();
  const int key_rank = paged ? 4 : 3;
  core::check_tensor(op, "q", args.q, 3, kFloatTypes);
  core::check_tensor(op, "k", args.k, key_rank, kFloatTypes);
  core::AttentionForwardParams p;
  p.num_q_heads = args.q.shape[1];
  p.head_dim = args.q.shape[2];
  p.num_kv_heads = args.k.shape[static_cast<size_t>(key_rank - 2)];
  check(p.num_q_heads > 0 && p.head_dim > 0, op,
        "q has an empty axis: got {}, allowed at least 1 head of at least 1 dim",
        core::shown(args.q));
  check(p.num_kv_heads > 0 && p.num_q_heads % p.num_kv_heads == 0, op,
        "heads do not form groups: got {} query heads on {} key-value heads, allowed a multiple",
        p.num_q_heads, p.num_kv_heads);
  p.scale = core::check_scale(op, args.scale, p.head_dim);
  p.sequences = core::check_sequences(op, args.sequences, args.q.shape[0], args.k, "k");
  if (paged) {
    core::check_shape(op, "k", args.k, {-1, p.sequences.page_size, p.num_kv_heads, p.head_dim});
  } else {
    core::check_shape(op, "k", args.k, {-1, p.num_kv_heads, p.head_dim});
  }
  p.q = args.q.data;
  p.q_dtype = args.q.dtype;
  p.q_token_stride = args.q.stride[0];
  p.q_head_stride = args.q.stride[1];
  p.k = core::key_params(args.k, paged, true);
  return p;
}

/// And v, which is shaped as k.
template <typename Args>
core::AttentionForwardParams fill_attention_inputs(const char* op, const Args& args) {
  const bool paged = args.sequences.page_table.present();
  core::check_tensor(op, "v", args.v, paged ? 4 : 3, kFloatTypes);
  core::AttentionForwardParams p = fill_queries_and_keys(op, args);
  if (paged) {
    core::check_shape(op, "v", args.v,
                      {args.k.shape[0], p.sequences.page_size, p.num_kv_heads, p.head_dim});
  } else {
    core::check_shape(op, "v", args.v, {args.k.shape[0], p.num_kv_heads, p.head_dim});
  }
  core::check(args.v.dtype == args.k.dtype, op, "v has the wrong type: got {}, allowed k's {}",
              dtype_name(args.v.dtype), dtype_name(args.k.dtype));
  p.v = core::key_params(args.v, paged, true);
  return p;
}

/// Lists of ids [Hkv, Tq, K] or [Tq, Hkv, K], read or written.
template <typename Pointer, typename View>
core::BlockIdParams<Pointer> block_id_params(const char* op, const char* name, const View& ids,
                                             BlockIdLayout layout, int64_t num_kv_heads,
                                             int64_t num_tokens) {
  const bool head_major = layout == BlockIdLayout::kHeadMajor;
  core::check(head_major || layout == BlockIdLayout::kTokenMajor, op,
              "block_id_layout is unknown: got {}, allowed 0 (head-major) or 1 (token-major)",
              static_cast<int32_t>(layout));
  core::check_tensor(op, name, ids, 3, {DType::kInt32});
  core::check_shape(
      op, name, ids,
      {head_major ? num_kv_heads : num_tokens, head_major ? num_tokens : num_kv_heads, -1});
  core::check(ids.shape[2] <= core::kMaxTopK, op, "top-k is wrong: got {}, allowed at most {}",
              ids.shape[2], core::kMaxTopK);
  return {static_cast<Pointer>(ids.data), ids.stride[head_major ? 0 : 1],
          ids.stride[head_major ? 1 : 0], ids.shape[2]};
}

/// block_size and the lists of ids of the sparse ops.
template <typename Args>
void fill_block_ids(const char* op, const Args& args, core::AttentionForwardParams& p) {
  core::check_block_size(op, args.block_size);
  core::check(!p.sequences.paged() || p.sequences.page_size == args.block_size, op,
              "pages must hold one block: got pages of {} tokens, allowed block_size = {}",
              p.sequences.page_size, args.block_size);
  p.block_size = args.block_size;
  p.block_ids = block_id_params<const int32_t*>(
      op, "block_ids", args.block_ids, args.block_id_layout, p.num_kv_heads, args.q.shape[0]);
}

inline Geometry geometry_of(const core::AttentionForwardParams& p) {
  return {.num_q_heads = p.num_q_heads,
          .num_kv_heads = p.num_kv_heads,
          .head_dim = p.head_dim,
          .block_size = p.block_size,
          .top_k = p.block_ids.top_k};
}

/// Contents of the sequence arrays where the host can read them.
inline void check_contents(const Context& context, const char* op,
                           const core::SequenceParams& sequences, int64_t num_key_rows) {
  if (context.backend() == Backend::kCuda) return;
  core::check_sequence_contents(op, sequences, num_key_rows);
}

}  // namespace msa::ops
