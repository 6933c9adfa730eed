// The rows of a batch, one by one, for the plain loops of the reference.
#pragma once

#include "core/params.h"

namespace msa::reference {

/// Where packed row t stands.
struct Row {
  int64_t request = -1;   // -1: a row past the last request
  int64_t position = -1;  // i = k_len - q_len + t; below 0 the row sees nothing
  bool empty() const { return request < 0 || position < 0; }
};

inline Row find_row(const core::SequenceParams& sequences, int64_t row) {
  for (int64_t r = 0; r < sequences.batch; ++r) {
    const int64_t begin = sequences.cu_seqlens_q[r];
    const int64_t end = sequences.cu_seqlens_q[r + 1];
    if (row < begin || row >= end) continue;
    return {r, sequences.key_length(r) - (end - begin) + (row - begin)};
  }
  return {};
}

}  // namespace msa::reference
