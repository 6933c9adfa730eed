// How the blocks of all requests are shared out among the thread blocks of sm90_decode_scores: in
// one row, request after request, cut into equal ranges. Lengths are on the device, so every thread
// block counts for itself. Plain CUDA C++: it also runs on the host, where its tests are.
#pragma once

#include "cuda/device/sequence.cuh"
#include "cuda/sm90/decode/params.h"

namespace msa::cuda {

/// What is known of the request that a range of blocks has come to.
struct ScoredRequest {
  int index;
  int begin;  // of the range: first block
  int end;
  Request rows;
};

/// prefix[r] = blocks of the requests before r. All threads of the block.
template <int kThreads>
__device__ __forceinline__ void count_blocks(const DecodeIndexParams& p, int32_t* prefix) {
  __shared__ int32_t warp_sums[static_cast<size_t>(kThreads / 32)];
  const core::SequenceParams& s = p.op.sequences;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int batch = static_cast<int>(s.batch);
  int32_t before = 0;
  for (int base = 0; base < batch; base += kThreads) {
    const int r = base + static_cast<int>(threadIdx.x);
    int32_t mine = 0;
    if (r < batch) {
      const Request request = load_request(s, p.op.k_idx.num_rows, r);
      mine = p.scored_blocks(request.num_rows, request.key_length);
    }
    int32_t sum = mine;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int32_t below = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += below;
    }
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    int32_t total = 0;
    for (int n = 0; n < kThreads / 32; ++n) {
      if (n == warp) sum += total;
      total += warp_sums[n];
    }
    if (r < batch) prefix[r] = before + sum - mine;
    before += total;
    __syncthreads();
  }
  if (threadIdx.x == 0) prefix[batch] = before;
  __syncthreads();
}

/// Calls use(request) for each part of this thread block's range that lies in one request.
template <typename Use>
__device__ __forceinline__ void for_requests(const DecodeIndexParams& p, const int32_t* prefix,
                                             const Use& use) {
  const int batch = static_cast<int>(p.op.sequences.batch);
  const auto total = static_cast<uint32_t>(prefix[batch]);
  const auto begin = static_cast<int>(piece_begin(total, gridDim.x, blockIdx.x));
  const auto end = static_cast<int>(piece_begin(total, gridDim.x, blockIdx.x + 1));
  if (begin == end) return;
  int low = 0;  // the last request that begins at or before `begin`
  int high = batch;
  while (low + 1 < high) {
    const int middle = (low + high) / 2;
    if (prefix[middle] <= begin) {
      low = middle;
    } else {
      high = middle;
    }
  }
  for (int at = begin, r = low; at < end; ++r) {
    const int next = min(prefix[r + 1], end);
    if (next == at) continue;
    use(ScoredRequest{r, at - prefix[r], next - prefix[r],
                      load_request(p.op.sequences, p.op.k_idx.num_rows, r)});
    at = next;
  }
}

}  // namespace msa::cuda
