// sm90_index_merge: the output of a row from the shares of the thread blocks that split its keys.
//
// One warp a row. A share holds its K-1 best blocks in order of id, and the shares are in order of
// id too. So the result is what lies above a score T, in the order in which it lies there; T comes
// from bisection between the least and the greatest score and a count of the warp's candidates at
// each step. Of scores equal to T the first ones are taken: ties go to the lower id. The selection
// does not depend on the number of shares, and LSEs are added in the same order as in the unsplit
// kernel, so their bits do not either. Rows with one piece are written by the index kernel.
#include "cuda/device/lse.cuh"
#include "cuda/device/overlap.cuh"
#include "cuda/sm90/index_forward/launch.h"
#include "cuda/sm90/index_forward/pieces.cuh"

namespace msa::cuda {
namespace {

constexpr int kWarps = 8;

/// Candidates of one row: groups of four, [pieces, slots / 4] of them, padding and room included.
struct RowShares {
  const uint4* words;    // of the row in the first share
  int64_t piece_stride;  // in groups
  int groups_shift;      // log2 of the groups of a piece
  int num_groups;
  __device__ __forceinline__ int64_t place(int group) const {
    const int piece = group >> groups_shift;
    return piece * piece_stride + (group - (piece << groups_shift));
  }
};

__device__ __forceinline__ bool is_real(uint32_t key) {
  return key != kNoCandidate && key != kNeverReplaced;
}

/// The lane's groups, lane + 32 i for i < kHeld: the keys in registers, all on their way at once.
template <int kHeld>
struct OwnKeys {
  uint32_t words[kHeld][4];
  __device__ __forceinline__ explicit OwnKeys(const RowShares& shares) {
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      uint4 keys = make_uint4(kNoCandidate, kNoCandidate, kNoCandidate, kNoCandidate);
      if (lane + 32 * i < shares.num_groups) keys = shares.words[shares.place(lane + 32 * i)];
      words[i][0] = is_real(keys.x) ? keys.x : kNoCandidate;
      words[i][1] = is_real(keys.y) ? keys.y : kNoCandidate;
      words[i][2] = is_real(keys.z) ? keys.z : kNoCandidate;
      words[i][3] = is_real(keys.w) ? keys.w : kNoCandidate;
    }
  }
  /// Of the row, those whose key is at least `key`, which is above kNoCandidate.
  __device__ __forceinline__ int count_from(uint32_t key) const {
    unsigned count = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
#pragma unroll
      for (int n = 0; n < 4; ++n) count += words[i][n] >= key ? 1 : 0;
    }
    return static_cast<int>(__reduce_add_sync(~0u, count));
  }
};

/// What is taken: all above `threshold`, and the first `ties` of those equal to it.
struct Cut {
  uint32_t threshold;
  int ties;
  int count;  // taken altogether
};

template <int kHeld>
__device__ __forceinline__ Cut find_cut(const OwnKeys<kHeld>& own, int num_kept) {
  const int all = own.count_from(kNoCandidate + 1);
  if (all <= num_kept) return {kNoCandidate, 0, all};
  uint32_t least = kNeverReplaced;
  uint32_t greatest = kNoCandidate;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const uint32_t key = own.words[i][n];
      if (key == kNoCandidate) continue;
      least = min(least, key);
      greatest = max(greatest, key);
    }
  }
  // More than num_kept are at least `low`, fewer than num_kept at least `high`.
  uint32_t low = __reduce_min_sync(~0u, least);
  uint32_t high = __reduce_max_sync(~0u, greatest) + 1;
  int above = 0;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    const int count = own.count_from(middle);
    if (count == num_kept) return {middle - 1, 0, num_kept};
    if (count > num_kept) {
      low = middle;
    } else {
      high = middle;
      above = count;
    }
  }
  return {low, num_kept - above, num_kept};
}

/// kHeld: groups of a lane at most.
template <int kHeld>
__global__ void __launch_bounds__(kWarps * 32, kHeld == 1   ? 6
                                               : kHeld == 8 ? 2
                                                            : 1)
    sm90_index_merge(const __grid_constant__ IndexKernelParams p) {
  __shared__ float lses[kWarps][32];  // of the selected blocks, in order
  allow_next_kernel();
  wait_for_previous_kernel();
  const int lane = static_cast<int>(threadIdx.x % 32);
  float* own_lses = lses[threadIdx.x / 32];
  const core::SequenceParams& sequences = p.op.sequences;
  const int64_t num_rows = sequences.num_query_tokens << p.head_shift;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= num_rows) return;
  const Request request =
      load_request(sequences, p.op.k_idx.num_rows, find_request(sequences, p.token(row)));
  const int64_t row_in_request = p.token(row) - request.first_row;
  const TilePieces pieces =
      tile_pieces(p, request, row_in_request >> p.tile_shift, *p.common_piece);
  if (pieces.count() == 1) return;
  const int64_t position = request.position(p.token(row));
  const int local = position < 0 ? -1 : static_cast<int>(position) >> p.block_shift;

  // 1. The cut, then the ids above it by ascending id.
  const int groups = p.slots / 4;
  const RowShares shares = {reinterpret_cast<const uint4*>(p.split_keys) + row * groups,
                            num_rows * groups, p.slots == kSlotsAtOnce ? 2 : 3,
                            pieces.count() * groups};
  const auto* ids_of_shares = reinterpret_cast<const uint4*>(p.split_ids) + row * groups;
  const auto* lses_of_shares = reinterpret_cast<const uint4*>(p.split_lses) + row * groups;
  const OwnKeys<kHeld> own_keys(shares);
  const Cut cut = find_cut(own_keys, p.num_kept);
  int32_t* ids = p.op.block_ids.data;
  if (ids != nullptr) {
    ids += p.head(row) * p.op.block_ids.head_stride + p.token(row) * p.op.block_ids.token_stride;
  }
  // Counts in one number: above the cut in the low half, equal to it in the high half.
  uint32_t own[kHeld];
  uint4 id_words[kHeld];  // on their way while the counts are added
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    own[i] = 0;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const uint32_t key = own_keys.words[i][n];
      if (key == kNoCandidate) continue;
      own[i] += key > cut.threshold ? 1u : (key == cut.threshold ? 0x10000u : 0u);
    }
    id_words[i] = own[i] != 0 ? ids_of_shares[shares.place(lane + 32 * i)] : make_uint4(0, 0, 0, 0);
  }
  uint32_t before_group = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    uint32_t sum = own[i];
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const uint32_t below = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += below;
    }
    const uint32_t total = __shfl_sync(~0u, sum, 31);
    if (own[i] != 0) {
      const uint32_t before = before_group + sum - own[i];
      int taken = static_cast<int>(before & 0xFFFFu);
      int ties = static_cast<int>(before >> 16);
      const uint32_t own_ids[4] = {id_words[i].x, id_words[i].y, id_words[i].z, id_words[i].w};
      uint4 lse_words = make_uint4(0, 0, 0, 0);
      if (p.split_lses != nullptr) lse_words = lses_of_shares[shares.place(lane + 32 * i)];
      const uint32_t own_lse_bits[4] = {lse_words.x, lse_words.y, lse_words.z, lse_words.w};
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const uint32_t key = own_keys.words[i][n];
        const bool above = key != kNoCandidate && key > cut.threshold;
        const bool equal = key != kNoCandidate && key == cut.threshold;
        if (above || (equal && ties < cut.ties)) {
          const int to = taken + min(ties, cut.ties);
          if (ids != nullptr) ids[to] = static_cast<int32_t>(own_ids[n]);
          own_lses[to] = __uint_as_float(own_lse_bits[n]);
        }
        taken += above ? 1 : 0;
        ties += equal ? 1 : 0;
      }
    }
    before_group += total;
  }
  if (ids != nullptr && lane >= cut.count && lane < p.op.block_ids.top_k) {
    ids[lane] = lane == cut.count && local >= 0 ? local : -1;
  }

  // 2. LSE, in the order of the unsplit kernel.
  if (p.op.lse_idx == nullptr) return;
  __syncwarp();
  float lse2 = minus_infinity();
  if (p.op.lse_scope == IndexLseScope::kVisible) {
    for (int s = 0; local >= 0 && s <= local / pieces.segment; ++s) {
      lse2 = add_lse2(lse2, p.segment_lses[row * kMaxSegments + s]);
    }
  } else {
    for (int n = 0; n < cut.count; ++n) lse2 = add_lse2(lse2, own_lses[n]);
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
  const auto blocks = static_cast<unsigned>(ceil_div(num_rows, kWarps));
  const int held = (params.splits * params.slots / 4 + 31) / 32;
  static_assert(kMaxSegments * 32 / 4 <= 16 * 32, "no row has more candidates");
  return launch_overlapped(held <= 1   ? sm90_index_merge<1>
                           : held <= 8 ? sm90_index_merge<8>
                                       : sm90_index_merge<16>,
                           blocks, kWarps * 32, 0, stream, params);
}

}  // namespace msa::cuda
