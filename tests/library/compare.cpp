#include "library/compare.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>

namespace msa::test {
namespace {

Comparison failure(std::string message) { return {false, std::move(message)}; }

/// 0 for a finite value, else which of the three it is.
int kind(float value) {
  if (std::isnan(value)) return 1;
  if (std::isinf(value)) return value > 0 ? 2 : 3;
  return 0;
}

}  // namespace

Comparison compare(const std::vector<float>& got, const std::vector<float>& expected,
                   const Tolerance& tolerance, const std::vector<double>& allowance) {
  if (got.size() != expected.size()) {
    return failure(fmt::format("sizes differ: {} and {}", got.size(), expected.size()));
  }
  double worst = 0;  // error relative to what is allowed
  size_t worst_at = 0;
  double error_square = 0;
  double expected_square = 0;
  double largest_allowance = 1;
  for (size_t n = 0; n < got.size(); ++n) {
    if (kind(got[n]) != kind(expected[n])) {
      return failure(
          fmt::format("masks differ at {}: got {}, expected {}", n, got[n], expected[n]));
    }
    if (kind(got[n]) != 0) continue;
    const double factor = allowance.empty() ? 1.0 : allowance[n];
    largest_allowance = std::max(largest_allowance, factor);
    const double reference = expected[n];
    const double error = std::abs(static_cast<double>(got[n]) - reference);
    error_square += error * error;
    expected_square += reference * reference;
    const double allowed = factor * (tolerance.absolute + tolerance.relative * std::abs(reference));
    // An error with nothing allowed is infinitely bad; no error is fine even then.
    const double ratio = error == 0 ? 0 : (allowed > 0 ? error / allowed : INFINITY);
    if (ratio > worst) {
      worst = ratio;
      worst_at = n;
    }
  }
  if (worst > 1) {
    return failure(
        fmt::format("element {} is off by {:.3g} times what is allowed: got {}, expected {}",
                    worst_at, worst, got[worst_at], expected[worst_at]));
  }
  const double bound = tolerance.frobenius * largest_allowance;
  if (error_square > bound * bound * expected_square) {
    return failure(
        fmt::format("relative Frobenius error {:.3g} is above {:.3g}; worst element {}: "
                    "got {}, expected {}",
                    std::sqrt(error_square / expected_square), bound, worst_at, got[worst_at],
                    expected[worst_at]));
  }
  return {};
}

Comparison compare_bits(const std::vector<float>& got, const std::vector<float>& expected) {
  if (got.size() != expected.size()) {
    return failure(fmt::format("sizes differ: {} and {}", got.size(), expected.size()));
  }
  for (size_t n = 0; n < got.size(); ++n) {
    if (std::bit_cast<uint32_t>(got[n]) != std::bit_cast<uint32_t>(expected[n])) {
      return failure(fmt::format("bits differ at {}: got {}, expected {}", n, got[n], expected[n]));
    }
  }
  return {};
}

}  // namespace msa::test
