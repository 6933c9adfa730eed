// What comes before and after the visits: streams, bound by memory.
//
//   zero         sums that nobody has added to yet
//   statistics   lse2 = lse log2(e)      delta = rowsum(dout * out) - dlse      [plan rows, Hq]
//   finish       gradient = scale * sums, in the op's type; 0 where nobody added
#include "cuda/device/overlap.cuh"
#include "cuda/device/ptx.cuh"
#include "cuda/sm90/attention_backward/launch.h"

namespace msa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMostBlocks = 132 * 16;

__global__ void __launch_bounds__(kThreads) attention_backward_zero(float* sums, int64_t count) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  auto* to = reinterpret_cast<uint4*>(sums);
  for (int64_t n = int64_t{blockIdx.x} * kThreads + threadIdx.x; n < count / 4; n += stride) {
    to[n] = make_uint4(0, 0, 0, 0);
  }
}

/// D / 8 lanes, 16 bytes each, read a row.
template <typename Element>
__global__ void __launch_bounds__(kThreads)
    attention_backward_statistics(const __grid_constant__ BackwardKernelParams p) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const core::AttentionForwardParams& op = p.plan.op;
  const int lanes = static_cast<int>(op.head_dim) / 8;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t count = (p.plan.plan_end - p.plan.plan_begin) * op.num_q_heads;
  const int64_t step = int64_t{gridDim.x} * (kThreads / lanes);
  const int64_t first = int64_t{blockIdx.x} * (kThreads / lanes);
  for (int64_t base = first; base < count; base += step) {
    const int64_t n = base + static_cast<int>(threadIdx.x) / lanes;
    const bool exists = n < count;
    const int64_t row = p.plan.plan_begin + (exists ? n / op.num_q_heads : 0);
    const int64_t head = exists ? n % op.num_q_heads : 0;
    const auto* out = static_cast<const uint16_t*>(p.out.data) + row * p.out.token_stride +
                      head * p.out.head_stride + lane * 8;
    const auto* dout = static_cast<const uint16_t*>(p.dout.data) + row * p.dout.token_stride +
                       head * p.dout.head_stride + lane * 8;
    const uint4 a = *reinterpret_cast<const uint4*>(out);
    const uint4 b = *reinterpret_cast<const uint4*>(dout);
    const uint32_t left[4] = {a.x, a.y, a.z, a.w};
    const uint32_t right[4] = {b.x, b.y, b.z, b.w};
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 x = ElementTraits<Element>::unpack(left[i]);
      const float2 y = ElementTraits<Element>::unpack(right[i]);
      sum += x.x * y.x + x.y * y.y;
    }
    for (int mask = 1; mask < lanes; mask *= 2) sum += __shfl_xor_sync(~0u, sum, mask);
    if (!exists || lane != 0) continue;
    if (p.dlse.data != nullptr) {
      sum -= p.dlse.data[row * p.dlse.token_stride + head * p.dlse.head_stride];
    }
    const float lse = p.lse.data[row * p.lse.token_stride + head * p.lse.head_stride];
    p.statistics[n] = {lse * kLog2E, sum};
  }
}

/// A thread reads and writes four columns.
template <typename Element>
__global__ void __launch_bounds__(kThreads)
    attention_backward_finish(const __grid_constant__ FinishParams p) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int steps = p.dim / 16;
  const int64_t count = p.num_rows * p.lists * p.heads * steps * 4;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t n = int64_t{blockIdx.x} * kThreads + threadIdx.x; n < count; n += stride) {
    const int part = static_cast<int>(n % 4);  // columns 4 part to 4 part + 3 of the step
    const auto head = static_cast<int>(n / 4 % p.heads);
    const auto step = static_cast<int>(n / 4 / p.heads % steps);
    const int64_t list = n / 4 / p.heads / steps;
    const int column = step * 16 + part * 4;
    const float* sums = p.sums + list * p.heads * p.dim;
    const float2 a = *reinterpret_cast<const float2*>(sums + sum_place(p.heads, head, column));
    const float2 b = *reinterpret_cast<const float2*>(sums + sum_place(p.heads, head, column + 2));
    auto* to = static_cast<uint16_t*>(p.to.data) +
               (p.first_row + list / p.lists) * p.to.token_stride +
               (list % p.lists * p.heads + head) * p.to.head_stride + column;
    auto* words = reinterpret_cast<uint32_t*>(to);
    words[0] = ElementTraits<Element>::pack(a.x * p.scale, a.y * p.scale);
    words[1] = ElementTraits<Element>::pack(b.x * p.scale, b.y * p.scale);
  }
}

unsigned blocks_for(int64_t count, int64_t of_block) {
  const int64_t wanted = ceil_div(count, of_block);
  return static_cast<unsigned>(wanted < kMostBlocks ? wanted : kMostBlocks);
}

}  // namespace

cudaError_t launch_backward_zero(float* sums, int64_t count, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return launch_overlapped(attention_backward_zero, blocks_for(count / 4, kThreads), kThreads, 0,
                           stream, sums, count);
}

cudaError_t launch_backward_statistics(const BackwardKernelParams& params, DType dtype,
                                       cudaStream_t stream) {
  const int64_t rows = params.plan.plan_end - params.plan.plan_begin;
  const unsigned blocks =
      blocks_for(rows * params.plan.op.num_q_heads, kThreads * 8 / params.plan.op.head_dim);
  const auto kernel = dtype == DType::kBFloat16 ? attention_backward_statistics<__nv_bfloat16>
                                                : attention_backward_statistics<__half>;
  return launch_overlapped(kernel, blocks, kThreads, 0, stream, params);
}

cudaError_t launch_backward_finish(const FinishParams& params, cudaStream_t stream) {
  const int64_t count = params.num_rows * params.lists * params.heads * params.dim / 4;
  if (count == 0) return cudaSuccess;
  const auto kernel = params.to.dtype == DType::kBFloat16 ? attention_backward_finish<__nv_bfloat16>
                                                          : attention_backward_finish<__half>;
  return launch_overlapped(kernel, blocks_for(count, kThreads), kThreads, 0, stream, params);
}

}  // namespace msa::cuda
