// A batch of one request without pages, its lengths in device memory.
#pragma once

#include <cstdint>

#include "cuda/device_memory.h"
#include "msa/msa.h"

namespace msa::test {

class OneRequest {
 public:
  OneRequest(int64_t rows, int64_t keys) { set_lengths(rows, keys); }

  /// May be fewer than the tensors hold.
  void set_lengths(int64_t rows, int64_t keys) {
    const int32_t q_ends[2] = {0, static_cast<int32_t>(rows)};
    const int32_t k_ends[2] = {0, static_cast<int32_t>(keys)};
    cu_q_.upload(q_ends, sizeof q_ends);
    cu_k_.upload(k_ends, sizeof k_ends);
  }
  Sequences sequences() const {
    Sequences sequences;
    sequences.cu_seqlens_q = Tensor(cu_q_.data(), DType::kInt32, {2});
    sequences.cu_seqlens_k = Tensor(cu_k_.data(), DType::kInt32, {2});
    return sequences;
  }

 private:
  DeviceMemory cu_q_{8}, cu_k_{8};
};

}  // namespace msa::test
