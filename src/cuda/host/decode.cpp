#include "cuda/host/decode.h"

#include <algorithm>
#include <bit>

#include "cuda/host/config.h"
#include "cuda/host/device.h"
#include "cuda/host/support.h"
#include "cuda/host/tensor_map.h"
#include "cuda/sm90/decode/launch.h"
#include "cuda/sm90/index_forward/params.h"

namespace msa::cuda {
namespace {

constexpr const char* kIndex = "index_forward";
constexpr const char* kAttention = "attention_forward";
constexpr const char* kDense = "dense_attention_forward";
constexpr int64_t kMostRequests = int64_t{1} << 19;

/// Most query rows of a request: what the caller says, or all rows.
int64_t query_bound(const core::SequenceParams& s) {
  if (s.max_query_length == 0) return s.num_query_tokens;
  return std::min(s.max_query_length, s.num_query_tokens);
}

/// The bits of attention follow from the way it takes, so what takes the decode kernels is the
/// caller's word alone, not how many rows happen to be in the call.
int said_queries(const core::SequenceParams& s) {
  const bool few = s.max_query_length >= 1 && s.max_query_length <= kDecodeQueries;
  return few ? static_cast<int>(std::min(s.max_query_length, s.num_query_tokens)) : 0;
}

int log2_of(int64_t power_of_two) { return std::countr_zero(static_cast<uint64_t>(power_of_two)); }

bool asks_for_ids_alone(const core::IndexForwardParams& op) {
  return decode_tuning().index && op.block_ids.data != nullptr && op.block_scores == nullptr &&
         op.lse_idx == nullptr;
}

/// Grids count requests, queries and heads in 32 bits.
void check_batch(const char* name, const core::SequenceParams& s) {
  check_support(s.batch <= kMostRequests, name,
                "too many requests for the decode kernels of the cuda backend: got {}, allowed {}, "
                "or more with max_query_length 0",
                s.batch, kMostRequests);
}

int64_t most_blocks(const core::IndexForwardParams& op) {
  return op.sequences.paged() ? op.sequences.max_pages : ceil_div(op.k_idx.num_rows, op.block_size);
}

/// Kernel params with the workspace at `workspace`; with null only its size is right.
size_t fill(const core::IndexForwardParams& op, void* workspace, DecodeIndexParams* params) {
  params->op = op;
  params->max_queries = decode_index_queries(op);
  params->block_shift = log2_of(op.block_size);
  params->head_shift = log2_of(op.num_kv_heads);
  params->score_stride = round_up(std::max<int64_t>(most_blocks(op), 1), 128);
  Carver carver(workspace);
  // A call of more rows than come this way without a word may be what sizes the workspace of one
  // that does.
  const int64_t rows = params->max_queries > 0
                           ? op.sequences.num_query_tokens
                           : std::min<int64_t>(op.sequences.num_query_tokens, kDecodeQueries);
  params->scores = carver.take<float>(rows * op.num_kv_heads * params->score_stride);
  return carver.bytes();
}

DecodeAttentionParams attention_params(const core::AttentionForwardParams& op, int max_queries) {
  DecodeAttentionParams params;
  params.op = op;
  params.max_queries = max_queries;
  params.block_shift = log2_of(op.block_size);
  params.group_shift = log2_of(op.group_size());
  params.pad_rows = true;
  return params;
}

DecodeAttentionMaps attention_maps(const char* name, const core::AttentionForwardParams& op) {
  // Without a single key nothing is copied, but the kernel still wants descriptors.
  core::KeyParams k = op.k;
  core::KeyParams v = op.v;
  if (k.num_rows == 0) k.data = v.data = op.q;
  return {key_map(name, "k", k, op.sequences, op.num_kv_heads, op.head_dim, op.block_size),
          key_map(name, "v", v, op.sequences, op.num_kv_heads, op.head_dim, op.block_size)};
}

size_t fill_dense(const core::AttentionForwardParams& op, void* workspace,
                  DecodeAttentionParams* params) {
  const int64_t blocks =
      op.sequences.paged() ? op.sequences.max_pages : ceil_div(op.k.num_rows, op.block_size);
  params->most_pieces = static_cast<int>(
      std::clamp<int64_t>(ceil_div(blocks, kDecodeDenseBlocks), 1, kDecodeDensePieces));
  const int64_t rows = params->most_pieces * op.sequences.num_query_tokens * op.num_q_heads;
  Carver carver(workspace);
  params->partial = carver.take<float>(rows * op.head_dim);
  params->partial_max2 = carver.take<float>(rows);
  params->partial_sum = carver.take<float>(rows);
  return carver.bytes();
}

}  // namespace

DecodeTuning& decode_tuning() {
  static DecodeTuning tuning;
  return tuning;
}

int decode_index_queries(const core::IndexForwardParams& op) {
  const int64_t bound = query_bound(op.sequences);
  return asks_for_ids_alone(op) && bound <= kDecodeQueries &&
                 bound * op.num_kv_heads <= kDecodeIndexRows &&
                 op.sequences.batch <= kDecodeMostRequests
             ? static_cast<int>(bound)
             : 0;
}

int decode_attention_queries(const core::AttentionForwardParams& op) {
  return decode_tuning().attention ? said_queries(op.sequences) : 0;
}

size_t decode_index_workspace(const core::IndexForwardParams& op) {
  if (!asks_for_ids_alone(op)) return 0;
  DecodeIndexParams params;
  return fill(op, nullptr, &params);
}

void decode_index(const core::IndexForwardParams& op, const core::RunContext& run) {
  DecodeIndexParams params;
  fill(op, run.workspace, &params);
  // Without a single key nothing is copied, but the kernel still wants a descriptor.
  core::KeyParams keys = op.k_idx;
  if (keys.num_rows == 0) {
    const auto address = reinterpret_cast<uintptr_t>(op.q_idx);
    keys.data = reinterpret_cast<const void*>(address & ~uintptr_t{15});
  }
  const CUtensorMap map =
      key_map(kIndex, "k_idx", keys, op.sequences, 1, op.index_dim, op.block_size);
  const auto launch =
      op.q_dtype == DType::kBFloat16 ? launch_decode_scores_bf16 : launch_decode_scores_fp16;
  const auto stream = static_cast<cudaStream_t>(run.stream);
  check_cuda(kIndex, launch(params, map, multiprocessors(), stream));
  check_cuda(kIndex, launch_decode_select(params, stream));
}

int decode_dense_queries(const core::AttentionForwardParams& op) {
  return decode_tuning().dense ? said_queries(op.sequences) : 0;
}

void decode_attention(const core::AttentionForwardParams& op, const core::RunContext& run) {
  check_batch(kAttention, op.sequences);
  DecodeAttentionParams params = attention_params(op, decode_attention_queries(op));
  // Few thread blocks: all of a list at once. Many: one block at a time, and three thread blocks on
  // a multiprocessor. The bits are the same.
  const int each = static_cast<int>(ceil_div(op.block_ids.top_k, kDecodeCluster));
  const int64_t tile_bytes = op.block_size * op.head_dim * 4;
  const int most = static_cast<int>((kMaxSharedBytes - 1024) / tile_bytes);
  const int64_t thread_blocks = op.sequences.num_query_tokens * op.num_kv_heads * kDecodeCluster;
  const bool few = thread_blocks <= multiprocessors();
  params.stages = decode_tuning().attention_stages > 0 ? decode_tuning().attention_stages
                  : few                                ? each
                                                       : 1;
  params.stages = std::clamp(params.stages, 1, std::min(std::max(each, 1), most));
  const DecodeAttentionMaps maps = attention_maps(kAttention, op);
  const auto launch =
      op.q_dtype == DType::kBFloat16 ? launch_decode_attention_bf16 : launch_decode_attention_fp16;
  check_cuda(kAttention, launch(params, maps, static_cast<cudaStream_t>(run.stream)));
}

size_t decode_dense_workspace(const core::AttentionForwardParams& op) {
  DecodeAttentionParams params;
  return fill_dense(op, nullptr, &params);
}

void decode_dense(const core::AttentionForwardParams& op, const core::RunContext& run) {
  check_batch(kDense, op.sequences);
  DecodeAttentionParams params = attention_params(op, decode_dense_queries(op));
  fill_dense(op, run.workspace, &params);
  const DecodeAttentionMaps maps = attention_maps(kDense, op);
  const auto launch =
      op.q_dtype == DType::kBFloat16 ? launch_decode_dense_bf16 : launch_decode_dense_fp16;
  check_cuda(kDense, launch(params, maps, static_cast<cudaStream_t>(run.stream)));
}

}  // namespace msa::cuda
