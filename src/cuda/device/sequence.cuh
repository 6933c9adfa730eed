// Requests of a batch as the kernels see them. The arrays are the caller's and may hold anything:
// every length is clamped to the tensors here, so that no value of theirs can cause a fault.
#pragma once

#include "core/params.h"
#include "cuda/device/layout.h"

namespace msa::cuda {

/// Rows [first_row, first_row + num_rows) of q and the keys they may see.
struct Request {
  int64_t first_row;
  int64_t num_rows;
  int64_t first_key;  // row of the key tensor; 0 with pages
  int64_t key_length;
  __device__ __forceinline__ int64_t position(int64_t row) const {
    return key_length - num_rows + (row - first_row);
  }
};

__device__ __forceinline__ int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : (value > high ? high : value);
}

/// Request r in [0, batch]; `batch` stands for the rows past the last request, which see nothing.
__device__ __forceinline__ Request load_request(const core::SequenceParams& s, int64_t num_key_rows,
                                                int64_t r) {
  Request request;
  const int64_t begin = clamp(s.cu_seqlens_q[r], 0, s.num_query_tokens);
  const int64_t end =
      r < s.batch ? clamp(s.cu_seqlens_q[r + 1], begin, s.num_query_tokens) : s.num_query_tokens;
  request.first_row = begin;
  request.num_rows = end - begin;
  request.first_key = 0;
  request.key_length = 0;
  if (r >= s.batch) return request;
  if (s.page_table != nullptr) {
    request.key_length = clamp(s.kv_lens[r], 0, s.max_pages * s.page_size);
  } else {
    request.first_key = clamp(s.cu_seqlens_k[r], 0, num_key_rows);
    request.key_length =
        clamp(s.cu_seqlens_k[r + 1], request.first_key, num_key_rows) - request.first_key;
  }
  return request;
}

/// The request whose rows hold `row`: the last one that begins at or before it.
__device__ __forceinline__ int64_t find_request(const core::SequenceParams& s, int64_t row) {
  int64_t low = 0;
  int64_t high = s.batch;  // cu_seqlens_q[low] <= row always; the answer is in [low, high]
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (s.cu_seqlens_q[middle] <= row) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

struct TileLocation {
  int64_t request;  // -1: there is no such tile
  int64_t tile;     // within the request
};

/// Which request the tile `index` of a batch belongs to, when request r has count(r) tiles. Every
/// lane of the calling warp gets the answer.
template <typename Count>
__device__ __forceinline__ TileLocation find_tile(int64_t index, int64_t num_requests,
                                                  const Count& count) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int64_t base = 0; base < num_requests; base += 32) {
    const int mine = base + lane < num_requests ? static_cast<int>(count(base + lane)) : 0;
    int sum = mine;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int below = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += below;
    }
    const int total = __shfl_sync(~0u, sum, 31);
    if (index < total) {
      const int owner = __ffs(static_cast<int>(__ballot_sync(~0u, sum > index))) - 1;
      const int before = __shfl_sync(~0u, sum - mine, owner);
      return {base + owner, index - before};
    }
    index -= total;
  }
  return {-1, 0};
}

/// Where block b of a request begins for the copy engine: (token, page).
__device__ __forceinline__ int2 block_coordinates(const core::SequenceParams& s, int64_t r,
                                                  int64_t first_key, int64_t block,
                                                  int64_t block_size) {
  if (s.page_table != nullptr) {
    return make_int2(0, s.page_table[r * s.page_table_stride + block]);
  }
  return make_int2(static_cast<int>(first_key + block * block_size), 0);
}

}  // namespace msa::cuda
