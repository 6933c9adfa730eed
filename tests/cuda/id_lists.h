// Id lists for attention, made on the host.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "library/cases.h"

namespace msa::test {

/// Ids as a hostile caller gives them: shuffled, repeated, out of range, without the local block.
std::vector<int32_t> hostile_ids(const Case& batch, const std::vector<int32_t>& ids,
                                 std::mt19937& random);

/// Lists of neighbours that keep each of their picks with probability `keep`.
std::vector<int32_t> neighbour_ids(const Case& batch, double keep, std::mt19937& random);

}  // namespace msa::test
