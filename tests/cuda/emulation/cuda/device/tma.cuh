// Stands in for src/cuda/device/tma.cuh where kernels run on the host: a copy is done at once.
#pragma once

#include <cuda.h>

#include "cuda/device/mbarrier.cuh"

namespace msa::cuda {
namespace emulation {

/// Rows of 128 bytes, one behind the other, with the swizzle that the address decides.
inline void copy_box(void* shared, const CUtensorMap& map, uint64_t* barrier,
                     const int64_t (&at)[4]) {
  const uint32_t first = shared_address(shared);
  uint32_t row = 0;
  int64_t n[4] = {};
  for (n[3] = 0; n[3] < map.box[3]; ++n[3]) {
    for (n[2] = 0; n[2] < map.box[2]; ++n[2]) {
      for (n[1] = 0; n[1] < map.box[1]; ++n[1], ++row) {
        for (n[0] = 0; n[0] < map.box[0]; ++n[0]) {
          bool inside = true;
          int64_t from = 0;
          for (int axis = 0; axis < 4; ++axis) {
            const int64_t place = at[axis] + n[axis];
            inside = inside && place >= 0 && place < map.extents[axis];
            from += place * map.strides[axis];
          }
          const uint32_t plain = first + row * 128 + static_cast<uint32_t>(n[0]) * 2;
          const uint32_t to = plain ^ ((plain >> 7 & 7) << 4);
          *reinterpret_cast<uint16_t*>(shared_memory() + to) = inside ? map.data[from] : 0;
        }
      }
    }
  }
  PhaseBarrier& b = phase_barrier(barrier);
  b.bytes -= static_cast<int32_t>(row * 128);
  b.advance();
}

}  // namespace emulation

inline void tma_prefetch(const CUtensorMap*) {}
inline void tma_load_3d(void* shared, const CUtensorMap* map, uint64_t* barrier, int c0, int c1,
                        int c2) {
  emulation::copy_box(shared, *map, barrier, {c0, c1, c2, 0});
}
inline void tma_load_4d(void* shared, const CUtensorMap* map, uint64_t* barrier, int c0, int c1,
                        int c2, int c3) {
  emulation::copy_box(shared, *map, barrier, {c0, c1, c2, c3});
}

}  // namespace msa::cuda
