// sm90_decode_attention: attention over the listed blocks for requests with few queries.
//
//   out[t, h] = softmax over listed visible tokens j (scale q[t, h] . k[j]) v[j],  lse[t, h]
//
// A cluster of eight thread blocks takes one query and one group: up to 16 heads are the 16 rows of
// mma.m16n8k16. Each thread block takes an eighth of the list, two blocks of 64 KiB of keys and
// values for K = 16, and each of its four warps a quarter of the tokens of every block, with a
// running maximum of its own. Then the warps are merged through shared memory and the thread blocks
// through that of the cluster, always in the same order: a row's bits follow from its own list.
//
// Repeats, ids outside and ids without a visible token are dropped first. Values that the row must
// not see are zeroed in shared memory, as 0 * NaN is NaN.
//
// Bound: memory, 1 MiB a query and group for K = 16. With one block in shared memory at a time
// three thread blocks share a multiprocessor, so that copies of one run beside products of others.
#pragma once

#include "cuda/device/cluster.cuh"
#include "cuda/device/mbarrier.cuh"
#include "cuda/device/overlap.cuh"
#include "cuda/device/sequence.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/sm90/decode/launch.h"
#include "cuda/sm90/decode/products.cuh"

namespace msa::cuda {

struct DecodeBlock {
  int token;  // coordinates of the copy engine
  int page;
  int visible;  // tokens of it that the row sees: at least 1
};

struct DecodeShared {
  uint64_t keys_full[kDecodeMostBlocks];
  uint64_t values_full[kDecodeMostBlocks];
  DecodeBlock blocks[kDecodeMostBlocks];
  int num_blocks;  // of this thread block
  int num_ranks;   // thread blocks that have any
  float warp_max[kDecodeWarps][kDecodeHeads];
  float warp_sum[kDecodeWarps][kDecodeHeads];
  float max2[kDecodeHeads];  // of this thread block: in units of base-two logits
  float sum[kDecodeHeads];
};
static_assert(sizeof(DecodeShared) <= 1024, "it lies in front of the tiles");

/// The list of the row, cleaned; this thread block's part of it goes to shared memory. One warp.
template <typename Traits>
__device__ __forceinline__ void take_blocks(const DecodeAttentionParams& p, const Request& request,
                                            int64_t r, int64_t row, int group, int rank,
                                            DecodeShared& shared) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t position = request.position(row);
  const int64_t last = position >> p.block_shift;  // -1 for a row without a position
  const auto top_k = static_cast<int>(p.op.block_ids.top_k);
  const int32_t* ids =
      p.op.block_ids.data + group * p.op.block_ids.head_stride + row * p.op.block_ids.token_stride;
  const int id = lane < top_k ? ids[lane] : -1;
  const unsigned ends = __ballot_sync(~0u, id == -1);
  const bool listed = (ends & ((2u << lane) - 1)) == 0 && id >= 0 && id <= last;
  const unsigned same = __match_any_sync(~0u, listed ? id : -1 - lane);
  const bool taken = listed && __ffs(static_cast<int>(same)) - 1 == lane;
  const unsigned all = __ballot_sync(~0u, taken);
  const int count = __popc(all);
  const int each = (count + kDecodeCluster - 1) / kDecodeCluster;
  const int begin = rank * each;
  const int place = __popc(all & ((1u << lane) - 1)) - begin;
  if (taken && place >= 0 && place < each) {
    const int2 at = block_coordinates(p.op.sequences, r, request.first_key, id, Traits::kBlock);
    const int64_t seen = position + 1 - (static_cast<int64_t>(id) << p.block_shift);
    shared.blocks[place] = {at.x, at.y,
                            static_cast<int>(seen < Traits::kBlock ? seen : Traits::kBlock)};
  }
  if (lane == 0) {
    shared.num_blocks = max(0, min(each, count - begin));
    shared.num_ranks = each > 0 ? (count + each - 1) / each : 0;
  }
  __syncwarp();
}

template <typename Traits>
__device__ __forceinline__ void copy_tile(const CUtensorMap& map, uint8_t* tile, uint64_t* barrier,
                                          const DecodeBlock& block, int group) {
  mbarrier_arrive_expect(barrier, Traits::kTileBytes);
#pragma unroll
  for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
    tma_load_4d(tile + column * Traits::kBlock * 2, &map, barrier, column, block.token, group,
                block.page);
  }
}

/// The warps of a thread block into one: max2 and sum in shared memory, the output in outputs[0].
template <typename Traits>
__device__ __forceinline__ void merge_warps(DecodeWarp<Traits>& own, DecodeShared& shared,
                                            float* outputs) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    own.sum[half] += __shfl_xor_sync(~0u, own.sum[half], 1);
    own.sum[half] += __shfl_xor_sync(~0u, own.sum[half], 2);
    if (lane % 4 == 0) {
      shared.warp_max[warp][lane / 4 + 8 * half] = own.max2[half];
      shared.warp_sum[warp][lane / 4 + 8 * half] = own.sum[half];
    }
  }
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = lane / 4 + 8 * half;
    float most = shared.warp_max[0][head];
#pragma unroll
    for (int n = 1; n < kDecodeWarps; ++n) most = fmaxf(most, shared.warp_max[n][head]);
    const float shift = most == minus_infinity() ? 0.0f : most;
    if (warp == 0 && lane % 4 == 0) {
      float sum = 0.0f;
#pragma unroll
      for (int n = 0; n < kDecodeWarps; ++n) {
        sum += shared.warp_sum[n][head] * exp2_fast(shared.warp_max[n][head] - shift);
      }
      shared.max2[head] = most;
      shared.sum[head] = sum;
    }
    const float weight = exp2_fast(own.max2[half] - shift);
#pragma unroll
    for (int n = 0; n < DecodeWarp<Traits>::kValueTiles; ++n) {
      *reinterpret_cast<float2*>(outputs + (warp * kDecodeHeads + head) * Traits::kDim + n * 8 +
                                 lane % 4 * 2) =
          make_float2(own.out[n][2 * half] * weight, own.out[n][2 * half + 1] * weight);
    }
  }
  __syncthreads();
  constexpr int kElements = kDecodeHeads * Traits::kDim;
  for (int e = static_cast<int>(threadIdx.x) * 4; e < kElements; e += Traits::kThreads * 4) {
    float4 all = *reinterpret_cast<const float4*>(outputs + e);
#pragma unroll
    for (int n = 1; n < kDecodeWarps; ++n) {
      const float4 more = *reinterpret_cast<const float4*>(outputs + n * kElements + e);
      all = make_float4(all.x + more.x, all.y + more.y, all.z + more.z, all.w + more.w);
    }
    *reinterpret_cast<float4*>(outputs + e) = all;
  }
}

/// Two neighbouring elements of an output row; the address is a multiple of 4 bytes.
template <typename Element>
__device__ __forceinline__ void store_pair(const DecodeAttentionParams& p, int64_t row, int head,
                                           int column, float low, float high) {
  auto* out = static_cast<uint16_t*>(p.op.out) + row * p.op.out_token_stride +
              head * p.op.out_head_stride + column;
  *reinterpret_cast<uint32_t*>(out) = ElementTraits<Element>::pack_output(low, high);
}

/// The thread blocks of a cluster into the result: each writes an eighth of the columns.
template <typename Traits>
__device__ __forceinline__ void merge_ranks(const DecodeAttentionParams& p, int64_t row, int group,
                                            int rank, const DecodeShared& shared,
                                            const float* outputs) {
  const int group_size = 1 << p.group_shift;
  const int pairs = group_size * Traits::kDim / (2 * kDecodeCluster);  // of a thread block
  const int ranks = shared.num_ranks;
  // Weight of each thread block for a head, and what divides their sum.
  float weights[kDecodeCluster];
  float max2 = 0.0f;
  const auto weigh_ranks = [&](int head) {
    max2 = minus_infinity();
#pragma unroll
    for (int n = 0; n < kDecodeCluster; ++n) {
      weights[n] = n < ranks ? read_of_rank(shared.max2 + head, n) : minus_infinity();
      max2 = fmaxf(max2, weights[n]);
    }
    if (max2 == minus_infinity()) max2 = 0.0f;
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < kDecodeCluster; ++n) {
      weights[n] = exp2_fast(weights[n] - max2);
      if (n < ranks) sum += read_of_rank(shared.sum + head, n) * weights[n];
    }
    return sum;
  };
  for (int pair = static_cast<int>(threadIdx.x); pair < pairs; pair += Traits::kThreads) {
    const int element = (rank * pairs + pair) * 2;
    const int head = element / Traits::kDim;
    float low = 0.0f;
    float high = 0.0f;
    if (ranks > 0) {
      const float sum = weigh_ranks(head);
#pragma unroll
      for (int n = 0; n < kDecodeCluster; ++n) {
        if (n >= ranks) continue;
        low += read_of_rank(outputs + element, n) * weights[n];
        high += read_of_rank(outputs + element + 1, n) * weights[n];
      }
      low /= sum;
      high /= sum;
    }
    store_pair<typename Traits::Element>(p, row, group * group_size + head, element % Traits::kDim,
                                         low, high);
  }
  const int head = static_cast<int>(threadIdx.x);
  if (rank > 0 || head >= group_size || p.op.lse == nullptr) return;
  const float sum = ranks > 0 ? weigh_ranks(head) : 0.0f;
  p.op.lse[row * p.op.lse_token_stride + (group * group_size + head) * p.op.lse_head_stride] =
      ranks > 0 ? (max2 + __log2f(sum)) * kLn2 : minus_infinity();
}

template <typename Traits>
__global__ void __cluster_dims__(kDecodeCluster, 1, 1) __launch_bounds__(Traits::kThreads, 3)
    sm90_decode_attention(const __grid_constant__ DecodeAttentionMaps maps,
                          const __grid_constant__ DecodeAttentionParams p) {
  extern __shared__ __align__(1024) uint8_t bytes[];
  DecodeShared& shared = *reinterpret_cast<DecodeShared*>(bytes);
  uint8_t* tiles = bytes + Traits::kTilesOffset;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int rank = cluster_rank();
  if (threadIdx.x == 0) {
    tma_prefetch(&maps.k);
    tma_prefetch(&maps.v);
    for (int n = 0; n < kDecodeMostBlocks; ++n) {
      mbarrier_init(shared.keys_full + n, 1);
      mbarrier_init(shared.values_full + n, 1);
    }
    fence_mbarrier_init();
  }

  // 1. Which row.
  wait_for_previous_kernel();
  allow_next_kernel();
  const int unit = static_cast<int>(blockIdx.x) / kDecodeCluster;
  const auto groups = static_cast<int>(p.op.num_kv_heads);
  const int slot = unit / groups;
  const int group = unit - slot * groups;
  const int r = slot / p.max_queries;
  const int query = slot - r * p.max_queries;
  const Request request = load_request(p.op.sequences, p.op.k.num_rows, r);
  if (r == p.op.sequences.batch) {  // the rows past the last request are empty
    if (threadIdx.x == 0) shared.num_ranks = 0;
    __syncthreads();
    for (int64_t n = query; p.pad_rows && n < request.num_rows; n += p.max_queries) {
      merge_ranks<Traits>(p, request.first_row + n, group, rank, shared, nullptr);
    }
    return;
  }
  if (query >= request.num_rows || request.num_rows > p.max_queries) return;
  const int64_t row = request.first_row + query;

  // 2. Its blocks.
  if (warp == 0) take_blocks<Traits>(p, request, r, row, group, rank, shared);
  const auto copy_block = [&](int n) {
    uint8_t* keys = tiles + n % p.stages * 2 * Traits::kTileBytes;
    copy_tile<Traits>(maps.k, keys, shared.keys_full + n, shared.blocks[n], group);
    copy_tile<Traits>(maps.v, keys + Traits::kTileBytes, shared.values_full + n, shared.blocks[n],
                      group);
  };
  if (threadIdx.x == 0) {
    for (int n = 0; n < min(p.stages, shared.num_blocks); ++n) copy_block(n);
  }
  DecodeWarp<Traits> own;
  own.load_queries(p, row, group);
  __syncthreads();
  const int first = warp * Traits::kWarpKeys;
  const int num_blocks = shared.num_blocks;
  for (int n = 0; n < num_blocks; ++n) {
    uint8_t* keys = tiles + n % p.stages * 2 * Traits::kTileBytes;
    uint8_t* values = keys + Traits::kTileBytes;
    const int visible = shared.blocks[n].visible;
    mbarrier_wait(shared.keys_full + n, 0);
    uint32_t weights[DecodeWarp<Traits>::kKeyTiles / 2][4];
    const bool any = first < visible;
    if (any) {
      own.weigh(shared_address(keys), first, visible, p.op.scale * kLog2E, weights);
    }
    mbarrier_wait(shared.values_full + n, 0);
    if (any) {
      if (first + Traits::kWarpKeys > visible) hide_values<Traits>(values, first, visible);
      own.add_values(shared_address(values), first, weights);
    }
    if (n + p.stages < num_blocks) {
      __syncthreads();
      if (threadIdx.x == 0) copy_block(n + p.stages);
    }
  }

  // 3. Merge.
  __syncthreads();  // the tiles are read
  auto* outputs = reinterpret_cast<float*>(tiles);
  if (num_blocks > 0) merge_warps<Traits>(own, shared, outputs);
  cluster_sync();
  merge_ranks<Traits>(p, row, group, rank, shared, outputs);
  cluster_sync();  // nobody leaves while others read
}

template <typename Traits>
cudaError_t launch_decode_attention(const DecodeAttentionParams& params,
                                    const DecodeAttentionMaps& maps, cudaStream_t stream) {
  const int bytes = Traits::shared_bytes(params.stages);
  const cudaError_t error = cudaFuncSetAttribute(
      sm90_decode_attention<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  const int64_t slots = (params.op.sequences.batch + 1) * params.max_queries;
  const auto blocks = static_cast<unsigned>(slots * params.op.num_kv_heads * kDecodeCluster);
  return launch_overlapped(sm90_decode_attention<Traits>, blocks, Traits::kThreads,
                           static_cast<size_t>(bytes), stream, maps, params);
}

template <typename Element>
cudaError_t launch_decode_attention_of(const DecodeAttentionParams& params,
                                       const DecodeAttentionMaps& maps, cudaStream_t stream) {
  const bool wide = params.op.head_dim == 128;
  if (params.op.block_size == 128) {
    return wide ? launch_decode_attention<DecodeAttentionTraits<Element, 128, 128>>(params, maps,
                                                                                    stream)
                : launch_decode_attention<DecodeAttentionTraits<Element, 64, 128>>(params, maps,
                                                                                   stream);
  }
  return wide ? launch_decode_attention<DecodeAttentionTraits<Element, 128, 64>>(params, maps,
                                                                                 stream)
              : launch_decode_attention<DecodeAttentionTraits<Element, 64, 64>>(params, maps,
                                                                                stream);
}

}  // namespace msa::cuda
