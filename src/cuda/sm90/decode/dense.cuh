// sm90_decode_dense: attention over all visible tokens for requests with few queries.
//
//   out[t, h] = softmax over j <= i of (scale q[t, h] . k[j, g]) v[j, g],   lse[t, h]
//
// The blocks that a query sees are cut into pieces, as many as its position alone says (99 for a
// long request: with 4 groups three thread blocks for each of 132 multiprocessors). A thread block
// takes a piece for one query and group with the products of attention.cuh; keys of the next block
// are on their way while values of this one are multiplied. Its result goes to the workspace in
// float32, and sm90_decode_dense_merge adds the pieces of a row in a fixed order.
//
// Bound: memory, 2 KiB a token with 4 groups of D 128: 502 us at 1M tokens and 4.3 TB/s.
#pragma once

#include "cuda/sm90/decode/attention.cuh"

namespace msa::cuda {

/// Pieces of `blocks` visible blocks.
MSA_HOST_DEVICE int dense_pieces(int blocks) {
  const int pieces = (blocks + kDecodeDenseBlocks - 1) / kDecodeDenseBlocks;
  return pieces < kDecodeDensePieces ? pieces : kDecodeDensePieces;
}

/// Query and request of a slot; row < 0: there is none.
struct DenseRow {
  Request request;
  int request_index;
  int64_t row;
  int blocks;  // that it sees
};
__device__ __forceinline__ DenseRow find_dense_row(const DecodeAttentionParams& p, int slot) {
  DenseRow found;
  found.request_index = slot / p.max_queries;
  const int query = slot - found.request_index * p.max_queries;
  found.request = load_request(p.op.sequences, p.op.k.num_rows, found.request_index);
  found.row = -1;
  found.blocks = 0;
  if (found.request_index == p.op.sequences.batch) {
    if (query < found.request.num_rows) found.row = found.request.first_row + query;
    return found;
  }
  if (query >= found.request.num_rows || found.request.num_rows > p.max_queries) return found;
  found.row = found.request.first_row + query;
  const int64_t position = found.request.position(found.row);
  found.blocks = position < 0 ? 0 : static_cast<int>(position >> p.block_shift) + 1;
  return found;
}

struct DenseShared {
  DecodeShared merge;
  uint64_t keys_full;
  uint64_t values_full;
};
static_assert(sizeof(DenseShared) <= 1024, "it lies in front of the tiles");

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, 3)
    sm90_decode_dense(const __grid_constant__ DecodeAttentionMaps maps,
                      const __grid_constant__ DecodeAttentionParams p) {
  extern __shared__ __align__(1024) uint8_t bytes[];
  DenseShared& shared = *reinterpret_cast<DenseShared*>(bytes);
  uint8_t* keys = bytes + Traits::kTilesOffset;
  uint8_t* values = keys + Traits::kTileBytes;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (threadIdx.x == 0) {
    tma_prefetch(&maps.k);
    tma_prefetch(&maps.v);
    mbarrier_init(&shared.keys_full, 1);
    mbarrier_init(&shared.values_full, 1);
    fence_mbarrier_init();
  }
  wait_for_previous_kernel();
  allow_next_kernel();
  const auto groups = static_cast<int>(p.op.num_kv_heads);
  const int piece = static_cast<int>(blockIdx.y);
  const int slot = static_cast<int>(blockIdx.x) / groups;
  const int group = static_cast<int>(blockIdx.x) - slot * groups;
  const DenseRow found = find_dense_row(p, slot);
  const int pieces = dense_pieces(found.blocks);
  if (found.row < 0 || piece >= pieces) return;
  const auto num_blocks = static_cast<uint32_t>(found.blocks);
  const auto begin = static_cast<int>(
      piece_begin(num_blocks, static_cast<uint32_t>(pieces), static_cast<uint32_t>(piece)));
  const auto end = static_cast<int>(
      piece_begin(num_blocks, static_cast<uint32_t>(pieces), static_cast<uint32_t>(piece + 1)));
  const int64_t position = found.request.position(found.row);

  const auto place_of = [&](int block) {
    const int2 at = block_coordinates(p.op.sequences, found.request_index, found.request.first_key,
                                      block, Traits::kBlock);
    return DecodeBlock{at.x, at.y, 0};
  };
  DecodeBlock place = {};
  DecodeBlock next = {};
  if (threadIdx.x == 0) {
    place = place_of(begin);
    copy_tile<Traits>(maps.k, keys, &shared.keys_full, place, group);
    copy_tile<Traits>(maps.v, values, &shared.values_full, place, group);
    if (begin + 1 < end) next = place_of(begin + 1);
  }
  DecodeWarp<Traits> own;
  own.load_queries(p, found.row, group);
  __syncthreads();
  const int first = warp * Traits::kWarpKeys;
  uint32_t parity = 0;
  for (int block = begin; block < end; ++block) {
    const int64_t seen = position + 1 - (static_cast<int64_t>(block) << p.block_shift);
    const int visible = static_cast<int>(seen < Traits::kBlock ? seen : Traits::kBlock);
    const bool any = first < visible;
    uint32_t weights[DecodeWarp<Traits>::kKeyTiles / 2][4];
    mbarrier_wait(&shared.keys_full, parity);
    if (any) own.weigh(shared_address(keys), first, visible, p.op.scale * kLog2E, weights);
    __syncthreads();  // the keys are read
    if (threadIdx.x == 0 && block + 1 < end) {
      place = next;
      copy_tile<Traits>(maps.k, keys, &shared.keys_full, place, group);
      if (block + 2 < end) next = place_of(block + 2);
    }
    mbarrier_wait(&shared.values_full, parity);
    if (any) {
      if (first + Traits::kWarpKeys > visible) hide_values<Traits>(values, first, visible);
      own.add_values(shared_address(values), first, weights);
    }
    __syncthreads();  // the values are read
    if (threadIdx.x == 0 && block + 1 < end) {
      copy_tile<Traits>(maps.v, values, &shared.values_full, place, group);
    }
    parity ^= 1;
  }

  auto* outputs = reinterpret_cast<float*>(keys);
  merge_warps<Traits>(own, shared.merge, outputs);
  __syncthreads();
  const int group_size = 1 << p.group_shift;
  const int64_t head = found.row * p.op.num_q_heads + group * group_size;
  const int64_t part = piece * p.op.sequences.num_query_tokens * p.op.num_q_heads + head;
  for (int e = static_cast<int>(threadIdx.x); e < group_size * Traits::kDim;
       e += Traits::kThreads) {
    p.partial[part * Traits::kDim + e] = outputs[e];
  }
  if (static_cast<int>(threadIdx.x) < group_size) {
    p.partial_max2[part + threadIdx.x] = shared.merge.max2[threadIdx.x];
    p.partial_sum[part + threadIdx.x] = shared.merge.sum[threadIdx.x];
  }
}

/// A thread block for each slot and head: a thread for a pair of columns and every kParts-th piece.
template <typename Element, int kDim>
__global__ void __launch_bounds__(512)
    sm90_decode_dense_merge(const __grid_constant__ DecodeAttentionParams p) {
  constexpr int kPairs = kDim / 2;
  constexpr int kParts = 512 / kPairs;
  __shared__ float weights[kDecodeDensePieces];
  __shared__ float2 sums[kParts][kPairs];
  wait_for_previous_kernel();
  allow_next_kernel();
  const auto heads = static_cast<int>(p.op.num_q_heads);
  const int slot = static_cast<int>(blockIdx.x) / heads;
  const int head = static_cast<int>(blockIdx.x) - slot * heads;
  const DenseRow found = find_dense_row(p, slot);
  if (found.row < 0) return;
  const int pieces = dense_pieces(found.blocks);
  const int64_t step = p.op.sequences.num_query_tokens * heads;  // from piece to piece
  // The rows past the last request are those of slot `batch`: every max_queries-th by one block.
  const int64_t last = pieces > 0 || found.request_index < p.op.sequences.batch
                           ? found.row
                           : found.request.first_row + found.request.num_rows - 1;
  const int pair = static_cast<int>(threadIdx.x) % kPairs;
  const int part = static_cast<int>(threadIdx.x) / kPairs;
  for (int64_t row = found.row; row <= last; row += p.max_queries) {
    const int64_t own = row * heads + head;
    float max2 = minus_infinity();
    for (int n = 0; n < pieces; ++n) max2 = fmaxf(max2, p.partial_max2[n * step + own]);
    if (max2 == minus_infinity()) max2 = 0.0f;
    float sum = 0.0f;
    for (int n = static_cast<int>(threadIdx.x); n < pieces; n += 512) {
      weights[n] = exp2_fast(p.partial_max2[n * step + own] - max2);
    }
    __syncthreads();
    float2 out = make_float2(0.0f, 0.0f);
#pragma unroll 8
    for (int n = part; n < pieces; n += kParts) {
      const float2 more =
          reinterpret_cast<const float2*>(p.partial + (n * step + own) * kDim)[pair];
      out.x += more.x * weights[n];
      out.y += more.y * weights[n];
    }
    sums[part][pair] = out;
    for (int n = 0; n < pieces; ++n) sum += p.partial_sum[n * step + own] * weights[n];
    __syncthreads();
    if (part == 0) {
#pragma unroll
      for (int n = 1; n < kParts; ++n) {
        out.x += sums[n][pair].x;
        out.y += sums[n][pair].y;
      }
      const bool empty = pieces == 0;
      store_pair<Element>(p, row, head, pair * 2, empty ? 0.0f : out.x / sum,
                          empty ? 0.0f : out.y / sum);
      if (pair == 0 && p.op.lse != nullptr) {
        p.op.lse[row * p.op.lse_token_stride + head * p.op.lse_head_stride] =
            empty ? minus_infinity() : (max2 + __log2f(sum)) * kLn2;
      }
    }
    __syncthreads();
  }
}

template <typename Traits>
cudaError_t launch_decode_dense(const DecodeAttentionParams& params,
                                const DecodeAttentionMaps& maps, cudaStream_t stream) {
  const int bytes = Traits::shared_bytes(1);
  cudaError_t error = cudaFuncSetAttribute(sm90_decode_dense<Traits>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  const auto slots = static_cast<unsigned>((params.op.sequences.batch + 1) * params.max_queries);
  const dim3 grid(slots * static_cast<unsigned>(params.op.num_kv_heads),
                  static_cast<unsigned>(params.most_pieces));
  error = launch_overlapped(sm90_decode_dense<Traits>, grid, Traits::kThreads,
                            static_cast<size_t>(bytes), stream, maps, params);
  if (error != cudaSuccess) return error;
  return launch_overlapped(sm90_decode_dense_merge<typename Traits::Element, Traits::kDim>,
                           slots * static_cast<unsigned>(params.op.num_q_heads), 512, 0, stream,
                           params);
}

template <typename Element>
cudaError_t launch_decode_dense_of(const DecodeAttentionParams& params,
                                   const DecodeAttentionMaps& maps, cudaStream_t stream) {
  const bool wide = params.op.head_dim == 128;
  if (params.op.block_size == 128) {
    return wide
               ? launch_decode_dense<DecodeAttentionTraits<Element, 128, 128>>(params, maps, stream)
               : launch_decode_dense<DecodeAttentionTraits<Element, 64, 128>>(params, maps, stream);
  }
  return wide ? launch_decode_dense<DecodeAttentionTraits<Element, 128, 64>>(params, maps, stream)
              : launch_decode_dense<DecodeAttentionTraits<Element, 64, 64>>(params, maps, stream);
}

}  // namespace msa::cuda
