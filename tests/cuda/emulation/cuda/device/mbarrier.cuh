// Stands in for src/cuda/device/mbarrier.cuh where kernels run on the host.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "cuda/device/ptx.cuh"

namespace msa::cuda {
namespace emulation {

/// What lies in the 8 bytes of a barrier.
struct PhaseBarrier {
  uint8_t arrivals;
  uint8_t pending;
  uint16_t phase;
  int32_t bytes;  // announced and not yet there
  void advance() {
    if (pending > 0 || bytes != 0) return;
    pending = arrivals;
    phase ^= 1;
  }
};
static_assert(sizeof(PhaseBarrier) == 8);
inline PhaseBarrier& phase_barrier(uint64_t* barrier) {
  shared_address(barrier);
  return *reinterpret_cast<PhaseBarrier*>(barrier);
}

}  // namespace emulation

inline void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  const auto count = static_cast<uint8_t>(arrivals);
  emulation::phase_barrier(barrier) = {count, count, 0, 0};
}
inline void fence_mbarrier_init() {}
inline void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  emulation::PhaseBarrier& b = emulation::phase_barrier(barrier);
  if (b.pending == 0) throw std::runtime_error("more arrivals at a barrier than it expects");
  b.bytes += static_cast<int32_t>(bytes);
  --b.pending;
  b.advance();
}
inline void mbarrier_arrive(uint64_t* barrier) { mbarrier_arrive_expect(barrier, 0); }
inline void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  const emulation::PhaseBarrier& b = emulation::phase_barrier(barrier);
  emulation::wait_until([&] { return b.phase != parity; });
}

struct RingPosition {
  uint32_t stage = 0;
  uint32_t parity = 0;
  void advance(uint32_t stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace msa::cuda
