// Stands in for src/cuda/device/wgmma.cuh where kernels run on the host. The 128 threads meet, the
// last computes for all, so a product is done when it is issued. Operands are read through their
// descriptors: a wrong stride or a wrong major axis gives wrong numbers here, too.
#pragma once

#include <map>
#include <stdexcept>
#include <vector>

#include "cuda/device/layout.h"
#include "cuda/device/ptx.cuh"

namespace msa::cuda {

inline void wgmma_fence() {}
inline void wgmma_commit() {}
template <int kInFlight>
void wgmma_wait() {}
template <size_t kCount>
void wgmma_pin(float (&)[kCount]) {}

inline uint64_t wgmma_descriptor(uint32_t address, uint32_t leading, uint32_t stride) {
  return static_cast<uint64_t>((address & 0x3FFFFu) >> 4) |
         (static_cast<uint64_t>((leading & 0x3FFFFu) >> 4) << 16) |
         (static_cast<uint64_t>((stride & 0x3FFFFu) >> 4) << 32) | (uint64_t{1} << 62);
}
inline uint64_t row_operand(uint32_t tile, int rows, int column) {
  const auto panel = static_cast<uint32_t>(column / kPanelColumns * rows * kSwizzleBytes);
  return wgmma_descriptor(tile + panel + static_cast<uint32_t>(column % kPanelColumns * 2), 16,
                          kSwizzleAtomBytes);
}
inline uint64_t column_operand(uint32_t tile, int rows, int row) {
  return wgmma_descriptor(tile + static_cast<uint32_t>(row * kSwizzleBytes),
                          static_cast<uint32_t>(rows * kSwizzleBytes), kSwizzleAtomBytes);
}

namespace emulation {

/// Element (mn, k) of an operand in shared memory, which the swizzle of its address displaces.
inline uint16_t operand_element(uint64_t descriptor, int mn, int k, bool k_contiguous) {
  const auto start = static_cast<uint32_t>(descriptor & 0x3FFF) << 4;
  const auto leading = static_cast<uint32_t>(descriptor >> 16 & 0x3FFF) << 4;
  const auto stride = static_cast<uint32_t>(descriptor >> 32 & 0x3FFF) << 4;
  const auto m = static_cast<uint32_t>(mn);
  const auto n = static_cast<uint32_t>(k);
  const uint32_t plain = k_contiguous
                             ? start + m / 8 * stride + m % 8 * 128 + n * 2
                             : start + m / 64 * leading + n / 8 * stride + n % 8 * 128 + m % 64 * 2;
  return *reinterpret_cast<const uint16_t*>(shared_memory() + (plain ^ ((plain >> 7 & 7) << 4)));
}

struct WarpgroupMeeting {
  float* d[128];
  uint32_t a[128][4];
  uint64_t a_descriptor[128];
  uint64_t b_descriptor[128];
  int arrived = 0;
  unsigned phase = 0;
};

template <typename Element, int kN, bool kARegisters, bool kAContiguous, bool kBContiguous>
void multiply(const WarpgroupMeeting& all, bool accumulate) {
  const auto number = [](uint16_t bits) {
    return core::load_element(&bits, ElementTraits<Element>::kType, 0);
  };
  static float a[64][16];
  static float b[16][static_cast<size_t>(kN)];
  for (int thread = 0; thread < 128; ++thread) {
    if (all.b_descriptor[thread] != all.b_descriptor[0] ||
        (!kARegisters && all.a_descriptor[thread] != all.a_descriptor[0])) {
      throw std::runtime_error("threads of a warpgroup name different operands");
    }
    for (int i = 0; kARegisters && i < 4; ++i) {
      const float2 pair = ElementTraits<Element>::unpack(all.a[thread][i]);
      a[operand_row(thread, i)][operand_column(thread, i)] = pair.x;
      a[operand_row(thread, i)][operand_column(thread, i) + 1] = pair.y;
    }
  }
  for (int k = 0; k < 16; ++k) {
    for (int m = 0; !kARegisters && m < 64; ++m) {
      a[m][k] = number(operand_element(all.a_descriptor[0], m, k, kAContiguous));
    }
    for (int n = 0; n < kN; ++n) {
      b[k][n] = number(operand_element(all.b_descriptor[0], n, k, kBContiguous));
    }
  }
  static float product[64][static_cast<size_t>(kN)];
  for (int m = 0; m < 64; ++m) {
    for (int n = 0; n < kN; ++n) product[m][n] = 0;
    for (int k = 0; k < 16; ++k) {
      for (int n = 0; n < kN; ++n) product[m][n] += a[m][k] * b[k][n];
    }
  }
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < kN / 2; ++i) {
      const float value = product[accumulator_row(thread, i)][accumulator_column(thread, i)];
      all.d[thread][i] = accumulate ? all.d[thread][i] + value : value;
    }
  }
}

template <typename Element, int kN, bool kARegisters, bool kAContiguous, bool kBContiguous>
void meet(float* d, const uint32_t* a, uint64_t a_descriptor, uint64_t b_descriptor,
          int accumulate) {
  static std::map<unsigned, WarpgroupMeeting> meetings;  // the same product, warpgroup by warpgroup
  WarpgroupMeeting& meeting = meetings[threadIdx.x / 128];
  const unsigned thread = threadIdx.x % 128;
  const unsigned phase = meeting.phase;
  meeting.d[thread] = d;
  for (int i = 0; kARegisters && i < 4; ++i) meeting.a[thread][i] = a[i];
  meeting.a_descriptor[thread] = a_descriptor;
  meeting.b_descriptor[thread] = b_descriptor;
  if (++meeting.arrived == 128) {
    multiply<Element, kN, kARegisters, kAContiguous, kBContiguous>(meeting, accumulate != 0);
    meeting.arrived = 0;
    ++meeting.phase;
  }
  wait_until([&] { return meeting.phase != phase; });
}

}  // namespace emulation

template <typename Element, int kN>
struct Wgmma {
  static constexpr size_t kRegisters = kN / 2;
  static void shared_rows(float (&d)[kRegisters], uint64_t a, uint64_t b, int accumulate) {
    emulation::meet<Element, kN, false, true, true>(d, nullptr, a, b, accumulate);
  }
  static void shared_mixed(float (&d)[kRegisters], uint64_t a, uint64_t b, int accumulate) {
    emulation::meet<Element, kN, false, true, false>(d, nullptr, a, b, accumulate);
  }
  static void shared_columns(float (&d)[kRegisters], uint64_t a, uint64_t b, int accumulate) {
    emulation::meet<Element, kN, false, false, false>(d, nullptr, a, b, accumulate);
  }
  static void register_columns(float (&d)[kRegisters], const uint32_t (&a)[4], uint64_t b,
                               int accumulate) {
    emulation::meet<Element, kN, true, true, false>(d, a, 0, b, accumulate);
  }
};

}  // namespace msa::cuda
