// Stands in for the toolkit's header where kernels run on the host: see emulation.h.
#pragma once

#include <cstdint>

/// What the copy engine is told: a strided view and a box of it, the first axis contiguous.
struct CUtensorMap {
  const uint16_t* data = nullptr;
  int64_t extents[4] = {1, 1, 1, 1};
  int64_t strides[4] = {1, 0, 0, 0};  // elements
  int64_t box[4] = {1, 1, 1, 1};
};
