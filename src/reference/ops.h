// The ops of the reference backend: plain loops in double, in the order of the paper.
#pragma once

#include "core/backend.h"

namespace msa::reference {

void index_forward(const core::IndexForwardParams& params, const core::RunContext& run);
/// Sparse with a block size, dense without.
void attention_forward(const core::AttentionForwardParams& params, const core::RunContext& run);

void index_candidates(const core::IndexForwardParams& params, const core::RunContext& run);
void merge_states(const core::MergeStatesParams& params, const core::RunContext& run);
/// Sparse with a block size, dense without.
void attention_backward(const core::AttentionBackwardParams& params, const core::RunContext& run);
void kl_forward_backward(const core::KlParams& params, const core::RunContext& run);
void recall(const core::RecallParams& params, const core::RunContext& run);

}  // namespace msa::reference
