// The ops of the reference backend: plain loops in double, in the order of the paper.
#pragma once

#include "core/backend.h"

namespace msa::reference {

void index_forward(const core::IndexForwardParams& params, const core::RunContext& run);
/// Sparse with block ids, dense without.
void attention_forward(const core::AttentionForwardParams& params, const core::RunContext& run);

}  // namespace msa::reference
