// What crosses from an op to a backend: plain structs of pointers and strides, already checked and
// with every default filled in. All strides count elements; the last axis has stride 1.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "msa/index.h"
#include "msa/tensor.h"

namespace msa::core {

/// Requests, positions and pages; see msa/sequences.h.
struct SequenceParams {
  const int32_t* cu_seqlens_q = nullptr;  // [batch + 1]
  const int32_t* cu_seqlens_k = nullptr;  // [batch + 1], or null with pages
  const int32_t* page_table = nullptr;    // [batch, max_pages] with page_table_stride, or null
  const int32_t* kv_lens = nullptr;       // [batch], or null without pages
  int64_t page_table_stride = 0;
  int64_t max_pages = 0;
  int64_t num_pages = 0;  // physical pages: valid entries of the table are [0, num_pages)
  int64_t page_size = 0;  // tokens of a page; 0 without pages
  int64_t batch = 0;
  int64_t num_query_tokens = 0;  // Tq: rows of q; those past cu_seqlens_q[batch] are empty
  int64_t max_query_length = 0;  // most rows of a request; 0: not known

  bool paged() const { return page_table != nullptr; }
  int64_t query_length(int64_t request) const {
    return cu_seqlens_q[request + 1] - cu_seqlens_q[request];
  }
  int64_t key_length(int64_t request) const {
    return paged() ? kv_lens[request] : cu_seqlens_k[request + 1] - cu_seqlens_k[request];
  }
};

/// Where the vector of token j, head h of a request lies: see key_offset().
struct KeyParams {
  const void* data = nullptr;  // [Tk, heads, dim] or [num_pages, page_size, heads, dim]
  DType dtype = DType::kFloat32;
  int64_t page_stride = 0;  // 0 without pages
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  int64_t num_rows = 0;  // extent of the first axis: Tk, or num_pages
};

/// Offset in elements of token `token` of `request`, head `head`. Never call it past the length.
inline int64_t key_offset(const KeyParams& keys, const SequenceParams& sequences, int64_t request,
                          int64_t token, int64_t head) {
  if (!sequences.paged()) {
    return (sequences.cu_seqlens_k[request] + token) * keys.token_stride + head * keys.head_stride;
  }
  const int64_t page =
      sequences.page_table[request * sequences.page_table_stride + token / sequences.page_size];
  return page * keys.page_stride + (token % sequences.page_size) * keys.token_stride +
         head * keys.head_stride;
}

/// Block ids with the layout resolved into strides.
template <typename Pointer>
struct BlockIdParams {
  Pointer data = nullptr;  // int32 [Hkv, Tq, K] by strides, or null
  int64_t head_stride = 0;
  int64_t token_stride = 0;
  int64_t top_k = 0;
};

struct IndexForwardParams {
  const void* q_idx = nullptr;  // [Tq, Hkv, Di]
  DType q_dtype = DType::kFloat32;
  int64_t q_token_stride = 0;
  int64_t q_head_stride = 0;
  KeyParams k_idx;  // one head
  SequenceParams sequences;
  int64_t num_kv_heads = 0;  // Hkv
  int64_t index_dim = 0;     // Di
  int64_t block_size = 0;    // B
  float scale = 0;
  BlockIdParams<int32_t*> block_ids;  // null when only scores are wanted
  float* block_scores = nullptr;      // [Hkv, Tq, max_blocks], or null
  int64_t score_head_stride = 0;
  int64_t score_token_stride = 0;
  int64_t max_blocks = 0;
  float* lse_idx = nullptr;  // [Hkv, Tq], or null
  int64_t lse_head_stride = 0;
  int64_t lse_token_stride = 0;
  IndexLseScope lse_scope = IndexLseScope::kSelected;
  // index_candidates alone: only blocks [block_begin, block_end) are scored, and block_ids are
  // candidate lists with these scores, [Hkv, Tq, K] by strides.
  int64_t block_begin = 0;
  int64_t block_end = std::numeric_limits<int64_t>::max();
  float* candidate_scores = nullptr;
  int64_t candidate_head_stride = 0;
  int64_t candidate_token_stride = 0;
};

/// P candidate lists a row into one; see msa/index_parts.h.
struct MergeCandidatesParams {
  const int32_t* ids = nullptr;   // [P, Hkv, Tq, K]
  const float* scores = nullptr;  // [P, Hkv, Tq, K]
  std::array<int64_t, 3> id_strides{};
  std::array<int64_t, 3> score_strides{};
  int64_t num_parts = 0;
  int64_t num_kv_heads = 0;
  int64_t num_query_tokens = 0;
  int64_t top_k = 0;
  int32_t* merged_ids = nullptr;  // [Hkv, Tq, K]
  std::array<int64_t, 2> merged_id_strides{};
  float* merged_scores = nullptr;  // [Hkv, Tq, K]
  std::array<int64_t, 2> merged_score_strides{};
  BlockIdParams<int32_t*> block_ids;  // or null
};

/// The selection alone; see msa/select_blocks.h.
struct SelectBlocksParams {
  const float* scores = nullptr;  // [Hkv, Tq, max_blocks]
  int64_t score_head_stride = 0;
  int64_t score_token_stride = 0;
  int64_t num_kv_heads = 0;
  int64_t num_query_tokens = 0;
  int64_t max_blocks = 0;
  const int32_t* local_blocks = nullptr;  // [Tq], or null: all blocks of every row, none local
  BlockIdParams<int32_t*> block_ids;
};

/// Shared by the sparse and the dense op; block_ids.data is null in the dense one.
struct AttentionForwardParams {
  const void* q = nullptr;  // [Tq, Hq, D]
  DType q_dtype = DType::kFloat32;
  int64_t q_token_stride = 0;
  int64_t q_head_stride = 0;
  KeyParams k;  // Hkv heads
  KeyParams v;  // Hkv heads
  SequenceParams sequences;
  int64_t num_q_heads = 0;   // Hq
  int64_t num_kv_heads = 0;  // Hkv
  int64_t head_dim = 0;      // D
  int64_t block_size = 0;    // B; 0 in the dense op
  float scale = 0;
  BlockIdParams<const int32_t*> block_ids;
  void* out = nullptr;  // [Tq, Hq, D], q's type
  int64_t out_token_stride = 0;
  int64_t out_head_stride = 0;
  float* lse = nullptr;  // [Tq, Hq], or null
  int64_t lse_token_stride = 0;
  int64_t lse_head_stride = 0;

  int64_t group_size() const { return num_q_heads / num_kv_heads; }
};

/// A view with two axes of any stride before its last of stride 1.
template <typename Pointer>
struct RowsParams {
  Pointer data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  int64_t offset(int64_t token, int64_t head) const {
    return token * token_stride + head * head_stride;
  }
};

struct MergeStatesParams {
  RowsParams<const void*> out[2];   // [Tq, Hq, D]
  RowsParams<const float*> lse[2];  // [Tq, Hq]
  int64_t num_query_tokens = 0;
  int64_t num_q_heads = 0;
  int64_t head_dim = 0;
  RowsParams<void*> merged_out;   // [Tq, Hq, D]
  RowsParams<float*> merged_lse;  // [Tq, Hq], or null
};

/// One kind of vector on its way into the cache or inside it.
struct CacheParams {
  RowsParams<const void*> rows;  // new tokens [Tq, heads, dim]; not used by copy_pages
  void* data = nullptr;          // [num_pages, B, heads, dim], or null when not given
  DType dtype = DType::kFloat32;
  int64_t page_stride = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  int64_t num_heads = 0;
  int64_t dim = 0;
};

struct CacheAppendParams {
  CacheParams caches[3];  // K, V, index-K
  SequenceParams sequences;
};

struct CopyPagesParams {
  CacheParams caches[3];           // K, V, index-K
  const int32_t* pages = nullptr;  // [num_copies, 2] by stride
  int64_t pages_stride = 0;
  int64_t num_copies = 0;
  int64_t num_pages = 0;
  int64_t page_size = 0;
};

/// Shared by the sparse and the dense op. The forward's out and lse are inputs here.
struct AttentionBackwardParams {
  AttentionForwardParams forward;
  RowsParams<const void*> out;    // [Tq, Hq, D]
  RowsParams<const float*> lse;   // [Tq, Hq]
  RowsParams<const void*> dout;   // [Tq, Hq, D]
  RowsParams<const float*> dlse;  // [Tq, Hq], or null
  RowsParams<void*> dq;           // [Tq, Hq, D]
  RowsParams<void*> dk;           // [Tk, Hkv, D]
  RowsParams<void*> dv;           // [Tk, Hkv, D]
};

struct KlParams {
  AttentionForwardParams teacher;  // q, k, sequences, scale; ids are null in warm-up; no v, no out
  RowsParams<const float*> lse;    // [Tq, Hq]
  RowsParams<const void*> q_idx;   // [Tq, Hkv, Di]
  KeyParams k_idx;                 // [Tk, Di]
  RowsParams<const float*> lse_idx;  // [Hkv, Tq]: head_stride for Hkv
  int64_t index_dim = 0;
  float scale_idx = 0;
  float coefficient = 1;
  double normaliser = 1;
  float* loss = nullptr;     // [1]
  RowsParams<void*> dq_idx;  // [Tq, Hkv, Di]
  RowsParams<void*> dk_idx;  // [Tk, 1, Di]
};

/// The four recalls in the order of RecallViews. A null pointer is an output that is not wanted.
struct RecallParams {
  static constexpr int kNumRecalls = 4;
  AttentionForwardParams attention;      // q, k, sequences, scale, block ids; no v, no outputs
  RowsParams<float*> rows[kNumRecalls];  // [Hkv, Tq]: head_stride for Hkv
  float* means[kNumRecalls] = {};        // [1]
};

}  // namespace msa::core
