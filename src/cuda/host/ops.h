// The ops of the cuda backend, host side: workspace, descriptors, launches. Nothing here allocates,
// synchronises or reads back.
#pragma once

#include "core/backend.h"

namespace msa::cuda {

size_t index_forward_workspace(const core::IndexForwardParams& params, int num_threads);
void index_forward(const core::IndexForwardParams& params, const core::RunContext& run);
size_t attention_forward_workspace(const core::AttentionForwardParams& params, int num_threads);
void attention_forward(const core::AttentionForwardParams& params, const core::RunContext& run);

}  // namespace msa::cuda
