// The way of calls whose requests have few queries each: src/cuda/sm90/decode. Which way a call
// takes follows from its shapes and from Sequences::max_query_length.
#pragma once

#include "core/backend.h"

namespace msa::cuda {

/// Which ops may take this way. Checks and benchmarks set it before a call, never beside one.
struct DecodeTuning {
  bool index = true;
  bool attention = true;
  bool dense = true;
  int attention_stages = 0;  // blocks in shared memory at once; 0: chosen from the shape
};
DecodeTuning& decode_tuning();

/// Most queries of a request if the decode kernels take the call, else 0.
int decode_index_queries(const core::IndexForwardParams& op);
int decode_attention_queries(const core::AttentionForwardParams& op);
int decode_dense_queries(const core::AttentionForwardParams& op);

/// Of this call, or, if it takes the other kernels, of the largest with its tables that comes here
/// because of its number of rows.
size_t decode_index_workspace(const core::IndexForwardParams& op);
void decode_index(const core::IndexForwardParams& op, const core::RunContext& run);
void decode_attention(const core::AttentionForwardParams& op, const core::RunContext& run);

/// `op` with the block size set: that of a page, or 128.
size_t decode_dense_workspace(const core::AttentionForwardParams& op);
void decode_dense(const core::AttentionForwardParams& op, const core::RunContext& run);

}  // namespace msa::cuda
