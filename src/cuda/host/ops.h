// The ops of the cuda backend, host side: workspace, descriptors, launches. Nothing here allocates,
// synchronises or reads back.
#pragma once

#include "core/backend.h"
#include "cuda/sm90/attention_forward/params.h"

namespace msa::cuda {

size_t index_forward_workspace(const core::IndexForwardParams& params, int num_threads);
void index_forward(const core::IndexForwardParams& params, const core::RunContext& run);
size_t attention_forward_workspace(const core::AttentionForwardParams& params, int num_threads);
void attention_forward(const core::AttentionForwardParams& params, const core::RunContext& run);
size_t dense_attention_forward_workspace(const core::AttentionForwardParams& params,
                                         int num_threads);
void dense_attention_forward(const core::AttentionForwardParams& params,
                             const core::RunContext& run);
void select_blocks(const core::SelectBlocksParams& params, const core::RunContext& run);
size_t attention_backward_workspace(const core::AttentionBackwardParams& params, int num_threads);
void attention_backward(const core::AttentionBackwardParams& params, const core::RunContext& run);
void cache_append(const core::CacheAppendParams& params, const core::RunContext& run);
void copy_pages(const core::CopyPagesParams& params, const core::RunContext& run);

/// Everything of the kernels' params but the plan's rows, with the workspace cut at `workspace`;
/// null only counts. Returns its bytes. Tests look into a workspace through it.
size_t attention_kernel_params(const core::AttentionForwardParams& op, void* workspace,
                               AttentionKernelParams* params);

}  // namespace msa::cuda
