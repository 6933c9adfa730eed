#include "cli/verify/compare.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace msa::cli {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLeastNormal = std::numeric_limits<float>::min();

/// 0 for a finite number, else which of the three it is.
int kind(double value) {
  if (std::isnan(value)) return 1;
  if (std::isinf(value)) return value > 0 ? 2 : 3;
  return 0;
}

double allowed_error(const PackResult& how, double factor, double expected) {
  const double relative = how.relative * std::abs(expected);
  return factor * (how.larger_of ? std::max(how.absolute, relative) : how.absolute + relative);
}

/// The rule of selection, for the scores of the visible blocks.
std::vector<double> select(const std::vector<double>& scores, size_t top_k) {
  const size_t local = scores.size() - 1;
  std::vector<size_t> others;
  for (size_t b = 0; b < local; ++b) others.push_back(b);
  std::stable_sort(others.begin(), others.end(),
                   [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  others.resize(std::min(others.size(), top_k - 1));
  others.push_back(local);
  std::sort(others.begin(), others.end());
  std::vector<double> ids(others.begin(), others.end());
  ids.resize(top_k, -1);
  return ids;
}

}  // namespace

std::string place(const std::string& name, const std::vector<int64_t>& shape, size_t element) {
  std::vector<int64_t> index(shape.size());
  auto rest = static_cast<int64_t>(element);
  for (size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = rest % shape[axis];
    rest /= shape[axis];
  }
  return fmt::format("{}[{}]", name, fmt::join(index, ", "));
}

std::string compare(const std::string& name, const Numbers& got, const Numbers& expected,
                    const std::vector<double>& factor, const PackResult& how) {
  if (got.shape != expected.shape) {
    return fmt::format("{} has the shape [{}], expected [{}]", name, fmt::join(got.shape, ", "),
                       fmt::join(expected.shape, ", "));
  }
  const size_t count = expected.values.size();
  if (!factor.empty() && count % factor.size() != 0) {
    return fmt::format("{} has {} tolerances for {} elements", name, factor.size(), count);
  }
  const size_t per_factor = factor.empty() ? 1 : std::max<size_t>(1, count / factor.size());
  double error_square = 0;
  double expected_square = 0;
  double worst = 0;
  size_t worst_at = 0;
  for (size_t n = 0; n < count; ++n) {
    const double have = got.values[n];
    const double want = expected.values[n];
    if (kind(have) != kind(want)) {
      return fmt::format("{}: got {}, expected {}", place(name, got.shape, n), have, want);
    }
    if (kind(want) != 0) continue;
    const double row_factor = factor.empty() ? 1 : factor[n / per_factor];
    const double error = std::abs(have - want);
    const bool exact = how.how == "equal";
    const double allowed = exact ? 0 : allowed_error(how, row_factor, want);
    if ((exact || how.per_element) && error > allowed) {
      return fmt::format("{}: got {:.9g}, expected {:.9g}, allowed {}", place(name, got.shape, n),
                         have, want, exact ? "no error" : fmt::format("{:.2g}", allowed));
    }
    // Rows whose logits are larger may err more: their errors count by what they may.
    const double weighted = how.per_element ? error / std::max(row_factor, 1e-300) : error;
    // Backends may flush what is no normal float32 to 0: where all is that small, nothing is wrong.
    if (error >= kLeastNormal) error_square += weighted * weighted;
    expected_square += want * want;
    if (error > worst) {
      worst = error;
      worst_at = n;
    }
  }
  if (how.frobenius > 0 && error_square > how.frobenius * how.frobenius * expected_square) {
    return fmt::format(
        "{}: relative Frobenius error {:.3g}, allowed {:.3g}; worst at {}: got {:.9g}, expected "
        "{:.9g}",
        name, std::sqrt(error_square / std::max(expected_square, 1e-300)), how.frobenius,
        place(name, got.shape, worst_at), got.values[worst_at], expected.values[worst_at]);
  }
  return "";
}

std::string compare_selection(const Numbers& ids, const Numbers& own_scores,
                              const Numbers& exact_scores, const std::vector<double>& tolerance) {
  const auto top_k = static_cast<size_t>(ids.shape.back());
  const auto width = static_cast<size_t>(own_scores.shape.back());
  for (size_t row = 0; row < tolerance.size(); ++row) {
    const double* exact = exact_scores.values.data() + row * width;
    const double* own = own_scores.values.data() + row * width;
    size_t visible = width;  // no case of this kind has -inf among visible blocks
    while (visible > 0 && exact[visible - 1] == -kInfinity) --visible;
    if (visible == 0) continue;
    const std::vector<double> expected = select({own, own + visible}, top_k);
    const double* got = ids.values.data() + row * top_k;
    for (size_t n = 0; n < top_k; ++n) {
      if (got[n] == expected[n]) continue;
      return fmt::format("{}: got {}, expected {} by the backend's own scores",
                         place("block_ids", ids.shape, row * top_k + n), got[n], expected[n]);
    }
    const std::vector<double> best = select({exact, exact + visible}, top_k);
    double cut = kInfinity;
    for (const double id : best) {
      if (id >= 0 && id != static_cast<double>(visible - 1)) {
        cut = std::min(cut, exact[static_cast<size_t>(id)]);
      }
    }
    for (size_t b = 0; b + 1 < visible; ++b) {
      const bool taken = std::find(got, got + top_k, static_cast<double>(b)) != got + top_k;
      if (taken ? exact[b] >= cut - tolerance[row] : !(exact[b] > cut + tolerance[row])) continue;
      return fmt::format("{}: block {} of score {:.9g} is {}, the cut is {:.9g}, allowed {:.2g}",
                         place("block_ids", ids.shape, row * top_k), b, exact[b],
                         taken ? "taken" : "left", cut, tolerance[row]);
    }
  }
  return "";
}

}  // namespace msa::cli
