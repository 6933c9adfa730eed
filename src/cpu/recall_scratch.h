// The scratch memory of a thread that works on a row of recall.
#pragma once

#include <cstdint>

#include "cpu/candidates.h"

namespace msa::cpu {

struct RecallScratch {
  float* q;          // [G][D]
  float* keys;       // panels of [D][kChunkTokens]
  float* scores;     // [kPanelRows][kChunkTokens]
  int64_t* offsets;  // [kChunkTokens]
  LogSum* sums;      // [blocks][G]
  double* mass;      // [blocks]
  int32_t* order;    // [blocks]
};

}  // namespace msa::cpu
