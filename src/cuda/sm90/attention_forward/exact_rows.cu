// attention_exact_rows: rows that the tensor cores cannot compute, by one warp each.
//
// A product of a tile multiplies every value of it, by zero where a row must not see it, and
// 0 * NaN = NaN. Rows marked by gather (an infinite or NaN value lies behind their position in
// their own block) or by query_tile (a result that is not finite) are computed again here, token by
// token, and only from tokens that they see. Of other rows one lane looks at the mask. In the dense
// op every row sees all blocks up to its own, and rows without a position are written here, too.
// Plain arithmetic, float32; correctness before speed.
#include "cuda/device/overlap.cuh"
#include "cuda/device/ptx.cuh"
#include "cuda/device/sequence.cuh"
#include "cuda/sm90/attention_forward/launch.h"

namespace msa::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kMaxPairs = 2;  // of columns, for a lane: D <= 128

/// Rows of a plan and those that its last tile may reach, times groups.
__host__ __device__ __forceinline__ int64_t num_entries(const AttentionKernelParams& p) {
  const int64_t reach = p.tile_capacity > 0 ? p.tile_queries() : 0;
  const int64_t end = p.plan_end + reach;
  const int64_t rows = p.op.sequences.num_query_tokens;
  return ((end < rows ? end : rows) - p.plan_begin) * p.op.num_kv_heads;
}

/// Whether row and group `entry` of the plan are to be computed here.
__device__ __forceinline__ bool is_marked(const AttentionKernelParams& p, int64_t entry) {
  if (entry >= num_entries(p)) return false;
  if ((p.masks[entry] & kExactBit) != 0) return true;
  if (p.op.block_ids.data != nullptr) return false;
  const int64_t row = p.plan_begin + entry / p.op.num_kv_heads;
  const Request request =
      load_request(p.op.sequences, p.op.k.num_rows, find_request(p.op.sequences, row));
  const int64_t position = request.position(row);
  return position < 0 || position >= request.key_length;
}

template <typename Element>
__device__ __forceinline__ void compute_entry(const AttentionKernelParams& p, int64_t entry) {
  using Type = ElementTraits<Element>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t row = p.plan_begin + entry / p.op.num_kv_heads;
  const int64_t group = entry % p.op.num_kv_heads;
  const bool dense = p.op.block_ids.data == nullptr;
  const uint64_t mask = p.masks[entry];
  const core::SequenceParams& sequences = p.op.sequences;
  const int64_t request_index = find_request(sequences, row);
  const Request request = load_request(sequences, p.op.k.num_rows, request_index);
  const int64_t position = request.position(row);
  const int32_t* ids =
      p.op.block_ids.data + group * p.op.block_ids.head_stride + row * p.op.block_ids.token_stride;
  const int64_t num_blocks =
      dense ? floor_div(position, p.op.block_size) + 1 : p.op.block_ids.top_k;
  const int pairs = static_cast<int>(p.op.head_dim) / 64;
  const auto offset = [&](const core::KeyParams& keys, int64_t token) {
    const int2 place = block_coordinates(sequences, request_index, request.first_key,
                                         token / p.op.block_size, p.op.block_size);
    return place.y * keys.page_stride + (place.x + token % p.op.block_size) * keys.token_stride +
           group * keys.head_stride + lane * 2;
  };
  const auto load = [&](const void* data, int64_t at) {
    return Type::unpack(
        __ldg(reinterpret_cast<const uint32_t*>(static_cast<const uint16_t*>(data) + at)));
  };
  for (int64_t head = group << p.group_shift; head < (group + 1) << p.group_shift; ++head) {
    float2 q[kMaxPairs];
    float2 out[kMaxPairs] = {};
    const int64_t q_at = row * p.op.q_token_stride + head * p.op.q_head_stride + lane * 2;
#pragma unroll
    for (int i = 0; i < kMaxPairs; ++i) {
      q[i] = i < pairs ? load(p.op.q, q_at + i * 64) : make_float2(0.0f, 0.0f);
    }
    float largest = minus_infinity();
    float sum = 0.0f;
    for (int64_t n = 0; n < num_blocks; ++n) {
      if (!dense && (mask >> n & 1) == 0) continue;
      const int64_t begin = (dense ? n : ids[n]) * p.op.block_size;
      const int64_t end =
          begin + p.op.block_size <= position + 1 ? begin + p.op.block_size : position + 1;
      for (int64_t token = begin; token < end; ++token) {
        const int64_t k_at = offset(p.op.k, token);
        float dot = 0.0f;
#pragma unroll
        for (int i = 0; i < kMaxPairs; ++i) {
          if (i >= pairs) break;
          const float2 k = load(p.op.k.data, k_at + i * 64);
          dot += q[i].x * k.x + q[i].y * k.y;
        }
#pragma unroll
        for (int step = 16; step > 0; step /= 2) dot += __shfl_xor_sync(~0u, dot, step);
        const float logit2 = dot * p.op.scale * kLog2E;
        const float higher = fmaxf(largest, logit2);
        const float shift = higher == minus_infinity() ? 0.0f : higher;
        const float shrink = exp2_fast(largest - shift);
        const float weight = exp2_fast(logit2 - shift);
        const int64_t v_at = offset(p.op.v, token);
        sum = sum * shrink + weight;
#pragma unroll
        for (int i = 0; i < kMaxPairs; ++i) {
          if (i >= pairs) break;
          const float2 v = load(p.op.v.data, v_at + i * 64);
          out[i].x = out[i].x * shrink + weight * v.x;
          out[i].y = out[i].y * shrink + weight * v.y;
        }
        largest = higher;
      }
    }
    const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    auto* to = static_cast<uint16_t*>(p.op.out) + row * p.op.out_token_stride +
               head * p.op.out_head_stride + lane * 2;
#pragma unroll
    for (int i = 0; i < kMaxPairs; ++i) {
      if (i >= pairs) break;
      *reinterpret_cast<uint32_t*>(to + i * 64) =
          Type::pack_output(out[i].x * inverse, out[i].y * inverse);
    }
    if (lane == 0 && p.op.lse != nullptr) {
      p.op.lse[row * p.op.lse_token_stride + head * p.op.lse_head_stride] =
          sum == 0.0f ? minus_infinity() : (largest + __log2f(sum)) * kLn2;
    }
  }
}

template <typename Element>
__global__ void __launch_bounds__(kWarps * 32)
    attention_exact_rows(const __grid_constant__ AttentionKernelParams p) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int64_t entry = static_cast<int64_t>(blockIdx.x) * (kWarps * 32) + threadIdx.x;
  const int64_t first = entry - threadIdx.x % 32;
  for (uint32_t marked = __ballot_sync(~0u, is_marked(p, entry)); marked != 0;
       marked &= marked - 1) {
    compute_entry<Element>(p, first + __ffs(static_cast<int>(marked)) - 1);
  }
}

}  // namespace

cudaError_t launch_attention_exact_rows(const AttentionKernelParams& params, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(ceil_div(num_entries(params), kWarps * 32));
  return launch_overlapped(params.op.q_dtype == DType::kBFloat16
                               ? attention_exact_rows<__nv_bfloat16>
                               : attention_exact_rows<__half>,
                           blocks, kWarps * 32, 0, stream, params);
}

}  // namespace msa::cuda
