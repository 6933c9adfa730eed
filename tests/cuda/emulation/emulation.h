// Runs kernels that need nothing but CUDA C++ on the host, so that the schedules which the device
// builds for itself are tested on machines without a GPU. A thread of a block is a fiber; blocks
// run one after the other. Both orders are drawn at random, as no kernel may rely on them. Warps
// meet in their collectives, always all 32 lanes; a kernel that waits for a lane which never comes
// ends the test with an exception.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

// The names are CUDA's.
// NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming)
#define __global__
#define __device__
#define __shared__ static
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) noexcept : x(a), y(b), z(c) {}
};
struct int2 {
  int x;
  int y;
};
struct float2 {
  float x;
  float y;
};
struct uint4 {
  uint32_t x;
  uint32_t y;
  uint32_t z;
  uint32_t w;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
struct alignas(16) float4 {
  float x;
  float y;
  float z;
  float w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0 };

// Those of the fiber that runs.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace msa::cuda::emulation {

/// Order of blocks and threads from here on.
void set_seed(unsigned seed);
void run_grid(dim3 grid, unsigned threads, const std::function<void()>& thread_body);
void sync_block();
/// Returns when `ready` is true; others run meanwhile.
void wait_until(const std::function<bool()>& ready);
/// The 32 lanes' values, lane by lane; returns when all of the warp have come.
struct Lanes {
  uint64_t of[32];
};
Lanes exchange(uint64_t mine);

template <typename T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <typename T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
inline int lane() { return static_cast<int>(threadIdx.x % 32); }

}  // namespace msa::cuda::emulation

inline void __syncthreads() { msa::cuda::emulation::sync_block(); }
inline void __syncwarp() { msa::cuda::emulation::exchange(0); }

template <typename T>
T __shfl_sync(unsigned, T value, int from) {
  namespace emulation = msa::cuda::emulation;
  return emulation::from_bits<T>(emulation::exchange(emulation::to_bits(value)).of[from % 32]);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return __shfl_sync(~0u, value, msa::cuda::emulation::lane() ^ mask);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int step) {
  const int lane = msa::cuda::emulation::lane();
  return __shfl_sync(~0u, value, lane >= step ? lane - step : lane);
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  const auto lanes = msa::cuda::emulation::exchange(vote ? 1 : 0);
  unsigned result = 0;
  for (int n = 0; n < 32; ++n) result |= static_cast<unsigned>(lanes.of[n]) << n;
  return result;
}
inline bool __any_sync(unsigned, bool vote) { return __ballot_sync(~0u, vote) != 0; }
inline bool __all_sync(unsigned, bool vote) { return __ballot_sync(~0u, vote) == ~0u; }
template <typename T>
unsigned __match_any_sync(unsigned, T value) {
  const auto lanes = msa::cuda::emulation::exchange(msa::cuda::emulation::to_bits(value));
  unsigned result = 0;
  for (int n = 0; n < 32; ++n) {
    result |= static_cast<unsigned>(lanes.of[n] == msa::cuda::emulation::to_bits(value)) << n;
  }
  return result;
}
template <typename T, typename Combine>
T reduce_lanes(T value, const Combine& combine) {
  const auto lanes = msa::cuda::emulation::exchange(msa::cuda::emulation::to_bits(value));
  T result = msa::cuda::emulation::from_bits<T>(lanes.of[0]);
  for (int n = 1; n < 32; ++n) {
    result = combine(result, msa::cuda::emulation::from_bits<T>(lanes.of[n]));
  }
  return result;
}
template <typename T>
T __reduce_add_sync(unsigned, T value) {
  return reduce_lanes(value, [](T a, T b) { return static_cast<T>(a + b); });
}
template <typename T>
T __reduce_min_sync(unsigned, T value) {
  return reduce_lanes(value, [](T a, T b) { return a < b ? a : b; });
}
template <typename T>
T __reduce_max_sync(unsigned, T value) {
  return reduce_lanes(value, [](T a, T b) { return a < b ? b : a; });
}
template <typename T>
T __reduce_or_sync(unsigned, T value) {
  return reduce_lanes(value, [](T a, T b) { return static_cast<T>(a | b); });
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __ffs(int bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned>(bits)) + 1;
}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
template <typename T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = static_cast<T>(before + value);
  return before;
}
template <typename T>
T atomicOr(T* at, T value) {
  const T before = *at;
  *at = static_cast<T>(before | value);
  return before;
}
// NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming)
