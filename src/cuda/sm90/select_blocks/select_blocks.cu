// sm90_select_blocks: the K best blocks of every row of given scores; exact, by spec's order.
//
//   scores [Hkv, Tq, max_blocks] float32  ->  ids [Hkv, Tq, K] int32, ascending, then -1
//
// One thread block a multiprocessor; each of its warps takes every so many-th row and streams it
// through a ring of its own by bulk copies, so that rows ahead are on their way while one is looked
// at. The look is select_row.cuh. With local blocks given, a row's candidates are the blocks before
// its local one, which is taken besides.
//
// Bound: memory, 4 bytes a score. 131072 x 1024: 0.54 GB, 117 us at the 4.6 TB/s of reads. About
// 400 instructions a row of 1024 scores are 58 us on all schedulers of 132 multiprocessors.
#include "cuda/device/mbarrier.cuh"
#include "cuda/device/overlap.cuh"
#include "cuda/device/select_row.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/sm90/select_blocks/launch.h"

namespace msa::cuda {
namespace {

/// Dynamic shared memory: barriers [warps, stages], rooms [warps], rings [warps, stages, chunk].
struct SelectShared {
  uint64_t* barriers;
  uint64_t* room;
  float* ring;
  __device__ __forceinline__ SelectShared(const SelectKernelParams& p, int warp) {
    extern __shared__ __align__(1024) uint8_t shared_bytes[];
    auto* words = reinterpret_cast<uint64_t*>(shared_bytes);
    barriers = words + warp * p.stages;
    words += kSelectMostWarps * kSelectStages;
    room = words + warp * kCandidatePlaces;
    words += p.warps * kCandidatePlaces;
    ring = reinterpret_cast<float*>(words) + int64_t{warp} * p.stages * p.chunk;
  }
};

__device__ __forceinline__ const float* row_scores(const SelectKernelParams& p, int64_t row) {
  const int64_t head = row / p.op.num_query_tokens;
  const int64_t token = row - head * p.op.num_query_tokens;
  return p.op.scores + head * p.op.score_head_stride + token * p.op.score_token_stride;
}

template <int kSets>
__global__ void __launch_bounds__(kSelectMostWarps * 32, 1)
    sm90_select_blocks(const __grid_constant__ SelectKernelParams p) {
  allow_next_kernel();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const SelectShared shared(p, warp);
  if (lane == 0) {
    for (int stage = 0; stage < p.stages; ++stage) mbarrier_init(shared.barriers + stage, 1);
    fence_mbarrier_init();
  }
  __syncwarp();
  wait_for_previous_kernel();
  const int64_t num_rows = p.op.num_kv_heads * p.op.num_query_tokens;
  const int64_t step = int64_t{gridDim.x} * p.warps;
  const int64_t first_row = int64_t{warp} * gridDim.x + blockIdx.x;
  const int columns = static_cast<int>(p.op.max_blocks);
  const int top_k = static_cast<int>(p.op.block_ids.top_k);
  const uint64_t policy = evict_first_policy();

  // What is copied next: chunk `ahead_column` of row `ahead_row`.
  int64_t ahead_row = first_row;
  int ahead_column = 0;
  uint32_t ahead_stage = 0;
  const auto copy_next = [&] {
    if (ahead_row >= num_rows) return;
    const int count = min(p.chunk, columns - ahead_column);
    if (lane == 0) {
      const uint32_t bytes = p.aligned ? static_cast<uint32_t>(count / 4 * 16) : 0;
      uint64_t* barrier = shared.barriers + ahead_stage;
      mbarrier_arrive_expect(barrier, bytes);
      if (bytes > 0) {
        bulk_load(shared.ring + int64_t{ahead_stage} * p.chunk,
                  row_scores(p, ahead_row) + ahead_column, bytes, barrier, policy);
      }
    }
    ahead_column += p.chunk;
    if (ahead_column >= columns) {
      ahead_column = 0;
      ahead_row += step;
    }
    if (++ahead_stage == static_cast<uint32_t>(p.stages)) ahead_stage = 0;
  };
  for (int stage = 0; stage < p.stages; ++stage) copy_next();

  RingPosition position;
  for (int64_t row = first_row; row < num_rows; row += step) {
    const int64_t head = row / p.op.num_query_tokens;
    const int64_t token = row - head * p.op.num_query_tokens;
    int candidates = columns;
    int local = -1;
    int kept = top_k;
    if (p.op.local_blocks != nullptr) {  // a block that the scores do not reach is not a candidate
      local = p.op.local_blocks[token];
      candidates = max(0, min(local, columns));
      kept = top_k - 1;
    }
    int held = 0;
    for (int column = 0; column < columns; column += p.chunk) {
      float* stage = shared.ring + int64_t{position.stage} * p.chunk;
      mbarrier_wait(shared.barriers + position.stage, position.parity);
      const int arrived = p.aligned ? min(p.chunk, columns - column) / 4 * 4 : 0;
      const int count = min(p.chunk, candidates - column);
      if (count > 0 && kept > 0) {
        // What the copy engine could not bring, and the padding.
        const float* from = row_scores(p, row) + column;
        bool wrote = false;
        for (int n = min(arrived, count) + lane; n < (count + 127) / 128 * 128; n += 32) {
          stage[n] = n < count ? from[n] : select_lowest();
          wrote = true;
        }
        if (wrote) fence_async_proxy();
        __syncwarp();
        held = select_columns<kSets>(stage, count, column, kept, shared.room, held);
      }
      __syncwarp();
      copy_next();
      position.advance(static_cast<uint32_t>(p.stages));
    }
    int32_t* ids = p.op.block_ids.data + head * p.op.block_ids.head_stride +
                   token * p.op.block_ids.token_stride;
    write_selection(shared.room, held, local >= 0 ? local : -1, ids, top_k);
    __syncwarp();
  }
}

}  // namespace

SelectKernelParams select_kernel_params(const core::SelectBlocksParams& op) {
  SelectKernelParams params;
  params.op = op;
  const int64_t columns = op.max_blocks < kSelectChunk ? op.max_blocks : kSelectChunk;
  params.chunk = static_cast<int>(round_up(columns > 0 ? columns : 1, 128));
  params.stages = params.chunk <= 1024 ? kSelectStages : 2;
  const int warp_bytes = params.stages * params.chunk * 4 + kCandidatePlaces * 8;
  params.warps = kSelectBytes / warp_bytes;
  if (params.warps > kSelectMostWarps) params.warps = kSelectMostWarps;
  const bool one_head = op.num_kv_heads <= 1;
  const bool one_token = op.num_query_tokens <= 1;
  params.aligned = reinterpret_cast<uintptr_t>(op.scores) % 16 == 0 &&
                   (one_head || op.score_head_stride % 4 == 0) &&
                   (one_token || op.score_token_stride % 4 == 0);
  return params;
}

cudaError_t launch_select_blocks(const SelectKernelParams& params, int num_multiprocessors,
                                 cudaStream_t stream) {
  const int64_t rows = params.op.num_kv_heads * params.op.num_query_tokens;
  const auto blocks =
      static_cast<unsigned>(rows < num_multiprocessors ? rows : num_multiprocessors);
  const int bytes = kSelectMostWarps * kSelectStages * 8 +
                    params.warps * (params.stages * params.chunk * 4 + kCandidatePlaces * 8);
  const int sets = select_sets(static_cast<int>(params.op.block_ids.top_k));
  const auto kernel = sets == 1   ? sm90_select_blocks<1>
                      : sets == 2 ? sm90_select_blocks<2>
                                  : sm90_select_blocks<4>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return launch_overlapped(kernel, blocks, static_cast<unsigned>(params.warps) * 32,
                           static_cast<size_t>(bytes), stream, params);
}

}  // namespace msa::cuda
