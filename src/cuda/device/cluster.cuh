// Thread blocks of a cluster: they meet, and read each other's shared memory.
#pragma once

#include <cstdint>

#include "cuda/device/ptx.cuh"

namespace msa::cuda {

__device__ __forceinline__ int cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return static_cast<int>(rank);
}

/// All threads of all thread blocks; writes before it are seen after it.
__device__ __forceinline__ void cluster_sync() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;\n" ::
          : "memory");
}

/// What lies at `own` in this thread block's shared memory, in that of thread block `rank`.
__device__ __forceinline__ float read_of_rank(const float* own, int rank) {
  uint32_t address;
  float value;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;\n"
               : "=r"(address)
               : "r"(shared_address(own)), "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];\n" : "=f"(value) : "r"(address) : "memory");
  return value;
}

}  // namespace msa::cuda
