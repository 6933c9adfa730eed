// Compares a result with the reference: the masks of NaN and of each infinity must be equal, then
// every element must be within abs + rel * |reference|, then the relative Frobenius error within
// its bound. A failure names the worst place.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace msa::test {

struct Tolerance {
  double absolute = 0;
  double relative = 0;
  double frobenius = 1e300;  // of the whole, relative; large: not asked
};

struct Comparison {
  bool ok = true;
  std::string message;  // empty when ok
};

/// `allowance` multiplies the bounds element by element (spec: L); empty means 1.
Comparison compare(const std::vector<float>& got, const std::vector<float>& expected,
                   const Tolerance& tolerance, const std::vector<double>& allowance = {});

/// The first place where the bits differ, or ok.
Comparison compare_bits(const std::vector<float>& got, const std::vector<float>& expected);

}  // namespace msa::test
