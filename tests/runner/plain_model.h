// The whole model once more, as directly as it can be written: double, one token after another, no
// pages, no chunks, no library. What the runner computes is compared with this.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/runner/fixture.h"

namespace msa::runner::test {

/// Logits [tokens][vocab] of the model that `config` and `weights` (Transformers' names) describe.
/// With dense = true no layer selects.
std::vector<std::vector<double>> plain_logits(const Json& config, const TensorMap& weights,
                                              const std::vector<int32_t>& tokens, bool dense);

}  // namespace msa::runner::test
