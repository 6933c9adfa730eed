// Single instructions of sm_90a that C++ has no word for. Thin wrappers, nothing else.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace msa::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// 2^x, flushing subnormals; 2^-inf = 0 and NaN stays.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// 1 / x within one unit of the last place, without a branch for subnormals.
__device__ __forceinline__ float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Registers of every thread of the calling warpgroup from here on.
template <int kRegisters>
__device__ __forceinline__ void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

/// A barrier of `kThreads` threads of the block, whole warps; 0 is that of __syncthreads().
template <int kThreads>
__device__ __forceinline__ void named_barrier(int number) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(number), "n"(kThreads) : "memory");
}

/// Ordinary writes of this thread to shared memory become visible to wgmma and to bulk copies.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

/// What differs between the two 16-bit types.
template <typename Element>
struct ElementTraits;

template <>
struct ElementTraits<__nv_bfloat16> {
  static constexpr uint32_t kExponentMask = 0x7F80u;
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
  static __device__ __forceinline__ float2 unpack(uint32_t bits) {
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xFFFF0000u));
  }
  /// For partial and final output.
  static __device__ __forceinline__ uint32_t pack_output(float low, float high) {
    return pack(low, high);
  }
};

template <>
struct ElementTraits<__half> {
  static constexpr uint32_t kExponentMask = 0x7C00u;
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
  static __device__ __forceinline__ float2 unpack(uint32_t bits) {
    return __half22float2(*reinterpret_cast<const __half2*>(&bits));
  }
  /// An average of finite float16 values is at most 65504, but rounding of the weights can lift it
  /// past 65520, which would become infinity. Infinity and NaN of the input stay what they are.
  static __device__ __forceinline__ float saturate(float x) {
    const bool just_above = fabsf(x) > 65504.0f && fabsf(x) < 131008.0f;
    return just_above ? copysignf(65504.0f, x) : x;
  }
  static __device__ __forceinline__ uint32_t pack_output(float low, float high) {
    return pack(saturate(low), saturate(high));
  }
};

}  // namespace msa::cuda
