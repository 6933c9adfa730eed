#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/host/device.h"
#include "cuda/random_fill.h"

namespace msa::test {
namespace {

__device__ uint64_t mix(uint64_t x) {  // the finaliser of splitmix64
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

template <typename Element>
__global__ void fill(Element* data, int64_t count, uint64_t seed) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    const uint64_t bits = mix(seed * 0x2545F4914F6CDD1Dull + static_cast<uint64_t>(i));
    const float u = (static_cast<float>(bits >> 40) + 1.0f) * 0x1p-24f;
    const float angle = static_cast<float>(bits & 0xFFFFFF) * 0x1p-23f;
    data[i] = static_cast<Element>(sqrtf(-2.0f * logf(u)) * cospif(angle));
  }
}

}  // namespace

void fill_normal(void* data, DType dtype, int64_t count, uint64_t seed) {
  if (dtype == DType::kBFloat16) {
    fill<<<1056, 256>>>(static_cast<__nv_bfloat16*>(data), count, seed);
  } else {
    fill<<<1056, 256>>>(static_cast<__half*>(data), count, seed);
  }
  cuda::check_cuda("fill_normal", cudaGetLastError());
}

}  // namespace msa::test
