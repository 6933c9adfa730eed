// Fuzzes the arguments of the C API: every op on reference and cpu, the page allocator, options and
// the capability query. c_api_call.h says how an argument may be anything and yet have its memory.
#include "msa/c_api.h"

#include <algorithm>
#include <cstring>

#include "fuzz/c_api_call.h"
#include "fuzz/c_api_handles.h"
#include "fuzz/c_api_shape.h"

namespace msa::fuzz {
namespace {

void fuzz_index(ByteReader& bytes);
void fuzz_candidates(ByteReader& bytes);
void fuzz_merge_candidates(ByteReader& bytes);
void fuzz_select(ByteReader& bytes);
void fuzz_attention(ByteReader& bytes);
void fuzz_dense(ByteReader& bytes);
void fuzz_recall(ByteReader& bytes);
void fuzz_merge_states(ByteReader& bytes);
void fuzz_append(ByteReader& bytes);
void fuzz_copy(ByteReader& bytes);
void fuzz_backward(ByteReader& bytes);
void fuzz_kl(ByteReader& bytes);

/// The first byte of an input chooses one of these, and the context for it.
constexpr void (*kParts[])(ByteReader&) = {
    fuzz_index,    fuzz_candidates, fuzz_merge_candidates, fuzz_select,   fuzz_attention,
    fuzz_dense,    fuzz_recall,     fuzz_merge_states,     fuzz_append,   fuzz_copy,
    fuzz_backward, fuzz_kl,         fuzz_allocator,        fuzz_questions};

template <typename Args>
using Measure = msa_status (*)(const msa_context*, const Args*, size_t*);
template <typename Args>
using Run = msa_status (*)(const msa_context*, const Args*, const msa_workspace*);

/// The whole life of a call. `repeats`: its result does not depend on the threads.
template <typename Args>
void run_call(ByteReader& bytes, Call& call, Padded<Args>& padded, double work,
              Measure<Args> measure, Run<Args> run, bool repeats) {
  padded.mutate(bytes);
  const bool runnable = call.back(work);
  const Args* args = bytes.one_in(64) ? nullptr : &padded.args;
  const msa_context* given[] = {contexts().cpu, contexts().cpu, contexts().reference,
                                contexts().cpu_wrong};
  const auto which = static_cast<size_t>(bytes.first()) / std::size(kParts) % std::size(given);
  const msa_context* context = bytes.one_in(64) ? nullptr : given[which];

  size_t needed = 0;
  if (measure != nullptr) {
    const msa_status status = measure(context, args, &needed);
    check_status(status);
    if (!runnable) return;
    if (status != MSA_OK) {
      check_status(run(context, args, nullptr));
      return;
    }
    if (needed > size_t{64} << 20) return;
  }
  if (!runnable) return;
  const Scratch scratch(needed + 64);
  std::memset(scratch.data(), 0xFF, needed);
  msa_workspace workspace = {scratch.data(), needed, nullptr};
  const bool bad_workspace = needed > 0 && bytes.one_in(16);
  if (bad_workspace) {
    const int64_t how = bytes.in_range(0, 2);
    if (how == 0) workspace.bytes -= 1;
    if (how == 1) workspace.data = nullptr;
    if (how == 2) workspace.data = static_cast<char*>(workspace.data) + 8;
  }
  const uint64_t before = call.output_hash();
  const msa_status status = run(context, args, bytes.one_in(64) ? nullptr : &workspace);
  check_status(status);
  require(!bad_workspace || status == MSA_INVALID_ARGUMENT, "a bad workspace is refused");
  if (status != MSA_OK && context != contexts().cpu_wrong) {
    require(call.output_hash() == before, "a refused call writes nothing");
  }
  if (status != MSA_OK || !repeats || context != contexts().cpu) return;
  const uint64_t result = call.output_hash();
  call.restore_outputs();
  std::memset(scratch.data(), 0, needed);
  require(run(contexts().cpu_alone, args, &workspace) == MSA_OK, "a call that runs, runs again");
  require(call.output_hash() == result, "the same bits with any threads and any workspace");
}

double elements(const msa_tensor& tensor) {
  double product = 1;
  for (int32_t axis = 0; axis < std::min(std::max(tensor.rank, 0), 4); ++axis) {
    product *= std::max(1.0, static_cast<double>(tensor.shape[axis]));
  }
  return product;
}

/// Each element of q meets each key.
double attention_work(const Call& call, const msa_tensor& q, const msa_sequences& sequences) {
  return elements(q) *
         std::max(call.largest(sequences.cu_seqlens_k), call.largest(sequences.kv_lens));
}

void fuzz_index(ByteReader& bytes) {
  const Shape shape(bytes, true);
  Call call(bytes);
  Padded<msa_index_forward_args> padded;
  msa_index_forward_args& a = padded.args;
  a.q_idx = shape.index_queries();
  a.k_idx = shape.index_keys();
  call.add(a.q_idx, Content::kFloats);
  call.add(a.k_idx, Content::kFloats);
  shape.add_sequences(call, bytes, a.sequences);
  a.block_size = shape.block_size;
  a.block_id_layout = shape.token_major ? MSA_TOKEN_MAJOR : MSA_HEAD_MAJOR;
  a.lse_scope = static_cast<int32_t>(bytes.in_range(0, 1));
  if (!bytes.one_in(4)) a.block_ids = shape.ids();
  if (!bytes.one_in(2)) {
    a.block_scores = msa_tensor_3d(nullptr, MSA_FLOAT32, shape.kv_heads, shape.num_queries,
                                   std::max<int64_t>(1, shape.max_pages));
  }
  if (!bytes.one_in(2)) a.lse_idx = shape.row_values(true);
  for (msa_tensor* output : {&a.block_ids, &a.block_scores, &a.lse_idx}) {
    call.add(*output, Content::kOutput);
  }
  call.add(a.block_size);
  call.add(a.scale);
  for (int32_t* field : {&a.block_id_layout, &a.lse_scope, &a.max_query_length}) call.add(*field);
  call.mutate();
  run_call(bytes, call, padded, attention_work(call, a.q_idx, a.sequences),
           msa_index_forward_workspace_size, msa_index_forward, true);
}

void fuzz_candidates(ByteReader& bytes) {
  const Shape shape(bytes, true);
  Call call(bytes);
  Padded<msa_index_candidates_args> padded;
  msa_index_candidates_args& a = padded.args;
  a.q_idx = shape.index_queries();
  a.k_idx = shape.index_keys();
  call.add(a.q_idx, Content::kFloats);
  call.add(a.k_idx, Content::kFloats);
  shape.add_sequences(call, bytes, a.sequences);
  a.block_size = shape.block_size;
  a.block_begin = bytes.in_range(0, 4);
  a.block_end = bytes.one_in(2) ? MSA_ALL_BLOCKS : a.block_begin + bytes.in_range(0, 4);
  a.candidate_ids = shape.lists(MSA_INT32);
  a.candidate_scores = shape.lists(MSA_FLOAT32);
  call.add(a.candidate_ids, Content::kOutput);
  call.add(a.candidate_scores, Content::kOutput);
  for (int64_t* field : {&a.block_size, &a.block_begin, &a.block_end}) call.add(*field);
  call.add(a.scale);
  call.add(a.reserved);
  call.mutate();
  run_call(bytes, call, padded, attention_work(call, a.q_idx, a.sequences),
           msa_index_candidates_workspace_size, msa_index_candidates, true);
}

void fuzz_merge_candidates(ByteReader& bytes) {
  const Shape shape(bytes, true);
  Call call(bytes);
  Padded<msa_merge_candidates_args> padded;
  msa_merge_candidates_args& a = padded.args;
  const int64_t parts = bytes.in_range(0, 3);
  a.candidate_ids =
      msa_tensor_4d(nullptr, MSA_INT32, parts, shape.kv_heads, shape.num_queries, shape.top_k);
  a.candidate_scores = a.candidate_ids;
  a.candidate_scores.dtype = MSA_FLOAT32;
  a.merged_ids = shape.lists(MSA_INT32);
  a.merged_scores = shape.lists(MSA_FLOAT32);
  if (bytes.one_in(2)) a.block_ids = shape.ids();
  a.block_id_layout = shape.token_major ? MSA_TOKEN_MAJOR : MSA_HEAD_MAJOR;
  call.add(a.candidate_ids, Content::kNumbers, shape.random_ids(bytes));
  call.add(a.candidate_scores, Content::kFloats);
  for (msa_tensor* output : {&a.merged_ids, &a.merged_scores, &a.block_ids}) {
    call.add(*output, Content::kOutput);
  }
  call.add(a.block_id_layout);
  call.add(a.reserved);
  call.mutate();
  const double top_k = std::max(1.0, static_cast<double>(a.candidate_ids.shape[3]));
  run_call(bytes, call, padded, elements(a.candidate_ids) * top_k,
           Measure<msa_merge_candidates_args>{}, msa_merge_candidates, true);
}

void fuzz_select(ByteReader& bytes) {
  const Shape shape(bytes, true);
  Call call(bytes);
  Padded<msa_select_blocks_args> padded;
  msa_select_blocks_args& a = padded.args;
  a.block_scores = shape.lists(MSA_FLOAT32);
  if (bytes.one_in(2)) a.local_blocks = msa_tensor_1d(nullptr, MSA_INT32, shape.num_queries);
  a.block_ids = shape.ids();
  a.block_id_layout = shape.token_major ? MSA_TOKEN_MAJOR : MSA_HEAD_MAJOR;
  call.add(a.block_scores, Content::kFloats);
  call.add(a.local_blocks, Content::kNumbers);
  call.add(a.block_ids, Content::kOutput);
  call.add(a.block_id_layout);
  call.add(a.reserved);
  call.mutate();
  run_call(bytes, call, padded, elements(a.block_scores) * 8, Measure<msa_select_blocks_args>{},
           msa_select_blocks, true);
}

void fuzz_attention(ByteReader& bytes) {
  const Shape shape(bytes, true);
  Call call(bytes);
  Padded<msa_attention_forward_args> padded;
  msa_attention_forward_args& a = padded.args;
  a.q = a.out = shape.queries();
  a.k = a.v = shape.keys();
  for (msa_tensor* input : {&a.q, &a.k, &a.v}) call.add(*input, Content::kFloats);
  shape.add_sequences(call, bytes, a.sequences);
  a.block_size = shape.block_size;
  a.block_id_layout = shape.token_major ? MSA_TOKEN_MAJOR : MSA_HEAD_MAJOR;
  a.block_ids = shape.ids();
  call.add(a.block_ids, Content::kNumbers, shape.random_ids(bytes));
  if (bytes.one_in(2)) a.lse = shape.row_values(false);
  call.add(a.out, Content::kOutput);
  call.add(a.lse, Content::kOutput);
  call.add(a.block_size);
  call.add(a.scale);
  call.add(a.max_query_length);
  call.add(a.reserved);
  call.add(a.block_id_layout);
  call.mutate();
  run_call(bytes, call, padded, attention_work(call, a.q, a.sequences),
           msa_attention_forward_workspace_size, msa_attention_forward, true);
}

void fuzz_dense(ByteReader& bytes) {
  const Shape shape(bytes, true);
  Call call(bytes);
  Padded<msa_dense_attention_forward_args> padded;
  msa_dense_attention_forward_args& a = padded.args;
  a.q = a.out = shape.queries();
  a.k = a.v = shape.keys();
  for (msa_tensor* input : {&a.q, &a.k, &a.v}) call.add(*input, Content::kFloats);
  shape.add_sequences(call, bytes, a.sequences);
  if (bytes.one_in(2)) a.lse = shape.row_values(false);
  call.add(a.out, Content::kOutput);
  call.add(a.lse, Content::kOutput);
  call.add(a.scale);
  call.add(a.max_query_length);
  call.mutate();
  run_call(bytes, call, padded, attention_work(call, a.q, a.sequences),
           msa_dense_attention_forward_workspace_size, msa_dense_attention_forward, true);
}

void fuzz_recall(ByteReader& bytes) {
  const Shape shape(bytes, true);
  Call call(bytes);
  Padded<msa_recall_args> padded;
  msa_recall_args& a = padded.args;
  a.q = shape.queries();
  a.k = shape.keys();
  call.add(a.q, Content::kFloats);
  call.add(a.k, Content::kFloats);
  shape.add_sequences(call, bytes, a.sequences);
  a.block_size = shape.block_size;
  a.block_id_layout = shape.token_major ? MSA_TOKEN_MAJOR : MSA_HEAD_MAJOR;
  a.block_ids = shape.ids();
  call.add(a.block_ids, Content::kNumbers, shape.random_ids(bytes));
  for (msa_tensor* rows : {&a.block_recall_rows, &a.score_recall_rows, &a.block_recall_others_rows,
                           &a.score_recall_others_rows}) {
    if (bytes.one_in(2)) *rows = shape.row_values(true);
    call.add(*rows, Content::kOutput);
  }
  for (msa_tensor* mean : {&a.block_recall_mean, &a.score_recall_mean, &a.block_recall_others_mean,
                           &a.score_recall_others_mean}) {
    if (bytes.one_in(2)) *mean = msa_tensor_1d(nullptr, MSA_FLOAT32, 1);
    call.add(*mean, Content::kOutput);
  }
  call.add(a.block_size);
  call.add(a.scale);
  call.add(a.block_id_layout);
  call.mutate();
  run_call(bytes, call, padded, attention_work(call, a.q, a.sequences), msa_recall_workspace_size,
           msa_recall, true);
}

void fuzz_merge_states(ByteReader& bytes) {
  const Shape shape(bytes, true);
  Call call(bytes);
  Padded<msa_merge_states_args> padded;
  msa_merge_states_args& a = padded.args;
  a.out_a = a.out_b = a.out = shape.queries();
  a.out.dtype = shape.k_dtype;
  a.lse_a = a.lse_b = shape.row_values(false);
  if (bytes.one_in(2)) a.lse = a.lse_a;
  for (msa_tensor* input : {&a.out_a, &a.lse_a, &a.out_b, &a.lse_b}) {
    call.add(*input, Content::kFloats);
  }
  call.add(a.out, Content::kOutput);
  call.add(a.lse, Content::kOutput);
  call.mutate();
  run_call(bytes, call, padded, elements(a.out_a), Measure<msa_merge_states_args>{},
           msa_merge_states, true);
}

void fuzz_append(ByteReader& bytes) {
  Shape shape(bytes, true);
  shape.paged = true;
  Call call(bytes);
  Padded<msa_cache_append_args> padded;
  msa_cache_append_args& a = padded.args;
  const bool index_only = bytes.one_in(4);
  if (!index_only) {
    a.k = a.v = msa_tensor_3d(nullptr, shape.q_dtype, shape.num_queries, shape.kv_heads, shape.dim);
    a.cache_k = a.cache_v = shape.keys();
  }
  if (index_only || bytes.one_in(2)) {
    a.k_idx = msa_tensor_2d(nullptr, shape.q_dtype, shape.num_queries, shape.index_dim);
    a.cache_k_idx = shape.index_keys();
  }
  for (msa_tensor* input : {&a.k, &a.v, &a.k_idx}) call.add(*input, Content::kFloats);
  shape.add_sequences(call, bytes, a.sequences);
  for (msa_tensor* cache : {&a.cache_k, &a.cache_v, &a.cache_k_idx}) {
    call.add(*cache, Content::kOutput);
  }
  call.mutate();
  run_call(bytes, call, padded, call.largest(a.sequences.cu_seqlens_q),
           Measure<msa_cache_append_args>{}, msa_cache_append, false);
}

void fuzz_copy(ByteReader& bytes) {
  Shape shape(bytes, true);
  shape.paged = true;
  Call call(bytes);
  Padded<msa_copy_pages_args> padded;
  msa_copy_pages_args& a = padded.args;
  if (bytes.one_in(2)) a.cache_k = a.cache_v = shape.keys();
  if (a.cache_k.rank == 0 || bytes.one_in(2)) a.cache_k_idx = shape.index_keys();
  const int64_t copies = bytes.in_range(0, 3);
  std::vector<int32_t> numbers;
  for (int64_t n = 0; n < 2 * copies; ++n) {
    numbers.push_back(static_cast<int32_t>(bytes.in_range(0, shape.num_pages - 1)));
  }
  a.pages = msa_tensor_2d(nullptr, MSA_INT32, copies, 2);
  call.add(a.pages, Content::kNumbers, numbers);
  for (msa_tensor* cache : {&a.cache_k, &a.cache_v, &a.cache_k_idx}) {
    call.add(*cache, Content::kOutput);
  }
  call.mutate();
  run_call(bytes, call, padded, elements(a.pages), Measure<msa_copy_pages_args>{}, msa_copy_pages,
           false);
}

void fuzz_backward(ByteReader& bytes) {
  const bool dense = bytes.one_in(2);
  const Shape shape(bytes, bytes.one_in(16));  // pages are refused
  Call call(bytes);
  Padded<msa_attention_backward_args> padded;
  msa_attention_backward_args& a = padded.args;
  a.q = a.out = a.dout = a.dq = shape.queries();
  a.k = a.v = a.dk = a.dv = shape.keys();
  a.lse = shape.row_values(false);
  if (bytes.one_in(2)) a.dlse = a.lse;
  for (msa_tensor* input : {&a.q, &a.k, &a.v, &a.out, &a.lse, &a.dout, &a.dlse}) {
    call.add(*input, Content::kFloats);
  }
  shape.add_sequences(call, bytes, a.sequences);
  if (!dense) {
    a.block_size = shape.block_size;
    a.block_id_layout = shape.token_major ? MSA_TOKEN_MAJOR : MSA_HEAD_MAJOR;
    a.block_ids = shape.ids();
  }
  call.add(a.block_ids, Content::kNumbers, shape.random_ids(bytes));
  for (msa_tensor* output : {&a.dq, &a.dk, &a.dv}) call.add(*output, Content::kOutput);
  call.add(a.block_size);
  call.add(a.scale);
  call.add(a.block_id_layout);
  call.mutate();
  run_call(
      bytes, call, padded, 4 * attention_work(call, a.q, a.sequences),
      dense ? msa_dense_attention_backward_workspace_size : msa_attention_backward_workspace_size,
      dense ? msa_dense_attention_backward : msa_attention_backward, false);
}

void fuzz_kl(ByteReader& bytes) {
  const Shape shape(bytes, bytes.one_in(16));
  Call call(bytes);
  Padded<msa_kl_forward_backward_args> padded;
  msa_kl_forward_backward_args& a = padded.args;
  a.q = shape.queries();
  a.k = shape.keys();
  a.lse = shape.row_values(false);
  a.q_idx = a.dq_idx = shape.index_queries();
  a.k_idx = a.dk_idx = shape.index_keys();
  a.lse_idx = shape.row_values(true);
  a.loss = msa_tensor_1d(nullptr, MSA_FLOAT32, 1);
  a.coefficient = 1;
  a.normaliser = bytes.one_in(8) ? bytes.take<double>() : 1;
  for (msa_tensor* input : {&a.q, &a.k, &a.lse, &a.q_idx, &a.k_idx, &a.lse_idx}) {
    call.add(*input, Content::kFloats);
  }
  shape.add_sequences(call, bytes, a.sequences);
  a.scope = static_cast<int32_t>(bytes.in_range(0, 1));
  if (a.scope == MSA_KL_SELECTED) {
    a.block_size = shape.block_size;
    a.block_id_layout = shape.token_major ? MSA_TOKEN_MAJOR : MSA_HEAD_MAJOR;
    a.block_ids = shape.ids();
  }
  call.add(a.block_ids, Content::kNumbers, shape.random_ids(bytes));
  for (msa_tensor* output : {&a.loss, &a.dq_idx, &a.dk_idx}) call.add(*output, Content::kOutput);
  call.add(a.block_size);
  for (float* field : {&a.scale, &a.scale_idx, &a.coefficient}) call.add(*field);
  for (int32_t* field : {&a.scope, &a.block_id_layout, &a.reserved}) call.add(*field);
  call.mutate();
  run_call(bytes, call, padded,
           4 * attention_work(call, a.q, a.sequences) + attention_work(call, a.q_idx, a.sequences),
           msa_kl_forward_backward_workspace_size, msa_kl_forward_backward, false);
}

}  // namespace
}  // namespace msa::fuzz

extern "C" int LLVMFuzzerTestOneInput(  // NOLINT(readability-identifier-naming): libFuzzer's name
    const uint8_t* data, size_t size) {
  using namespace msa::fuzz;
  ByteReader bytes(data, size);
  kParts[static_cast<size_t>(bytes.first()) % std::size(kParts)](bytes);
  return 0;
}
