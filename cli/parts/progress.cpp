#include "cli/parts/progress.h"

#include <fmt/format.h>

#include <cstdio>

#include "cli/parts/numbers.h"
#include "cli/parts/output.h"

namespace msa::cli {
namespace {

constexpr auto kBetweenDraws = std::chrono::milliseconds(100);
constexpr double kBasisSeconds = 0.5;  // an earlier guess jumps about

}  // namespace

std::string progress_line(std::string_view label, std::string_view unit, int64_t done,
                          int64_t total, double seconds) {
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0;
  std::string line =
      fmt::format("{}  {} of {} {}, {:.0f} %", label, done, total, unit, share * 100);
  if (share > 0 && share < 1 && seconds >= kBasisSeconds) {
    line += fmt::format(", {} left", human_seconds(seconds * (1 - share) / share));
  }
  return line;
}

ProgressLine::ProgressLine(std::string label, std::string unit)
    : label_(std::move(label)), unit_(std::move(unit)), visible_(error_is_terminal()) {}

ProgressLine::~ProgressLine() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
}

void ProgressLine::update(int64_t done, int64_t total) {
  const auto now = Clock::now();
  if (!visible_ || now - last_ < kBetweenDraws) return;
  last_ = now;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string line = progress_line(label_, unit_, done, total, seconds);
  std::fputs(("\r\x1b[K" + line).c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace msa::cli
