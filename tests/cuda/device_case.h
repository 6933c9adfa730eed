// A Case of the library tests on the device, whole or one request of it alone, and its runs.
#pragma once

#include <memory>
#include <vector>

#include "cuda/device_memory.h"
#include "library/cases.h"

namespace msa::test {

class DeviceCase {
 public:
  /// `only` >= 0 leaves that request alone in the batch.
  explicit DeviceCase(const Case& batch, int64_t only = -1);

  IndexResult run_index(const Context& context, const IndexOptions& options) const;
  /// ids in head-major order [Hkv, Tq, K'].
  AttentionResult run_attention(const Context& context, const std::vector<int32_t>& ids) const;
  AttentionResult run_dense(const Context& context) const;
  /// q, k, v and the sequences.
  void fill(AttentionBackwardArgs& args) const;

  int64_t first_row = 0;  // of the whole batch's rows
  int64_t num_rows = 0;
  int64_t max_query_length = 0;  // what the runs say of it

 private:
  Tensor upload(const Tensor& view);

  const Case& batch_;
  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  Tensor q_, k_, v_, q_idx_, k_idx_;
  Sequences sequences_;
};

}  // namespace msa::test
