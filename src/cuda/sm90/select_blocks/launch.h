// The selection kernel as the host sees it.
#pragma once

#include <cuda_runtime_api.h>

#include "core/params.h"

namespace msa::cuda {

inline constexpr int kSelectMost = 64;          // K
inline constexpr int kSelectStages = 3;         // of a warp's ring, at most
inline constexpr int kSelectChunk = 4096;       // columns staged at once, at most
inline constexpr int kSelectBytes = 200 << 10;  // of shared memory, for rings and rooms
inline constexpr int kSelectMostWarps = 16;

struct SelectKernelParams {
  core::SelectBlocksParams op;
  int chunk = 0;         // columns staged at once: a multiple of 128
  int stages = 0;        // of each warp's ring
  int warps = 0;         // of a thread block
  bool aligned = false;  // every row starts at a multiple of 16 bytes
};

/// How a multiprocessor's shared memory is divided for rows of `columns` scores.
SelectKernelParams select_kernel_params(const core::SelectBlocksParams& op);
cudaError_t launch_select_blocks(const SelectKernelParams& params, int num_multiprocessors,
                                 cudaStream_t stream);

}  // namespace msa::cuda
