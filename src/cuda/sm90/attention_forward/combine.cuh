// sm90_attention_combine: the local block of each row, and the merge with its partial output.
//
//   M = max(lse2 of the local block, partial_lse2[n])      W = sum of 2^(lse2 - M)
//   out = (2^(lse2_local - M) out_local + sum_n 2^(partial_lse2[n] - M) partial[n]) / W
//   lse = (M + log2(W)) ln 2
//
// A thread block takes an aligned run of `tile_queries` positions, which lie in one block of keys,
// and one group, as 64-row tiles (64 / G queries). The merge runs in ascending order of the place
// in the id list, so its bits depend on the row alone. Values past the last position of the run are
// zeroed in shared memory. A row for which an infinite or NaN value remains in the tile behind its
// own position is marked, and exact_rows.cu computes it again: the product made 0 * NaN of it.
// Bound: reads K * 2 * D bytes of partial output a row and head from memory.
#pragma once

#include "cuda/device/sequence.cuh"
#include "cuda/sm90/attention_forward/gather.cuh"

namespace msa::cuda {

/// What a thread block works on. It lies in shared memory and is read again for each tile: kept in
/// registers it would not leave enough of them for the products.
struct CombineRun {
  int first_row;  // packed row of the first position; may lie before the request
  int begin;      // rows of this chunk that the request has
  int end;
  int first_in_block;  // first position modulo B

  __device__ __forceinline__ bool exists(int row) const { return row >= begin && row < end; }
};

template <typename Traits>
struct CombineLayout {
  static constexpr int kThreads = kWarpgroupThreads;  // two such blocks fit on a multiprocessor
  static constexpr int kQueries = 2 * Traits::kKeyBytes;
  static constexpr int kBarriers = kQueries + Traits::kQueryBytes;
  static constexpr int kLastBad = kBarriers + 2 * 8;
  static constexpr int kRun = kLastBad + 4;
  static constexpr int kBytes = kRun + static_cast<int>(sizeof(CombineRun));
  static constexpr int kDynamicBytes = kBytes + kSwizzleAtomBytes;
};

/// Zeroes the rows of V from `num_visible` on, and puts the last row of [first, num_visible) that
/// holds an infinity or NaN into *last_bad. All threads call it; ends with a barrier.
template <typename Traits>
__device__ __forceinline__ void clean_values(uint8_t* values, int* last_bad, int first,
                                             int num_visible) {
  constexpr int kChunks = Traits::kDim / 8;  // of 16 bytes, in a row
  constexpr uint32_t kMask = ElementTraits<typename Traits::Element>::kExponentMask;
  for (int i = first * kChunks + static_cast<int>(threadIdx.x); i < Traits::kBlock * kChunks;
       i += CombineLayout<Traits>::kThreads) {
    const int row = i / kChunks;
    const int chunk = i % kChunks;  // the swizzle stays within a panel's row
    auto* place = reinterpret_cast<uint4*>(values + chunk / 8 * Traits::kBlock * kSwizzleBytes +
                                           row * kSwizzleBytes + chunk % 8 * 16);
    if (row >= num_visible) {
      *place = make_uint4(0, 0, 0, 0);
      continue;
    }
    const uint4 words = *place;
    bool bad = false;
    for (const uint32_t word : {words.x, words.y, words.z, words.w}) {
      bad = bad || (word & kMask) == kMask || (word >> 16 & kMask) == kMask;
    }
    if (bad) atomicMax(last_bad, row);
  }
  fence_async_proxy();
  __syncthreads();
}

/// Scores to -inf past the last visible token of each row, then the softmax.
template <typename Traits>
__device__ __forceinline__ void mask_tile(float (&scores)[Traits::kBlock / 2],
                                          const int (&last_visible)[2]) {
  const int column = static_cast<int>(threadIdx.x % 4) * 2;
#pragma unroll
  for (int i = 0; i < Traits::kBlock / 2; ++i) {
    if (column + i / 4 * 8 + i % 2 > last_visible[i / 2 % 2]) scores[i] = minus_infinity();
  }
}

/// Adds the partial outputs of one row to `out` and writes the row.
template <typename Traits>
__device__ __forceinline__ void merge_row(float (&out)[Traits::kDim / 2], int half,
                                          const AttentionKernelParams& p, uint32_t visits,
                                          float largest2, float sum, int64_t partial_row, void* to,
                                          float* lse) {
  using Type = ElementTraits<typename Traits::Element>;
  const int top_k = static_cast<int>(p.op.block_ids.top_k);
  const int lane = static_cast<int>(threadIdx.x % 32);

  // Weights: sum is 0 exactly when the local block gives nothing.
  float largest = sum == 0.0f ? minus_infinity() : largest2 + __log2f(sum);
#pragma unroll 4
  for (int n = 0; n < top_k; ++n) {
    if ((visits >> n & 1) != 0) {
      largest = fmaxf(largest, __ldg(p.partial_lse2 + partial_row + (n << p.group_shift)));
    }
  }
  const float shift = largest == minus_infinity() ? 0.0f : largest;
  const float local_weight = sum == 0.0f ? 0.0f : exp2_fast(largest2 - shift);
  float total = sum * local_weight;
#pragma unroll
  for (int i = 0; i < Traits::kDim / 2; i += 4) {
    out[i + 2 * half] *= local_weight;
    out[i + 2 * half + 1] *= local_weight;
  }

  // The partial rows, in the order in which store_partial() wrote them. A place that is no visit
  // adds 0 * 0, so that the loads of several places can be in flight.
#pragma unroll 4
  for (int n = 0; n < top_k; ++n) {
    const bool visited = (visits >> n & 1) != 0;
    const int64_t row = partial_row + (n << p.group_shift);
    const float weight = visited ? exp2_fast(__ldg(p.partial_lse2 + row) - shift) : 0.0f;
    total += weight;
    const auto* from = static_cast<const uint16_t*>(p.partial) + row * Traits::kDim + lane % 4 * 8;
#pragma unroll
    for (int s = 0; s < Traits::kDim / 32; ++s) {
      uint4 words = make_uint4(0, 0, 0, 0);
      if (visited) words = __ldcs(reinterpret_cast<const uint4*>(from + s * 32));
      const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 value = Type::unpack(word[j]);
        const int i = (s * 4 + j) * 4 + 2 * half;
        out[i] = fmaf(weight, value.x, out[i]);
        out[i + 1] = fmaf(weight, value.y, out[i + 1]);
      }
    }
  }

  const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
  auto* row_out = static_cast<uint16_t*>(to);
#pragma unroll
  for (int i = 0; i < Traits::kDim / 2; i += 4) {
    *reinterpret_cast<uint32_t*>(row_out + i * 2 + lane % 4 * 2) =
        Type::pack_output(out[i + 2 * half] * inverse, out[i + 2 * half + 1] * inverse);
  }
  if (lse != nullptr && lane % 4 == 0) {
    *lse = total == 0.0f ? minus_infinity() : (shift + __log2f(total)) * kLn2;
  }
}

/// Rows [begin, end) of a group see nothing.
__device__ __forceinline__ void write_empty_rows(const AttentionKernelParams& p, int begin, int end,
                                                 int group) {
  const int words = static_cast<int>(p.op.head_dim) / 2;
  for (int row = begin; row < end; ++row) {
    for (int head = 0; head < p.group_size(); ++head) {
      const int q_head = (group << p.group_shift) + head;
      auto* out =
          reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(p.op.out) +
                                      row * p.op.out_token_stride + q_head * p.op.out_head_stride);
      for (int i = static_cast<int>(threadIdx.x); i < words; i += static_cast<int>(blockDim.x)) {
        out[i] = 0;
      }
      if (threadIdx.x == 0 && p.op.lse != nullptr) {
        p.op.lse[row * p.op.lse_token_stride + q_head * p.op.lse_head_stride] = minus_infinity();
      }
    }
  }
}

template <typename Traits>
__global__ void __launch_bounds__(CombineLayout<Traits>::kThreads, 2)
    sm90_attention_combine(const __grid_constant__ CUtensorMap q_map,
                           const __grid_constant__ CUtensorMap k_map,
                           const __grid_constant__ CUtensorMap v_map,
                           const __grid_constant__ AttentionKernelParams p, int pass) {
  using Layout = CombineLayout<Traits>;

  // 1. Which positions of which request, within the pass's chunk of rows.
  const core::SequenceParams& sequences = p.op.sequences;
  const int chunk_begin = static_cast<int>(p.plan_begin) + pass / p.num_ranges * p.chunk_rows;
  const int chunk_end = chunk_begin + p.chunk_rows < p.plan_end ? chunk_begin + p.chunk_rows
                                                                : static_cast<int>(p.plan_end);
  const auto rows_in_chunk = [&](const Request& request) {
    const int begin = static_cast<int>(request.first_row);
    const int end = begin + static_cast<int>(request.num_rows);
    return make_int2(begin > chunk_begin ? begin : chunk_begin, end < chunk_end ? end : chunk_end);
  };
  const TileLocation where = find_tile(blockIdx.x, sequences.batch + 1, [&](int64_t r) {
    const Request request = load_request(sequences, p.op.k.num_rows, r);
    const int2 rows = rows_in_chunk(request);
    if (rows.x >= rows.y) return int64_t{0};
    return num_runs(request.position(rows.x), request.position(rows.y - 1), p.tile_queries);
  });
  if (where.request < 0) return;
  const Request request = load_request(sequences, p.op.k.num_rows, where.request);
  const int2 rows = rows_in_chunk(request);
  const int first_position =
      static_cast<int>(run_begin(request.position(rows.x), where.tile, p.tile_queries));
  const int first_row =  // packed row of first_position; may lie before the request
      static_cast<int>(request.first_row - request.position(request.first_row)) + first_position;
  const int group_in_range = static_cast<int>(blockIdx.y);
  const int group = pass % p.num_ranges * p.groups_per_pass + group_in_range;
  const auto mask_of = [&](int row) {
    return p.masks + (row - p.plan_begin) * p.op.num_kv_heads + group;
  };
  if (first_position < 0) {  // the whole run lies before position 0
    write_empty_rows(p, first_row > rows.x ? first_row : rows.x,
                     first_row + p.tile_queries < rows.y ? first_row + p.tile_queries : rows.y,
                     group);
    return;
  }

  // 2. Shared memory, and all copies that are known already.
  extern __shared__ uint8_t shared_raw[];
  uint8_t* shared =
      shared_raw +
      (kSwizzleAtomBytes - shared_address(shared_raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
  uint8_t* values = shared + Traits::kKeyBytes;
  auto* block_full = reinterpret_cast<uint64_t*>(shared + Layout::kBarriers);
  auto* last_bad = reinterpret_cast<int*>(shared + Layout::kLastBad);
  auto* run = reinterpret_cast<CombineRun*>(shared + Layout::kRun);
  const int thread = static_cast<int>(threadIdx.x);
  uint8_t* queries = shared + Layout::kQueries;
  uint64_t* query_full = block_full + 1;
  const int tile_queries = kTileRows >> p.group_shift;
  const int num_tiles = p.tile_queries / tile_queries;
  const auto load_queries = [&](int tile) {
    mbarrier_arrive_expect(query_full, Traits::kQueryBytes);
    for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
      tma_load_3d(queries + column * kTileRows * 2, &q_map, query_full, column,
                  group << p.group_shift, run->first_row + tile * tile_queries);
    }
  };
  if (threadIdx.x == 0) {
    mbarrier_init(block_full, 1);
    mbarrier_init(query_full, 1);
    fence_mbarrier_init();
    *last_bad = -1;
    *run = {first_row, rows.x, rows.y, first_position % Traits::kBlock};
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    const int2 place = block_coordinates(sequences, where.request, request.first_key,
                                         first_position / Traits::kBlock, Traits::kBlock);
    mbarrier_arrive_expect(block_full, 2 * Traits::kKeyBytes);
    for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
      const int panel = column * Traits::kBlock * 2;
      tma_load_4d(shared + panel, &k_map, block_full, column, place.x, group, place.y);
      tma_load_4d(values + panel, &v_map, block_full, column, place.x, group, place.y);
    }
    load_queries(0);
  }

  // 3. Values that must not be multiplied. The rows of the run share the tokens up to its first
  //    position, unless one of them does not list the local block at all.
  bool lacking = false;
  for (int i = static_cast<int>(threadIdx.x); i < p.tile_queries; i += Layout::kThreads) {
    const int row = first_row + i;
    lacking = lacking || (run->exists(row) && (*mask_of(row) & kLocalBit) == 0);
  }
  const bool any_lacking = __syncthreads_or(lacking ? 1 : 0) != 0;
  mbarrier_wait(block_full, 0);
  const int64_t keys_left = request.key_length - first_position;
  const int keys_in_run = keys_left < p.tile_queries ? static_cast<int>(keys_left) : p.tile_queries;
  clean_values<Traits>(values, last_bad, any_lacking ? 0 : run->first_in_block + 1,
                       run->first_in_block + keys_in_run);

  // 4. Tiles of 64 rows.
  const float scale_log2 = p.op.scale * kLog2E;
  uint32_t parity = 0;
#pragma unroll 1
  for (int tile = 0; tile < num_tiles; ++tile) {
    // 4a. What the two rows of this thread see of the block.
    const auto in_run = [&](int half) {
      return tile * tile_queries + (accumulator_row(thread, 2 * half) >> p.group_shift);
    };
    const auto head_of = [&](int half) {
      return accumulator_row(thread, 2 * half) & (p.group_size() - 1);
    };
    int last_visible[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = run->first_row + in_run(half);
      const bool sees = run->exists(row) && (*mask_of(row) & kLocalBit) != 0;
      last_visible[half] = sees ? run->first_in_block + in_run(half) : -1;
      if (run->exists(row) && *last_bad > last_visible[half] && head_of(half) == 0 &&
          thread % 4 == 0) {
        *mask_of(row) |= kExactBit;
      }
    }

    // 4b. Scores, weights, weighted values.
    float out[Traits::kDim / 2];
    float largest2[2];
    float sum[2];
    {
      uint32_t weights[Traits::kBlock / 16][4];
      {
        float scores[Traits::kBlock / 2];
        mbarrier_wait(query_full, parity);
        parity ^= 1;
        multiply_keys<Traits>(scores, shared_address(queries), shared_address(shared));
        mask_tile<Traits>(scores, last_visible);
        softmax_tile<typename Traits::Element>(scores, scale_log2, weights, largest2, sum);
      }
      __syncthreads();  // all warps are done with the queries
      if (thread == 0 && tile + 1 < num_tiles) load_queries(tile + 1);
      multiply_values<Traits>(out, weights, shared_address(values));
    }

    // 4c. The merge.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = run->first_row + in_run(half);
      if (!run->exists(row)) continue;
      const int q_head = (group << p.group_shift) + head_of(half);
      merge_row<Traits>(
          out, half, p, static_cast<uint32_t>(*mask_of(row)), largest2[half], sum[half],
          p.partial_row(row - chunk_begin, group_in_range, 0) + head_of(half),
          static_cast<uint16_t*>(p.op.out) + row * p.op.out_token_stride +
              q_head * p.op.out_head_stride,
          p.op.lse == nullptr
              ? nullptr
              : p.op.lse + row * p.op.lse_token_stride + q_head * p.op.lse_head_stride);
    }
  }
}

}  // namespace msa::cuda
