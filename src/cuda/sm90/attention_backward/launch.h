// The kernels of attention's backward as the host sees them. Sizes are checked before: D and B are
// 64 or 128.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "cuda/sm90/attention_backward/params.h"

namespace msa::cuda {

struct BackwardMaps {
  CUtensorMap q;     // [D, Hq, Tq], box [64, G, 1]
  CUtensorMap dout;  // as q
  CUtensorMap k;     // [D, tokens, Hkv, 1], box [64, B, 1, 1]
  CUtensorMap v;
};

/// `count` floats, a multiple of 4.
cudaError_t launch_backward_zero(float* sums, int64_t count, cudaStream_t stream);
/// Statistics of the plan's rows.
cudaError_t launch_backward_statistics(const BackwardKernelParams& params, DType dtype,
                                       cudaStream_t stream);
/// All visits of the plan; the sums must have been zeroed.
cudaError_t launch_backward_visits_bf16(const BackwardKernelParams& params,
                                        const BackwardMaps& maps, int num_blocks,
                                        cudaStream_t stream);
cudaError_t launch_backward_visits_fp16(const BackwardKernelParams& params,
                                        const BackwardMaps& maps, int num_blocks,
                                        cudaStream_t stream);
/// Sums to a gradient of 16-bit elements.
cudaError_t launch_backward_finish(const FinishParams& params, cudaStream_t stream);

}  // namespace msa::cuda
