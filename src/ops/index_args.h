// What index_forward and index_candidates check alike: queries, keys and sequences of the index
// branch.
#pragma once

#include "ops/attention_args.h"

namespace msa::ops {

template <typename Args>
core::IndexForwardParams fill_index_inputs(const char* op, const Args& args) {
  using core::check;
  const bool paged = args.sequences.page_table.present();
  core::check_tensor(op, "q_idx", args.q_idx, 3, kFloatTypes);
  core::check_tensor(op, "k_idx", args.k_idx, paged ? 3 : 2, kFloatTypes);
  core::IndexForwardParams p;
  p.num_kv_heads = args.q_idx.shape[1];
  p.index_dim = args.q_idx.shape[2];
  check(p.num_kv_heads > 0 && p.index_dim > 0, op,
        "q_idx has an empty axis: got {}, allowed at least 1 head of at least 1 dim",
        core::shown(args.q_idx));
  core::check_block_size(op, args.block_size);
  p.block_size = args.block_size;
  p.scale = core::check_scale(op, args.scale, p.index_dim);
  p.sequences = core::check_sequences(op, args.sequences, args.q_idx.shape[0], args.k_idx, "k_idx");
  if (paged) {
    core::check_shape(op, "k_idx", args.k_idx, {-1, p.block_size, p.index_dim});
  } else {
    core::check_shape(op, "k_idx", args.k_idx, {-1, p.index_dim});
  }
  p.q_idx = args.q_idx.data;
  p.q_dtype = args.q_idx.dtype;
  p.q_token_stride = args.q_idx.stride[0];
  p.q_head_stride = args.q_idx.stride[1];
  p.k_idx = core::key_params(args.k_idx, paged, false);
  return p;
}

/// The ids that an index op writes; K must be at least 1.
inline core::BlockIdParams<int32_t*> output_ids(const char* op, const char* name,
                                                const MutableTensor& ids, BlockIdLayout layout,
                                                int64_t num_kv_heads, int64_t num_tokens) {
  const auto params = block_id_params<int32_t*>(op, name, ids, layout, num_kv_heads, num_tokens);
  core::check(params.top_k > 0, op, "top-k is wrong: got 0, allowed 1 or more");
  return params;
}

inline Geometry geometry_of(const core::IndexForwardParams& p) {
  return {.num_kv_heads = p.num_kv_heads,
          .head_dim = p.index_dim,
          .block_size = p.block_size,
          .top_k = p.block_ids.top_k};
}

}  // namespace msa::ops
