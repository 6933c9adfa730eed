// How the packed rows of a batch map to requests, positions and keys.
//
// Queries of all requests are packed one after another: request r owns rows
// [cu_seqlens_q[r], cu_seqlens_q[r+1]) of q. Row t of its q_len rows stands at position
// i = k_len - q_len + t (the bottom-right rule): its keys already include the current tokens.
// A row with i < 0, and every row past cu_seqlens_q[batch], is empty: ids -1, out 0, lse -inf.
//
// Keys are either packed the same way (cu_seqlens_k) or live in pages (page_table and kv_lens).
// A page holds exactly one block of B tokens; logical block b of request r is physical page
// page_table[r, b]. Pages may be in any order and shared by requests. Entries of the table past
// ceil(k_len / B) are never read, and what lies in unused slots never reaches a result.
//
// All four are int32. On the GPU they are device arrays that the kernels read; only their shapes
// are used to size workspace, so one captured call serves lengths and tables that change.
#pragma once

#include "msa/tensor.h"

namespace msa {

struct Sequences {
  Tensor cu_seqlens_q;  ///< int32 [batch + 1]
  Tensor cu_seqlens_k;  ///< int32 [batch + 1]; absent with pages
  Tensor page_table;    ///< int32 [batch, max_pages]; absent without pages
  Tensor kv_lens;       ///< int32 [batch]; absent without pages
};

/// Order of the axes of block ids. It is said, never guessed from a shape.
enum class BlockIdLayout : int32_t {
  kHeadMajor = 0,   ///< [Hkv, T, K]
  kTokenMajor = 1,  ///< [T, Hkv, K]
};

/// Scratch memory that the caller owns; 64-byte aligned. One for each call in flight.
struct Workspace {
  void* data = nullptr;
  size_t bytes = 0;
  /// The cuda backend's cudaStream_t; null is the default stream. Other backends ignore it.
  void* stream = nullptr;
};

}  // namespace msa
