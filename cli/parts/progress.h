// One line on standard error that says how far the work is and when it will be done. It exists only
// on a terminal; in a pipe or a log there is nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace msa::cli {

/// "reading  16384 of 32768 tokens, 50 %, 9.1 s left"; without the time until there is a basis for
/// it.
std::string progress_line(std::string_view label, std::string_view unit, int64_t done,
                          int64_t total, double seconds);

class ProgressLine {
 public:
  ProgressLine(std::string label, std::string unit);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void update(int64_t done, int64_t total);

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  std::string unit_;
  bool visible_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = {};
};

}  // namespace msa::cli
