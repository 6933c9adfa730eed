// An output against its exact result: NaN and infinities in the same places first, then every
// element within its tolerance, then the relative Frobenius error.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/verify/pack.h"

namespace msa::cli {

/// Numbers with a shape.
struct Numbers {
  std::vector<int64_t> shape;
  std::vector<double> values;
};

/// "" when `got` is right, else what is wrong, with the first wrong element:
/// "out[3, 1, 17]: got 1.5, expected 2, allowed 0.03". -0 equals 0.
/// `factor` holds one number for each leading element of `expected`, or nothing.
std::string compare(const std::string& name, const Numbers& got, const Numbers& expected,
                    const std::vector<double>& factor, const PackResult& how);

/// Ids [.., K] of a backend given its own scores [.., max_blocks] and the exact ones: exactly what
/// its own scores say, and within `tolerance` (one for each row) of the exact cut.
std::string compare_selection(const Numbers& ids, const Numbers& own_scores,
                              const Numbers& exact_scores, const std::vector<double>& tolerance);

/// "out[3, 1, 17]"
std::string place(const std::string& name, const std::vector<int64_t>& shape, size_t element);

}  // namespace msa::cli
