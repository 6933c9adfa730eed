// The contract's tolerances, applied to a whole case.
#pragma once

#include "library/cases.h"

namespace msa::test {

/// The rule of selection written once more, plainly: from a row's own scores of its visible blocks
/// (the last is the local one) to K ids.
std::vector<int32_t> select_by_rule(const std::vector<float>& scores, int64_t top_k);

struct CaseCounts {
  int64_t rows = 0;
  int64_t rows_beyond_k = 0;     // more than K visible blocks
  int64_t rows_that_differ = 0;  // another selection than the reference's, within tolerance
};

/// Runs all three ops on `context` and on the reference and applies the tolerances; failures are
/// reported to GoogleTest. Attention reads the ids that `context` chose.
CaseCounts check_case(const Context& context, const Context& reference, const Case& batch);

/// Only attention, over given ids [Hkv, Tq, K'], or dense with null.
void check_attention(const Context& context, const Context& reference, const Case& batch,
                     const std::vector<int32_t>* ids);

/// 1 or (largest |logit| of the row) / 100, for every row and head [Tq, Hq].
std::vector<double> logit_allowance(const Case& batch);

}  // namespace msa::test
