// The merge of a pass: out and lse of every row from its partial rows.
//
//   M = max_n partial_lse2[n]    w_n = 2^(partial_lse2[n] - M)    W = sum w_n
//   out = sum_n (w_n / W) partial[n]                 lse = (M + log2(W)) ln 2
//
// A unit is a (row, group) and up to four of its heads, P: K * P * D * 2 contiguous bytes. A warp
// takes every num_warps-th unit. Its lane 0 has the copy engine bring the partial rows into a ring
// of its own, four places a slot, several slots ahead and past the end of the unit; the lanes add
// them in the order of the id list, so the bits depend on the row alone. A place that is no visit
// is skipped, whatever its memory holds. Bound: K * D * 2 bytes a row and head from memory.
#pragma once

#include "cuda/device/mbarrier.cuh"
#include "cuda/device/overlap.cuh"
#include "cuda/device/tma.cuh"
#include "cuda/sm90/attention_forward/tile.cuh"

namespace msa::cuda {

/// The ring of one warp.
template <typename Traits>
struct MergeRing {
  static constexpr int kSlots = 3;
  static constexpr int kSlotPlaces = 4;
  static constexpr int kSlotBytes = kSlotPlaces * kPartHeads * Traits::kDim * 2;
  static constexpr int kWeights = kSlots * kSlotBytes;  // [K, P]: at most 32 places
  static constexpr int kBarriers = kWeights + 32 * kPartHeads * 4;
  static constexpr int kBytes = (kBarriers + kSlots * 8 + 127) / 128 * 128;

  static __device__ __forceinline__ uint64_t* barriers(uint8_t* ring) {
    return reinterpret_cast<uint64_t*>(ring + kBarriers);
  }
};

/// Units warp_index, warp_index + num_warps, ... of a pass, by one warp.
template <typename Traits>
__device__ __forceinline__ void merge_lists(const AttentionKernelParams& p, int pass, uint8_t* ring,
                                            int warp_index, int num_warps) {
  using Ring = MergeRing<Traits>;
  using Type = ElementTraits<typename Traits::Element>;
  constexpr int kReads = Traits::kDim / 64;  // of 16 bytes: what a lane holds of a place
  constexpr int kRowBytes = Traits::kDim * 2;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  auto* weights = reinterpret_cast<float*>(ring + Ring::kWeights);
  uint64_t* full = Ring::barriers(ring);
  if (lane == 0) {
    for (int slot = 0; slot < Ring::kSlots; ++slot) mbarrier_init(&full[slot], 1);
    fence_mbarrier_init();
  }
  __syncwarp();
  const int top_k = static_cast<int>(p.op.block_ids.top_k);
  const int part_heads = p.part_heads();
  const int parts_shift = p.group_shift - p.part_shift();
  const int groups_shift = __popc(p.groups_per_pass - 1);
  const int first_group = pass % p.num_ranges * p.groups_per_pass;
  const int chunk_in_plan = pass / p.num_ranges * p.chunk_rows;
  const int left = static_cast<int>(p.plan_end - p.plan_begin) - chunk_in_plan;
  const int num_rows = left < p.chunk_rows ? left : p.chunk_rows;
  const int num_units = num_rows << (groups_shift + parts_shift);
  const int unit_rows = top_k * part_heads;  // fewer than 2^32 elements in all
  const auto* partial =
      static_cast<const uint16_t*>(p.partial) + p.partial_part(pass, 0, 0, 0) * Traits::kDim;
  const float* partial_lse2 = p.partial_lse2 + p.partial_part(pass, 0, 0, 0);
  const uint64_t evict_first = evict_first_policy();
  const auto visits_of = [&](int unit) {
    if (unit >= num_units) return uint64_t{0};
    const int list = unit >> parts_shift;
    const int row = chunk_in_plan + (list >> groups_shift);
    const int group = first_group + (list & (p.groups_per_pass - 1));
    return gathered_visits(p.masks[row * static_cast<int>(p.op.num_kv_heads) + group]);
  };
  const auto places_of = [](uint32_t visits) { return 32 - __clz(static_cast<int>(visits)); };

  // 1. What is copied: unit and place of the next slot.
  int copied_unit = warp_index;
  int copied_place = 0;
  auto copied_visits = static_cast<uint32_t>(visits_of(copied_unit));
  auto next_visits = static_cast<uint32_t>(visits_of(copied_unit + num_warps));
  const auto copy_slot = [&](uint32_t slot) {
    while (copied_unit < num_units && copied_place >= places_of(copied_visits)) {
      copied_unit += num_warps;
      copied_place = 0;
      copied_visits = next_visits;
      next_visits = static_cast<uint32_t>(visits_of(copied_unit + num_warps));
    }
    if (copied_unit >= num_units) return;
    if (lane == 0) {
      const int rest = places_of(copied_visits) - copied_place;
      const int places = rest < Ring::kSlotPlaces ? rest : Ring::kSlotPlaces;
      const auto bytes = static_cast<uint32_t>(places * part_heads * kRowBytes);
      const auto row = static_cast<uint32_t>(copied_unit * unit_rows + copied_place * part_heads);
      mbarrier_arrive_expect(&full[slot], bytes);
      bulk_load(ring + slot * Ring::kSlotBytes, partial + row * Traits::kDim, bytes, &full[slot],
                evict_first);
    }
    copied_place += Ring::kSlotPlaces;
  };
#pragma unroll 1
  for (uint32_t slot = 0; slot < Ring::kSlots; ++slot) copy_slot(slot);

  // 2. Units. Their LSEs [K, P] are spread over the lanes, up to four each; lane l always holds
  //    those of head l mod P. Those of the next unit are loaded ahead.
  constexpr int kHeld = kPartHeads;
  const auto load_lse2 = [&](int unit, float (&lse2)[kHeld]) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int at = lane + i * 32;
      lse2[i] =
          unit < num_units && at < unit_rows ? __ldcs(partial_lse2 + unit * unit_rows + at) : 0;
    }
  };
  RingPosition slot;
  uint64_t ahead = visits_of(warp_index);
  float ahead_lse2[kHeld];
  load_lse2(warp_index, ahead_lse2);
  for (int unit = warp_index; unit < num_units; unit += num_warps) {
    const auto visits = static_cast<uint32_t>(ahead);
    const bool tiled = (ahead & kTileBit) != 0;  // its results are written already
    float lse2[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int place = (lane + i * 32) >> p.part_shift();
      const bool visited = place < top_k && (visits >> place & 1) != 0;
      lse2[i] = visited ? ahead_lse2[i] : minus_infinity();
    }
    ahead = visits_of(unit + num_warps);
    load_lse2(unit + num_warps, ahead_lse2);
    const int list = unit >> parts_shift;
    const int64_t row = p.plan_begin + chunk_in_plan + (list >> groups_shift);
    const int q_head = ((first_group + (list & (p.groups_per_pass - 1))) << p.group_shift) +
                       ((unit & ((1 << parts_shift) - 1)) << p.part_shift());

    // 2a. Weights of the places.
    float largest = fmaxf(fmaxf(lse2[0], lse2[1]), fmaxf(lse2[2], lse2[3]));
    for (int step = 16; step >= part_heads; step /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
    }
    if (largest == minus_infinity()) largest = 0.0f;
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      lse2[i] = exp2_fast(lse2[i] - largest);
      total += lse2[i];
    }
    for (int step = 16; step >= part_heads; step /= 2) {
      total += __shfl_xor_sync(~0u, total, step);
    }
    const float inverse = total == 0.0f ? 0.0f : reciprocal_fast(total);
#pragma unroll
    for (int i = 0; i < kHeld; ++i) weights[lane + i * 32] = lse2[i] * inverse;
    if (p.op.lse != nullptr && lane < part_heads && !tiled) {
      p.op.lse[row * p.op.lse_token_stride + (q_head + lane) * p.op.lse_head_stride] =
          total == 0.0f ? minus_infinity() : (largest + __log2f(total)) * kLn2;
    }
    __syncwarp();

    // 2b. The sum over places.
    float out[kReads][8] = {};
    const int places = places_of(visits);
    for (int place = 0; place < places; place += Ring::kSlotPlaces) {
      mbarrier_wait(&full[slot.stage], slot.parity);
      const uint8_t* from = ring + slot.stage * Ring::kSlotBytes + lane * 16;
#pragma unroll
      for (int r = 0; r < kReads; ++r) {
        const int head = (r * 512 + lane * 16) / kRowBytes;
        uint4 words[Ring::kSlotPlaces];
        float weight[Ring::kSlotPlaces];
#pragma unroll
        for (int j = 0; j < Ring::kSlotPlaces; ++j) {
          words[j] = make_uint4(0, 0, 0, 0);
          weight[j] = 0.0f;
          if ((visits >> (place + j) & 1) != 0 && head < part_heads) {
            words[j] = *reinterpret_cast<const uint4*>(from + j * part_heads * kRowBytes + r * 512);
            weight[j] = weights[(place + j) * part_heads + head];
          }
        }
#pragma unroll
        for (int j = 0; j < Ring::kSlotPlaces; ++j) {
          const uint32_t word[4] = {words[j].x, words[j].y, words[j].z, words[j].w};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float2 value = Type::unpack(word[i]);
            out[r][i * 2] = fmaf(weight[j], value.x, out[r][i * 2]);
            out[r][i * 2 + 1] = fmaf(weight[j], value.y, out[r][i * 2 + 1]);
          }
        }
      }
      __syncwarp();  // all lanes are done with the slot
      copy_slot(slot.stage);
      slot.advance(Ring::kSlots);
    }

    // 2c. Out.
#pragma unroll
    for (int r = 0; r < kReads; ++r) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) words[i] = Type::pack_output(out[r][i * 2], out[r][i * 2 + 1]);
      transpose_quad(words);
      const int head = (r * 512 + lane * 16) / kRowBytes;
      const int column = lane * 8 % Traits::kDim;
      if (head < part_heads && !tiled) {
        store_columns(static_cast<uint16_t*>(p.op.out) + row * p.op.out_token_stride +
                          (q_head + head) * p.op.out_head_stride + column,
                      words, p.wide_out);
      }
    }
    __syncwarp();  // the weights are written again
  }
  if (lane == 0) {
    for (int slot = 0; slot < Ring::kSlots; ++slot) mbarrier_invalidate(&full[slot]);
  }
}

/// The merge alone, for the last pass.
inline constexpr int kMergeThreads = 128;

template <typename Traits>
__global__ void __launch_bounds__(kMergeThreads)
    sm90_attention_merge(const __grid_constant__ AttentionKernelParams p, int pass) {
  using Ring = MergeRing<Traits>;
  allow_next_kernel();
  extern __shared__ __align__(128) uint8_t shared[];
  wait_for_previous_kernel();
  if (p.gathers[pass] == 0) return;
  constexpr int kWarps = kMergeThreads / 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  merge_lists<Traits>(p, pass, shared + warp * Ring::kBytes,
                      static_cast<int>(blockIdx.x) * kWarps + warp,
                      static_cast<int>(gridDim.x) * kWarps);
}

}  // namespace msa::cuda
