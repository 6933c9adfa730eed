#include "cli/parts/numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

constexpr int64_t kKilo = 1024;
constexpr int64_t kMega = kKilo * kKilo;

}  // namespace

int64_t parse_count(std::string_view what, std::string_view text, int64_t least, int64_t most) {
  int64_t unit = 1;
  std::string_view digits = text;
  if (!digits.empty()) {
    const char last = digits.back();
    if (last == 'K' || last == 'k') unit = kKilo;
    if (last == 'M' || last == 'm') unit = kMega;
    if (unit != 1) digits.remove_suffix(1);
  }
  int64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  const bool whole = error == std::errc() && end == digits.data() + digits.size();
  if (!whole || number < 0 || number > most / unit || number * unit < least) {
    throw UsageError(
        fmt::format("{}: got '{}', allowed a whole number from {} to {} (K and M mean "
                    "1024 and 1048576)",
                    what, text, least, short_count(most)));
  }
  return number * unit;
}

uint64_t parse_seed(std::string_view what, std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw UsageError(
        fmt::format("{}: got '{}', allowed a whole number from 0 to 2^64 - 1", what, text));
  }
  return number;
}

double parse_real(std::string_view what, std::string_view text, double least, double most) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (!whole || !(number >= least && number <= most)) {
    throw UsageError(
        fmt::format("{}: got '{}', allowed a number from {} to {}", what, text, least, most));
  }
  return number;
}

std::string short_count(int64_t count) {
  if (count != 0 && count % kMega == 0) return fmt::format("{}M", count / kMega);
  if (count != 0 && count % kKilo == 0) return fmt::format("{}K", count / kKilo);
  return fmt::format("{}", count);
}

std::string human_seconds(double seconds) {
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1e3);
  if (seconds < 119.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 7200) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string human_bytes(double bytes) {
  if (bytes < 1e3) return fmt::format("{:.0f} B", bytes);
  if (bytes < 1e6) return fmt::format("{:.1f} kB", bytes / 1e3);
  if (bytes < 1e9) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{:.1f} GB", bytes / 1e9);
}

std::string percent(double share) { return fmt::format("{:.1f} %", share * 100); }

Interval wilson_interval(int64_t right, int64_t total) {
  if (total <= 0) return {};
  constexpr double kZ = 1.959963984540054;  // the 97.5 % point of the normal distribution
  const auto n = static_cast<double>(total);
  const double share = static_cast<double>(right) / n;
  const double scale = 1 + kZ * kZ / n;
  const double centre = (share + kZ * kZ / (2 * n)) / scale;
  const double half = kZ / scale * std::sqrt(share * (1 - share) / n + kZ * kZ / (4 * n * n));
  return {std::clamp(centre - half, 0.0, 1.0), std::clamp(centre + half, 0.0, 1.0)};
}

}  // namespace msa::cli
