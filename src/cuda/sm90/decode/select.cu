// sm90_decode_select: ids of decode rows from the block scores that sm90_decode_scores left.
//
// A thread block takes one row (query and index head). Up to eight warps look through 1024 columns
// or more each (select_row.cuh) and keep their K-1 best; then every thread ranks one of these among
// all, and the K-1 best of the row are written in ascending order, with the local block last. The
// result is a pure function of the scores, however many warps look.
//
// Rows that see at most K blocks take all of them and have no scores. Bound: latency; 1M keys are
// 32 KiB of scores a row.
#include "cuda/device/overlap.cuh"
#include "cuda/device/select_row.cuh"
#include "cuda/device/sequence.cuh"
#include "cuda/sm90/decode/launch.h"

namespace msa::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kChunk = 1024;        // columns of a warp at once
constexpr int kLeastColumns = 512;  // of a warp: more warps mean more to rank in the end
constexpr int kMostKept = 31;       // K - 1
static_assert(kWarps * kMostKept <= kThreads, "a thread ranks one entry");

/// Columns [begin, end) by one warp; its best come to lie in `room`, best first.
template <int kSets>
__device__ __forceinline__ int select_share(const float* scores, int begin, int end, int kept,
                                            float* stage, uint64_t* room) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int held = 0;
  for (int first = begin; first < end; first += kChunk) {
    const int count = min(kChunk, end - first);
    const int fours = (count + 127) / 128 * 32;
    // Scores lie at multiples of 16 bytes, and the stride of a row is a multiple of 128 columns.
    const auto* from = reinterpret_cast<const float4*>(scores + first);
#pragma unroll
    for (int n = 0; n < kChunk / 128; ++n) {
      const int column = (n * 32 + lane) * 4;
      if (n * 32 + lane >= fours) continue;
      float4 four = make_float4(select_lowest(), select_lowest(), select_lowest(), select_lowest());
      if (column + 4 <= count) {
        four = __ldcg(from + n * 32 + lane);
      } else {
        if (column + 0 < count) four.x = __ldcg(scores + first + column);
        if (column + 1 < count) four.y = __ldcg(scores + first + column + 1);
        if (column + 2 < count) four.z = __ldcg(scores + first + column + 2);
      }
      reinterpret_cast<float4*>(stage)[n * 32 + lane] = four;
    }
    __syncwarp();
    held = select_columns<kSets>(stage, count, first, kept, room, held);
    __syncwarp();
  }
  return held;
}

template <int kSets>
__global__ void __launch_bounds__(kThreads)
    sm90_decode_select(const __grid_constant__ DecodeIndexParams p) {
  __shared__ __align__(16) float stages[kWarps][kChunk];
  __shared__ uint64_t rooms[kWarps][kCandidatePlaces];
  __shared__ int counts[kWarps];
  __shared__ uint64_t best[32];
  allow_next_kernel();
  // The score kernel lets this one start only when what came before it is complete: lengths may be
  // read, scores not yet.
  const core::SequenceParams& s = p.op.sequences;
  const int top_k = static_cast<int>(p.op.block_ids.top_k);
  const int kept = top_k - 1;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int head = static_cast<int>(blockIdx.x) & ((1 << p.head_shift) - 1);
  const int slot = static_cast<int>(blockIdx.x) >> p.head_shift;
  const int r = slot / p.max_queries;
  const int query = slot - r * p.max_queries;
  const Request request = load_request(s, p.op.k_idx.num_rows, r);
  // The rows past the last request are those of slot `batch`: every max_queries-th by one block.
  if (r < s.batch && (query >= request.num_rows || request.num_rows > p.max_queries)) {
    wait_for_previous_kernel();
    return;
  }
  const int64_t position = r < s.batch ? request.position(request.first_row + query) : -1;
  const int local = position < 0 ? -1 : static_cast<int>(position >> p.block_shift);
  const bool scored = local > kept;
  wait_for_previous_kernel();
  if (!scored) {
    for (int64_t row = query; row < request.num_rows; row += p.max_queries) {
      const int64_t token = request.first_row + row;
      int32_t* ids = p.op.block_ids.data + head * p.op.block_ids.head_stride +
                     token * p.op.block_ids.token_stride;
      if (static_cast<int>(threadIdx.x) < top_k) {
        const int place = static_cast<int>(threadIdx.x);
        ids[place] = place <= local ? place : -1;
      }
      if (r < s.batch) break;
    }
    return;
  }

  const int64_t token = request.first_row + query;
  const float* scores = p.scores + ((token << p.head_shift) + head) * p.score_stride;
  const int used = min(kWarps, (local + kLeastColumns - 1) / kLeastColumns);
  const int share = (local + used * 128 - 1) / (used * 128) * 128;
  int held = 0;
  if (warp < used && kept > 0) {
    const int begin = min(warp * share, local);
    const int end = min(begin + share, local);
    held = select_share<kSets>(scores, begin, end, kept, stages[warp], rooms[warp]);
  }
  int32_t* ids =
      p.op.block_ids.data + head * p.op.block_ids.head_stride + token * p.op.block_ids.token_stride;
  if (used == 1) {
    if (warp == 0) write_selection(rooms[0], held, local, ids, top_k);
    return;
  }
  if (lane == 0) counts[warp] = held;
  __syncthreads();
  // One thread for each entry of a warp's list; `kept` places each.
  const int list = static_cast<int>(threadIdx.x) / max(kept, 1);
  const int place = static_cast<int>(threadIdx.x) - list * kept;
  const bool real = list < used && place < counts[list];
  if (real) {
    const uint64_t own = rooms[list][place];
    int rank = 0;
    for (int other = 0; other < used; ++other) {
      for (int n = 0; n < counts[other]; ++n) rank += rooms[other][n] > own ? 1 : 0;
    }
    if (rank < kept) best[rank] = own;
  }
  __syncthreads();
  if (warp == 0) write_selection(best, kept, local, ids, top_k);
}

}  // namespace

cudaError_t launch_decode_select(const DecodeIndexParams& params, cudaStream_t stream) {
  const int64_t slots = (params.op.sequences.batch + 1) * params.max_queries;
  const auto kernel = select_sets(static_cast<int>(params.op.block_ids.top_k) - 1) == 1
                          ? sm90_decode_select<1>
                          : sm90_decode_select<2>;
  return launch_overlapped(kernel, static_cast<unsigned>(slots << params.head_shift), kThreads, 0,
                           stream, params);
}

}  // namespace msa::cuda
