#include "bench/stopwatch.h"

#include <algorithm>
#include <chrono>
#include <ctime>

namespace msa::bench {

Stopwatch::Stopwatch(Clock clock, int num_threads)
    : clock_(clock), num_threads_(static_cast<double>(num_threads)) {}

double Stopwatch::now() const {
  if (clock_ == Clock::kProcessor) {
    return static_cast<double>(std::clock()) / CLOCKS_PER_SEC / num_threads_;
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Stopwatch::seconds(const std::function<void()>& call) const {
  const double begin = now();
  call();
  return now() - begin;
}

double Summary::spread() const { return median > 0 ? (most - least) / median : 0; }

Summary summarise(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double upper = values[middle];
  const double median = values.size() % 2 == 1 ? upper : (values[middle - 1] + upper) / 2;
  return {median, values.front(), values.back(), values.size()};
}

}  // namespace msa::bench
