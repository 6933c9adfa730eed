// The attention kernels as the host sees them. Sizes are checked before: D and B are 64 or 128.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "cuda/sm90/attention_forward/params.h"

namespace msa::cuda {

struct AttentionMaps {
  CUtensorMap q;  // [D, Hq, Tq], box [64, G, 1]
  CUtensorMap k;  // [D, tokens, Hkv, pages], box [64, B, 1, 1]
  CUtensorMap v;
};

/// The reverse index of the chunks in [plan_begin, plan_end).
cudaError_t launch_attention_plan(const AttentionKernelParams& params, cudaStream_t stream);
/// The passes of a plan: one launch gathers pass n and merges pass n - 1.
cudaError_t launch_attention_passes_bf16(const AttentionKernelParams& params,
                                         const AttentionMaps& maps, int num_passes, int num_blocks,
                                         cudaStream_t stream);
cudaError_t launch_attention_passes_fp16(const AttentionKernelParams& params,
                                         const AttentionMaps& maps, int num_passes, int num_blocks,
                                         cudaStream_t stream);

/// The plan's query tiles, or all tiles of the dense op.
cudaError_t launch_attention_tiles_bf16(const AttentionKernelParams& params,
                                        const AttentionMaps& maps, int num_blocks,
                                        cudaStream_t stream);
cudaError_t launch_attention_tiles_fp16(const AttentionKernelParams& params,
                                        const AttentionMaps& maps, int num_blocks,
                                        cudaStream_t stream);

/// Rows of the plan that passes or tiles marked.
cudaError_t launch_attention_exact_rows(const AttentionKernelParams& params, cudaStream_t stream);

}  // namespace msa::cuda
