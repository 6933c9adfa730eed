// The params of the kernels of attention's backward: host arithmetic, tested without a device.
#pragma once

#include <cstddef>

#include "cuda/sm90/attention_backward/params.h"

namespace msa::cuda {

/// Everything but the rows of the current plan, with the workspace cut at `workspace`; null only
/// counts. Returns its bytes.
size_t backward_kernel_params(const core::AttentionBackwardParams& op, void* workspace,
                              BackwardKernelParams* params);

}  // namespace msa::cuda
