// Stands in for src/cuda/device/ptx.cuh where kernels run on the host.
#pragma once

#include <cmath>
#include <map>
#include <stdexcept>

#include "core/element.h"
#include "cuda/emulation/emulation.h"
#include "msa/tensor.h"

// NOLINTNEXTLINE(bugprone-reserved-identifier, readability-identifier-naming)
struct __nv_bfloat16 {};
// NOLINTNEXTLINE(bugprone-reserved-identifier, readability-identifier-naming)
struct __half {};

namespace msa::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;

namespace emulation {
inline constexpr size_t kSharedBytes = 232448;
/// The dynamic shared memory of the thread block that runs.
inline uint8_t* shared_memory() {
  alignas(1024) static uint8_t memory[kSharedBytes];
  return memory;
}
}  // namespace emulation

inline uint32_t shared_address(const void* pointer) {
  const auto offset = static_cast<const uint8_t*>(pointer) - emulation::shared_memory();
  if (offset < 0 || offset >= static_cast<int64_t>(emulation::kSharedBytes)) {
    throw std::runtime_error("not an address of shared memory");
  }
  return static_cast<uint32_t>(offset);
}
inline float exp2_fast(float x) { return std::exp2(x); }
template <int kRegisters>
void raise_registers() {}
template <int kRegisters>
void lower_registers() {}
inline void fence_async_proxy() {}

template <int kThreads>
void named_barrier(int number) {
  struct Barrier {
    int arrived = 0;
    unsigned phase = 0;
  };
  static std::map<int, Barrier> barriers;
  Barrier& barrier = barriers[number];
  const unsigned phase = barrier.phase;
  if (++barrier.arrived == kThreads) {
    barrier.arrived = 0;
    ++barrier.phase;
  }
  emulation::wait_until([&] { return barrier.phase != phase; });
}

template <typename Element>
struct ElementTraits {
  static constexpr DType kType =
      std::is_same_v<Element, __half> ? DType::kFloat16 : DType::kBFloat16;
  static uint32_t pack(float low, float high) {
    uint16_t halves[2];
    core::store_element(halves, kType, 0, low);
    core::store_element(halves, kType, 1, high);
    return halves[0] | static_cast<uint32_t>(halves[1]) << 16;
  }
  static float2 unpack(uint32_t bits) {
    const uint16_t halves[2] = {static_cast<uint16_t>(bits), static_cast<uint16_t>(bits >> 16)};
    return {core::load_element(halves, kType, 0), core::load_element(halves, kType, 1)};
  }
};

}  // namespace msa::cuda
