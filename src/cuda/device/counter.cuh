// Counters in global memory by which thread blocks of one kernel tell each other what is done:
// writes before add_release() are seen after load_acquire() has read the sum. All thread blocks
// must be resident (a cooperative launch), or the one that waits may keep out the one it waits for.
#pragma once

#include <cstdint>

namespace msa::cuda {

__device__ __forceinline__ void add_release(uint32_t* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;\n" ::"l"(counter) : "memory");
}

__device__ __forceinline__ uint32_t load_acquire(const uint32_t* counter) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];\n" : "=r"(value) : "l"(counter) : "memory");
  return value;
}

__device__ __forceinline__ void wait_for_count(const uint32_t* counter, uint32_t count) {
  while (load_acquire(counter) < count) __nanosleep(200);
}

/// Ordinary accesses of this thread to global memory and those of the copy engine, in order.
__device__ __forceinline__ void fence_async_proxy_global() {
  asm volatile("fence.proxy.async.global;\n" ::: "memory");
}

}  // namespace msa::cuda
