// sm90_index_merge: the output of a row from the shares of the thread blocks that split its keys.
//
// One warp a row. Each share holds its K-1 best blocks; the best K-1 of all shares are picked one
// by one, put in order of id, and the local block closes the list. The candidates are distinct
// numbers in a total order, so the result does not depend on the number of shares. LSEs are added
// in the same order as in the unsplit kernel, so their bits are the same too.
#include "cuda/device/sequence.cuh"
#include "cuda/device/topk.cuh"
#include "cuda/sm90/index_forward/launch.h"

namespace msa::cuda {
namespace {

constexpr int kWarps = 4;

__device__ __forceinline__ uint64_t warp_max(uint64_t value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const uint64_t other = __shfl_xor_sync(~0u, value, step);
    if (other > value) value = other;
  }
  return value;
}

__global__ void __launch_bounds__(kWarps * 32)
    sm90_index_merge(const __grid_constant__ IndexKernelParams p) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const core::SequenceParams& sequences = p.op.sequences;
  const int64_t num_rows = sequences.num_query_tokens << p.head_shift;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= num_rows) return;
  const Request request =
      load_request(sequences, p.op.k_idx.num_rows, find_request(sequences, p.token(row)));
  const int64_t position = request.position(p.token(row));
  const int local =
      position < 0 ? -1 : static_cast<int>(position) / static_cast<int>(p.op.block_size);

  // The n-th best candidate ends in lane n.
  uint64_t mine = kNoCandidate;
  float my_lse2 = minus_infinity();
  uint64_t last = ~uint64_t{0};
  int count = 0;
  const int per_row = p.splits * p.slots;
  for (int n = 0; n < p.num_kept; ++n) {
    uint64_t best = kNoCandidate;
    int64_t place = 0;
    for (int c = lane; c < per_row; c += 32) {
      const int64_t at = (c / p.slots * num_rows + row) * p.slots + c % p.slots;
      const uint64_t entry = p.split_entries[at];
      if (entry < last && entry > best) {
        best = entry;
        place = at;
      }
    }
    last = warp_max(best);
    if (last == kNoCandidate) break;
    const int owner = __ffs(static_cast<int>(__ballot_sync(~0u, best == last))) - 1;
    const int64_t best_place = __shfl_sync(~0u, place, owner);
    if (lane == n) {
      mine = last;
      if (p.split_lses != nullptr) my_lse2 = p.split_lses[best_place];
    }
    ++count;
  }

  // Ascending ids: a candidate's place is the number of lower ids.
  const int id = lane < count ? candidate_id(mine) : kNoId;
  int rank = 0;
  for (int n = 0; n < count; ++n) rank += __shfl_sync(~0u, id, n) < id ? 1 : 0;
  if (p.op.block_ids.data != nullptr) {
    int32_t* ids = p.op.block_ids.data + p.head(row) * p.op.block_ids.head_stride +
                   p.token(row) * p.op.block_ids.token_stride;
    if (lane < count) ids[rank] = id;
    if (lane >= count && lane < p.op.block_ids.top_k) {
      ids[lane] = lane == count && local >= 0 ? local : -1;
    }
  }
  if (p.op.lse_idx == nullptr) return;
  float lse2 = minus_infinity();
  if (p.op.lse_scope == IndexLseScope::kVisible) {
    const int64_t segment = segment_blocks(ceil_div(request.key_length, p.op.block_size));
    for (int64_t s = 0; local >= 0 && s <= local / segment; ++s) {
      lse2 = add_lse2(lse2, p.segment_lses[row * kMaxSegments + s]);
    }
  } else {
    for (int n = 0; n < count; ++n) {
      const int owner = __ffs(static_cast<int>(__ballot_sync(~0u, lane < count && rank == n))) - 1;
      lse2 = add_lse2(lse2, __shfl_sync(~0u, my_lse2, owner));
    }
    if (local >= 0) lse2 = add_lse2(lse2, p.local_lses[row]);
  }
  if (lane == 0) {
    p.op.lse_idx[p.head(row) * p.op.lse_head_stride + p.token(row) * p.op.lse_token_stride] =
        lse2 * kLn2;
  }
}

}  // namespace

cudaError_t launch_index_merge(const IndexKernelParams& params, cudaStream_t stream) {
  const int64_t num_rows = params.op.sequences.num_query_tokens << params.head_shift;
  sm90_index_merge<<<static_cast<unsigned>(ceil_div(num_rows, kWarps)), kWarps * 32, 0, stream>>>(
      params);
  return cudaGetLastError();
}

}  // namespace msa::cuda
