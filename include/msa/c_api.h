// msa.cpp in plain C99: every op of the library behind one door with a stable ABI.
//
// The ops, their formulas and tolerances are those of the C++ headers beside this one; each op
// below repeats its shapes and names its source, MiniMax Sparse Attention, arXiv 2606.13392, which
// docs/maths.md states in full. docs/c-api.md tells how to link, and what a version promises.
//
// Errors    Every function that can fail returns an msa_status; msa_last_error() has one line that
//           says what is wrong: "[op] what: got ..., allowed ...". Nothing is printed, nothing
//           exits, no C++ exception leaves. A refused call has written nothing but the message.
//           What cannot be checked: that pointers point to as much memory as shape and strides say.
// Memory    Belongs to the caller. Tensors are views; outputs may overlap neither each other nor an
//           input, but where it is said. Sizes are in elements, workspaces in bytes.
// Growth    Structs that begin with struct_size may get fields at their end. Set it to
//           sizeof(the struct) and what is not needed to 0, as {.struct_size = sizeof args} does;
//           a field of 0 is absent or has the default that is named. A newer library takes an
//           older struct, an older library a newer one whose additional fields are all 0.
//           The other structs (tensor, sequences, workspace, page_copy) never change.
// Threads   An msa_context is immutable: any number of threads may use one at once. All functions
//           without a handle are thread-safe; the last error is a thread's own. Two calls in
//           flight need workspaces and outputs of their own. msa_page_allocator says its own rule.
//           A handle may be destroyed when no call is using it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "msa/c_tensor.h"
#include "msa/version.h"

#if defined(__GNUC__)
#define MSA_API __attribute__((visibility("default")))
#else
#define MSA_API
#endif

// NOLINTBEGIN(readability-identifier-naming): names as C has them
#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ errors, version */

typedef int32_t msa_status;
enum {
  MSA_OK = 0,
  MSA_INVALID_ARGUMENT = 1,  ///< a shape, stride, type, length or pointer that is not allowed
  MSA_UNSUPPORTED = 2,       ///< a valid request that the backend has no implementation for
  MSA_OUT_OF_MEMORY = 3,     ///< memory, or pages of a page allocator, could not be had
  MSA_INTERNAL = 4           ///< a broken invariant inside the library: please report it
};

/// The message of the last call of this thread that did not return MSA_OK; "" before the first.
/// At most 1023 bytes, in memory of the thread: valid until the thread's next failing call.
MSA_API const char* msa_last_error(void);
/// "out of memory" for MSA_OUT_OF_MEMORY, and so on; "unknown status" for what is none.
MSA_API const char* msa_status_name(msa_status status);

/// The version of the library that runs, which may be newer than the header's MSA_VERSION_*:
/// 10000 * major + 100 * minor + patch, and "0.1.0".
MSA_API int32_t msa_version(void);
MSA_API const char* msa_version_string(void);

/* ------------------------------------------------------------------ sequences, workspace */

/// How packed rows map to requests, positions and keys. Request r owns rows [cu_seqlens_q[r],
/// cu_seqlens_q[r+1]) of the queries; row t of its q_len stands at position k_len - q_len + t. Rows
/// at positions below 0 and past the last request are empty: ids -1, out 0, lse -inf, gradients 0.
/// Keys are packed likewise (cu_seqlens_k), or lie in pages of one block each: logical block b of
/// request r is page page_table[r, b], and kv_lens are the lengths. All int32; on cuda in device
/// memory. No other entry of the table and no slot past a length is ever read.
typedef struct msa_sequences {
  msa_tensor cu_seqlens_q;  ///< [batch + 1]
  msa_tensor cu_seqlens_k;  ///< [batch + 1]; absent with pages
  msa_tensor page_table;    ///< [batch, max_pages]; absent without pages
  msa_tensor kv_lens;       ///< [batch]; absent without pages
} msa_sequences;

/// Order of the axes of block ids.
enum { MSA_HEAD_MAJOR = 0 /* [Hkv, T, K] */, MSA_TOKEN_MAJOR = 1 /* [T, Hkv, K] */ };

/// Scratch memory of the caller, aligned to 64 bytes, as large as the op's ..._workspace_size says.
typedef struct msa_workspace {
  void* data;
  size_t bytes;
  void* stream;  ///< the cuda backend's cudaStream_t; other backends ignore it
} msa_workspace;

/* ------------------------------------------------------------------ context */

typedef int32_t msa_backend;
enum {
  MSA_BACKEND_DEFAULT = 0,  ///< MSA_BACKEND=reference|cpu|cuda of the environment, else cpu
  MSA_BACKEND_REFERENCE = 1,
  MSA_BACKEND_CPU = 2,
  MSA_BACKEND_CUDA = 3
};

/// One task of a parallel loop; see msa_parallel_for. Never fails and never throws.
typedef void (*msa_task)(void* loop, int64_t task, int32_t worker);
/// The caller's thread pool: runs run(loop, task, worker) exactly once for each task in
/// [0, num_tasks), in any order, on any threads, and returns when all are done. worker is in
/// [0, num_threads), and no two tasks run at the same time with the same worker. What visibly
/// breaks this (a worker out of range, a task left out) fails the op that asked; its outputs are
/// then undefined. The pool is called by every thread that calls an op.
typedef void (*msa_parallel_for)(void* pool, int64_t num_tasks, msa_task run, void* loop);

typedef struct msa_context_options {
  uint64_t struct_size;
  msa_backend backend;            ///< default MSA_BACKEND_DEFAULT
  int32_t num_threads;            ///< 1 to 1024; default: MSA_THREADS, else all of the machine
  msa_parallel_for parallel_for;  ///< default: OpenMP
  void* pool;                     ///< first argument of parallel_for
} msa_context_options;

/// Which backend does the work, with which threads. Options may be null: all defaults. Fails with
/// MSA_UNSUPPORTED when the backend cannot run here; *context is then null.
typedef struct msa_context msa_context;
MSA_API msa_status msa_context_create(const msa_context_options* options, msa_context** context);
/// Null is allowed.
MSA_API void msa_context_destroy(msa_context* context);
/// MSA_BACKEND_REFERENCE, _CPU or _CUDA, and threads; 0 for a null context.
MSA_API msa_backend msa_context_backend(const msa_context* context);
MSA_API int32_t msa_context_num_threads(const msa_context* context);
/// "cpu: Highway AVX3, 2 threads"; lives as long as the context. "" for a null context.
MSA_API const char* msa_context_description(const msa_context* context);

typedef int32_t msa_op;
enum {
  MSA_INDEX_FORWARD = 0,
  MSA_ATTENTION_FORWARD = 1,
  MSA_DENSE_ATTENTION_FORWARD = 2,
  MSA_INDEX_CANDIDATES = 3,
  MSA_MERGE_CANDIDATES = 4,
  MSA_MERGE_STATES = 5,
  MSA_CACHE_APPEND = 6,
  MSA_COPY_PAGES = 7,
  MSA_ATTENTION_BACKWARD = 8,
  MSA_DENSE_ATTENTION_BACKWARD = 9,
  MSA_KL_FORWARD_BACKWARD = 10,
  MSA_RECALL = 11,
  MSA_SELECT_BLOCKS = 12
};
/// "index_forward" and so on; "unknown op" for what is none.
MSA_API const char* msa_op_name(msa_op op);

/// Sizes that decide whether a backend has a kernel; those that an op does not use stay 0.
typedef struct msa_geometry {
  uint64_t struct_size;
  int64_t num_q_heads;   ///< Hq
  int64_t num_kv_heads;  ///< Hkv = Hi
  int64_t head_dim;      ///< D; for the index ops Di
  int64_t block_size;    ///< B
  int64_t top_k;         ///< K
} msa_geometry;

/// The capability query: MSA_OK when the context's backend has the op for this geometry and type
/// of queries, else MSA_UNSUPPORTED, and the message says what it has.
MSA_API msa_status msa_supports(const msa_context* context, msa_op op, const msa_geometry* geometry,
                                msa_dtype dtype);

// Every op: `args` as documented; `workspace` may be null where no bytes are needed. The
// ..._workspace_size functions look at types, shapes and strides alone, so maxima can be passed to
// size one workspace for many calls. All return MSA_INVALID_ARGUMENT for what the contract does not
// allow, MSA_UNSUPPORTED for what the backend lacks, MSA_OUT_OF_MEMORY, or MSA_INTERNAL.
// Float tensors are float32, bfloat16 or float16; lse, scores and loss float32; ids int32.
// block_size is B in tokens, 1 to 2^31-1, and has no default.

/* ------------------------------------------------------------------ index branch */

/// Which tokens lse_idx runs over.
enum { MSA_LSE_SELECTED = 0 /* of the selected blocks */, MSA_LSE_VISIBLE = 1 /* all j <= i */ };

/// Scores blocks and picks K for each query i and group g:
///   s[g,i,j] = scale * (q_idx[i,g] . k_idx[j])        m[g,i,b] = max over visible j of b of s
/// the local block floor(i/B), and the K-1 others with the highest m; on a tie the lower id.
typedef struct msa_index_forward_args {
  uint64_t struct_size;
  msa_tensor q_idx;  ///< [Tq, Hkv, Di]
  msa_tensor k_idx;  ///< [Tk, Di], or with pages [num_pages, B, Di]
  msa_sequences sequences;
  int64_t block_size;
  float scale;               ///< finite and > 0; default 1 / sqrt(Di)
  int32_t block_id_layout;   ///< MSA_HEAD_MAJOR or MSA_TOKEN_MAJOR
  msa_tensor block_ids;      ///< output [Hkv, Tq, K] or [Tq, Hkv, K]: ascending, then -1; optional
  msa_tensor block_scores;   ///< optional output [Hkv, Tq, max_blocks]: m, -inf where nothing is
  msa_tensor lse_idx;        ///< optional output [Hkv, Tq]: log sum exp(s), natural
  int32_t lse_scope;         ///< MSA_LSE_SELECTED (needs block_ids) or MSA_LSE_VISIBLE
  int32_t max_query_length;  ///< most rows of a request (up to 16: cuda decodes); 0: not known
} msa_index_forward_args;
MSA_API msa_status msa_index_forward_workspace_size(const msa_context* context,
                                                    const msa_index_forward_args* args,
                                                    size_t* bytes);
MSA_API msa_status msa_index_forward(const msa_context* context, const msa_index_forward_args* args,
                                     const msa_workspace* workspace);

/// The index branch over blocks [block_begin, block_end) of every request: context parallelism. A
/// list has the local block first (id -1, score -inf if it is not in the part; else score +inf),
/// then the best others, best first, then -1 with -inf. Keys and pages outside are never read.
#define MSA_ALL_BLOCKS INT64_MAX
typedef struct msa_index_candidates_args {
  uint64_t struct_size;
  msa_tensor q_idx;         ///< [Tq, Hkv, Di]
  msa_tensor k_idx;         ///< [Tk, Di], or with pages [num_pages, B, Di]
  msa_sequences sequences;  ///< whole lengths
  int64_t block_size;
  float scale;                  ///< finite and > 0; default 1 / sqrt(Di)
  int32_t reserved;             ///< 0
  int64_t block_begin;          ///< 0 <= block_begin <= block_end
  int64_t block_end;            ///< MSA_ALL_BLOCKS: to the end; no default
  msa_tensor candidate_ids;     ///< output [Hkv, Tq, K]
  msa_tensor candidate_scores;  ///< output [Hkv, Tq, K]
} msa_index_candidates_args;
MSA_API msa_status msa_index_candidates_workspace_size(const msa_context* context,
                                                       const msa_index_candidates_args* args,
                                                       size_t* bytes);
MSA_API msa_status msa_index_candidates(const msa_context* context,
                                        const msa_index_candidates_args* args,
                                        const msa_workspace* workspace);

/// P candidate lists into one, exactly: the bits do not depend on how the blocks were split.
typedef struct msa_merge_candidates_args {
  uint64_t struct_size;
  msa_tensor candidate_ids;     ///< [P, Hkv, Tq, K]
  msa_tensor candidate_scores;  ///< [P, Hkv, Tq, K]
  msa_tensor merged_ids;        ///< output [Hkv, Tq, K]: a candidate list again
  msa_tensor merged_scores;     ///< output [Hkv, Tq, K]
  msa_tensor block_ids;         ///< optional output: what index_forward writes
  int32_t block_id_layout;      ///< of block_ids
  int32_t reserved;             ///< 0
} msa_merge_candidates_args;
MSA_API msa_status msa_merge_candidates(const msa_context* context,
                                        const msa_merge_candidates_args* args,
                                        const msa_workspace* workspace);

/// The selection alone, over given scores. With local_blocks row t may take the blocks 0 to
/// local_blocks[t], the last of these always; without, the K best of all. A NaN counts as -inf.
typedef struct msa_select_blocks_args {
  uint64_t struct_size;
  msa_tensor block_scores;  ///< float32 [Hkv, Tq, max_blocks]
  msa_tensor local_blocks;  ///< optional int32 [Tq]; below 0: an empty row
  msa_tensor block_ids;     ///< output [Hkv, Tq, K] or [Tq, Hkv, K]: ascending, then -1
  int32_t block_id_layout;  ///< MSA_HEAD_MAJOR or MSA_TOKEN_MAJOR
  int32_t reserved;         ///< 0
} msa_select_blocks_args;
MSA_API msa_status msa_select_blocks(const msa_context* context, const msa_select_blocks_args* args,
                                     const msa_workspace* workspace);

/* ------------------------------------------------------------------ main branch */

/// Exact softmax attention over the visible tokens of the listed blocks, S(i,g):
///   out[i,h] = softmax_j(scale * q[i,h] . k[j,g]) . v[j,g]    lse[i,h] = log sum_j exp(scale * ..)
typedef struct msa_attention_forward_args {
  uint64_t struct_size;
  msa_tensor q;  ///< [Tq, Hq, D]
  msa_tensor k;  ///< [Tk, Hkv, D], or with pages [num_pages, B, Hkv, D]
  msa_tensor v;  ///< as k, with the same type; strides are its own
  msa_sequences sequences;
  int64_t block_size;
  float scale;               ///< finite and > 0; default 1 / sqrt(D)
  int32_t block_id_layout;   ///< MSA_HEAD_MAJOR or MSA_TOKEN_MAJOR
  msa_tensor block_ids;      ///< a set a row, any order, ended by the first -1; others are ignored
  msa_tensor out;            ///< output [Tq, Hq, D], with q's type
  msa_tensor lse;            ///< optional output [Tq, Hq], natural log
  int32_t max_query_length;  ///< most rows of a request (up to 16: cuda decodes); 0: not known
  int32_t reserved;          ///< 0
} msa_attention_forward_args;
MSA_API msa_status msa_attention_forward_workspace_size(const msa_context* context,
                                                        const msa_attention_forward_args* args,
                                                        size_t* bytes);
MSA_API msa_status msa_attention_forward(const msa_context* context,
                                         const msa_attention_forward_args* args,
                                         const msa_workspace* workspace);

/// The same over all tokens j <= i. Pages may have any size.
typedef struct msa_dense_attention_forward_args {
  uint64_t struct_size;
  msa_tensor q;  ///< [Tq, Hq, D]
  msa_tensor k;  ///< [Tk, Hkv, D], or with pages [num_pages, page_size, Hkv, D]
  msa_tensor v;  ///< as k, with the same type
  msa_sequences sequences;
  float scale;               ///< finite and > 0; default 1 / sqrt(D)
  int32_t max_query_length;  ///< most rows of a request (up to 16: cuda decodes); 0: not known
  msa_tensor out;            ///< output [Tq, Hq, D], with q's type
  msa_tensor lse;            ///< optional output [Tq, Hq]
} msa_dense_attention_forward_args;
MSA_API msa_status msa_dense_attention_forward_workspace_size(
    const msa_context* context, const msa_dense_attention_forward_args* args, size_t* bytes);
MSA_API msa_status msa_dense_attention_forward(const msa_context* context,
                                               const msa_dense_attention_forward_args* args,
                                               const msa_workspace* workspace);

/// Two partial attentions of the same queries over disjoint keys, made one:
///   lse = log(exp(lse_a) + exp(lse_b))    out = exp(lse_a - lse) out_a + exp(lse_b - lse) out_b
/// A part with lse = -inf saw nothing and its out is not read. Outputs may be the views of a part.
typedef struct msa_merge_states_args {
  uint64_t struct_size;
  msa_tensor out_a;  ///< [Tq, Hq, D]
  msa_tensor lse_a;  ///< [Tq, Hq]
  msa_tensor out_b;  ///< [Tq, Hq, D], with out_a's type
  msa_tensor lse_b;  ///< [Tq, Hq]
  msa_tensor out;    ///< output [Tq, Hq, D], any float type
  msa_tensor lse;    ///< optional output [Tq, Hq]
} msa_merge_states_args;
MSA_API msa_status msa_merge_states(const msa_context* context, const msa_merge_states_args* args,
                                    const msa_workspace* workspace);

/// How much of dense attention a selection finds; P_b is block b's mass, mean over the group, and
/// I* the K blocks of largest P_b:
///   block recall = |I* and I| / K    score recall = sum of P over (I* and I) / sum of P over I*
/// Rows with at most K visible blocks do not count: NaN. "others": without the local block.
typedef struct msa_recall_args {
  uint64_t struct_size;
  msa_tensor q;  ///< [Tq, Hq, D]
  msa_tensor k;  ///< [Tk, Hkv, D], or with pages [num_pages, B, Hkv, D]
  msa_sequences sequences;
  int64_t block_size;
  float scale;                   ///< finite and > 0; default 1 / sqrt(D)
  int32_t block_id_layout;       ///< MSA_HEAD_MAJOR or MSA_TOKEN_MAJOR
  msa_tensor block_ids;          ///< I, as attention_forward reads them
  msa_tensor block_recall_rows;  ///< optional outputs [Hkv, Tq]
  msa_tensor score_recall_rows;
  msa_tensor block_recall_others_rows;
  msa_tensor score_recall_others_rows;
  msa_tensor block_recall_mean;  ///< optional outputs [1], over the rows that count
  msa_tensor score_recall_mean;
  msa_tensor block_recall_others_mean;
  msa_tensor score_recall_others_mean;
} msa_recall_args;
MSA_API msa_status msa_recall_workspace_size(const msa_context* context,
                                             const msa_recall_args* args, size_t* bytes);
MSA_API msa_status msa_recall(const msa_context* context, const msa_recall_args* args,
                              const msa_workspace* workspace);

/* ------------------------------------------------------------------ paged caches */

/// New tokens into the caches of one layer, rounded to the cache's type. kv_lens already counts
/// them; row t of a request goes to position k_len - q_len + t, and no two rows to one slot. k with
/// v, k_idx, or all three; the rows given and the caches given must be the same ones.
typedef struct msa_cache_append_args {
  uint64_t struct_size;
  msa_tensor k;             ///< [Tq, Hkv, D]
  msa_tensor v;             ///< as k
  msa_tensor k_idx;         ///< [Tq, Di]
  msa_sequences sequences;  ///< with pages
  msa_tensor cache_k;       ///< output [num_pages, B, Hkv, D], any strides
  msa_tensor cache_v;       ///< output, as cache_k, with the same type; strides are its own
  msa_tensor cache_k_idx;   ///< output [num_pages, B, Di]
} msa_cache_append_args;
MSA_API msa_status msa_cache_append(const msa_context* context, const msa_cache_append_args* args,
                                    const msa_workspace* workspace);

/// Copies whole pages inside the caches of one layer, before a shared page is written.
typedef struct msa_copy_pages_args {
  uint64_t struct_size;
  msa_tensor pages;        ///< int32 [n, 2]: from, to; none is written twice, none written is read
  msa_tensor cache_k;      ///< as in msa_cache_append_args
  msa_tensor cache_v;      ///< as cache_k
  msa_tensor cache_k_idx;  ///< as in msa_cache_append_args
} msa_copy_pages_args;
MSA_API msa_status msa_copy_pages(const msa_context* context, const msa_copy_pages_args* args,
                                  const msa_workspace* workspace);

/// Which physical pages hold which sequences; pages are shared by count, caches are not touched.
/// Not thread-safe: one thread at a time, functions that only ask included. A call that fails
/// changes nothing: unknown sequence or wrong length MSA_INVALID_ARGUMENT, no page left
/// MSA_OUT_OF_MEMORY.
typedef struct msa_page_allocator msa_page_allocator;
MSA_API msa_status msa_page_allocator_create(int64_t num_pages, int64_t page_size,
                                             msa_page_allocator** pages);
/// Null is allowed.
MSA_API void msa_page_allocator_destroy(msa_page_allocator* pages);
MSA_API msa_status msa_page_allocator_num_free(const msa_page_allocator* pages, int64_t* num_free);

/// A new sequence of length 0; its number.
MSA_API msa_status msa_sequence_create(msa_page_allocator* pages, int64_t* sequence);
/// A new sequence that holds the first `length` tokens of another and shares their pages.
MSA_API msa_status msa_sequence_fork(msa_page_allocator* pages, int64_t sequence, int64_t length,
                                     int64_t* child);
/// Forgets a sequence; pages that no other holds are free again.
MSA_API msa_status msa_sequence_release(msa_page_allocator* pages, int64_t sequence);

/// What has to be copied before a shared page may be written; both -1: nothing.
typedef struct msa_page_copy {
  int32_t from;
  int32_t to;
} msa_page_copy;
/// Takes pages for tokens up to `length`, at least the present one, at most 2^31-1. The copy has to
/// be done in every cache before the page is written and before the next extend of any sequence.
MSA_API msa_status msa_sequence_extend(msa_page_allocator* pages, int64_t sequence, int64_t length,
                                       msa_page_copy* copy);
/// Rolls back to `length` tokens, at most the present length.
MSA_API msa_status msa_sequence_truncate(msa_page_allocator* pages, int64_t sequence,
                                         int64_t length);
MSA_API msa_status msa_sequence_length(const msa_page_allocator* pages, int64_t sequence,
                                       int64_t* length);
/// Physical pages in order, ceil(length / page_size) of them. Valid until the next change.
MSA_API msa_status msa_sequence_pages(const msa_page_allocator* pages, int64_t sequence,
                                      const int32_t** page_ids, int64_t* num_page_ids);

/* ------------------------------------------------------------------ training (packed keys) */

/// P = exp(scale q.k - lse) over S(i,g)     D_row = rowsum(dout * out) - dlse
/// dS = P * (dout . v - D_row)              dq = scale dS k, dk = scale dS^T q, dv = P^T dout
typedef struct msa_attention_backward_args {
  uint64_t struct_size;
  msa_tensor q;  ///< [Tq, Hq, D]
  msa_tensor k;  ///< [Tk, Hkv, D]
  msa_tensor v;  ///< as k, with the same type
  msa_sequences sequences;
  int64_t block_size;
  float scale;              ///< finite and > 0; default 1 / sqrt(D)
  int32_t block_id_layout;  ///< MSA_HEAD_MAJOR or MSA_TOKEN_MAJOR
  msa_tensor block_ids;     ///< as attention_forward read them
  msa_tensor out;           ///< [Tq, Hq, D] of the forward, with q's type
  msa_tensor lse;           ///< [Tq, Hq] of the forward
  msa_tensor dout;          ///< [Tq, Hq, D], with q's type
  msa_tensor dlse;          ///< optional, [Tq, Hq]
  msa_tensor dq;            ///< output [Tq, Hq, D], with q's type
  msa_tensor dk;            ///< output [Tk, Hkv, D], with k's type; 0 where no row looked
  msa_tensor dv;            ///< output, as dk
} msa_attention_backward_args;
MSA_API msa_status msa_attention_backward_workspace_size(const msa_context* context,
                                                         const msa_attention_backward_args* args,
                                                         size_t* bytes);
MSA_API msa_status msa_attention_backward(const msa_context* context,
                                          const msa_attention_backward_args* args,
                                          const msa_workspace* workspace);

/// The same with S(i,g) = all j <= i. block_size, block_id_layout and block_ids stay 0.
MSA_API msa_status msa_dense_attention_backward_workspace_size(
    const msa_context* context, const msa_attention_backward_args* args, size_t* bytes);
MSA_API msa_status msa_dense_attention_backward(const msa_context* context,
                                                const msa_attention_backward_args* args,
                                                const msa_workspace* workspace);

/// Which tokens the KL loss runs over.
enum { MSA_KL_SELECTED = 0 /* of the listed blocks */, MSA_KL_VISIBLE = 1 /* all j <= i */ };

/// The loss that trains the index branch, and its gradients, j in S(i,g):
///   p[i,g,j] = (1/G) sum over h in g of exp(scale q[i,h].k[j,g] - lse[i,h])
///   r[i,g,j] = exp(scale_idx q_idx[i,g].k_idx[j] - lse_idx[g,i])
///   loss = coefficient / normaliser * sum of p (log p - log r)        0 log 0 = 0
///   dq_idx[i,g] = c sum_j (r - p) k_idx[j]     dk_idx[j] = c sum_{i,g} (r - p) q_idx[i,g]
///   c = scale_idx * coefficient / normaliser
typedef struct msa_kl_forward_backward_args {
  uint64_t struct_size;
  msa_tensor q;        ///< [Tq, Hq, D]
  msa_tensor k;        ///< [Tk, Hkv, D]
  msa_tensor lse;      ///< [Tq, Hq], over exactly S
  msa_tensor q_idx;    ///< [Tq, Hkv, Di]
  msa_tensor k_idx;    ///< [Tk, Di]
  msa_tensor lse_idx;  ///< [Hkv, Tq], over exactly S
  msa_sequences sequences;
  int64_t block_size;
  float scale;              ///< finite and > 0; default 1 / sqrt(D)
  float scale_idx;          ///< finite and > 0; default 1 / sqrt(Di)
  int32_t scope;            ///< MSA_KL_SELECTED or MSA_KL_VISIBLE
  int32_t block_id_layout;  ///< MSA_HEAD_MAJOR or MSA_TOKEN_MAJOR
  msa_tensor block_ids;     ///< as attention_forward read them; absent with MSA_KL_VISIBLE
  float coefficient;        ///< finite; no default: 0 makes loss and gradients 0
  int32_t reserved;         ///< 0
  double normaliser;        ///< finite and > 0: Hkv * T of the whole batch; no default
  msa_tensor loss;          ///< output [1]
  msa_tensor dq_idx;        ///< output [Tq, Hkv, Di], with q_idx's type
  msa_tensor dk_idx;        ///< output [Tk, Di], with k_idx's type; 0 where no row looked
} msa_kl_forward_backward_args;
MSA_API msa_status msa_kl_forward_backward_workspace_size(const msa_context* context,
                                                          const msa_kl_forward_backward_args* args,
                                                          size_t* bytes);
MSA_API msa_status msa_kl_forward_backward(const msa_context* context,
                                           const msa_kl_forward_backward_args* args,
                                           const msa_workspace* workspace);

#ifdef __cplusplus
}
#endif
// NOLINTEND(readability-identifier-naming)
