// Gradients of the cuda backend against the reference in float64.
#pragma once

#include "cuda/op_checks.h"

namespace msa::test {

/// Every kernel of attention's backward, hostile batches and ids, several ways of cutting the work,
/// and a replayed graph. Turns the op on for as long as it runs.
void check_backward(Report& report, const OpCheckOptions& options);

}  // namespace msa::test
