// The ops of the SIMD backend; see core/backend.h.
#pragma once

#include "core/backend.h"

namespace msa::cpu {

size_t index_forward_workspace(const core::IndexForwardParams& params, int num_threads);
/// Also index_candidates: the params say which.
void index_forward(const core::IndexForwardParams& params, const core::RunContext& run);

size_t attention_forward_workspace(const core::AttentionForwardParams& params, int num_threads);
void attention_forward(const core::AttentionForwardParams& params, const core::RunContext& run);

size_t dense_attention_forward_workspace(const core::AttentionForwardParams& params,
                                         int num_threads);
void dense_attention_forward(const core::AttentionForwardParams& params,
                             const core::RunContext& run);

void merge_states(const core::MergeStatesParams& params, const core::RunContext& run);

size_t attention_backward_workspace(const core::AttentionBackwardParams& params, int num_threads);
/// Sparse and dense: the params say which.
void attention_backward(const core::AttentionBackwardParams& params, const core::RunContext& run);

size_t kl_forward_backward_workspace(const core::KlParams& params, int num_threads);
void kl_forward_backward(const core::KlParams& params, const core::RunContext& run);

size_t recall_workspace(const core::RecallParams& params, int num_threads);
void recall(const core::RecallParams& params, const core::RunContext& run);

}  // namespace msa::cpu
