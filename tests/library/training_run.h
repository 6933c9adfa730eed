// The training ops on a packed case, in any types and with any strides.
#pragma once

#include "library/cases.h"

namespace msa::test {

/// What the forward ops leave for the backward, and the gradients that come from above.
struct TrainingInputs {
  bool dense = false;
  bool with_dlse = false;
  std::vector<int32_t> ids;    // [Hkv, Tq, K]; empty when dense
  Buffer out, dout;            // [Tq, Hq, D], q's type
  std::vector<float> lse;      // [Tq, Hq]
  std::vector<float> dlse;     // [Tq, Hq]
  std::vector<float> lse_idx;  // [Hkv, Tq]
  float coefficient = 1;
  double normaliser = 1;
};

/// Runs the forward ops on `context`; dout and dlse come from the case's seed.
TrainingInputs training_inputs(const Context& context, const Case& batch, bool dense);

struct TrainingResult {
  std::vector<float> dq;      // [Tq, Hq, D]
  std::vector<float> dk, dv;  // [Tk, Hkv, D]
  std::vector<float> loss;    // [1]
  std::vector<float> dq_idx;  // [Tq, Hkv, Di]
  std::vector<float> dk_idx;  // [Tk, 1, Di]
};
TrainingResult run_training(const Context& context, const Case& batch,
                            const TrainingInputs& inputs);

}  // namespace msa::test
