// Time, and what a handful of times say: their median, and how far they lie apart.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace msa::bench {

/// What times are: of the wall clock; or processor time of this process divided by its threads,
/// which a busy machine disturbs less but which leaves out waiting for a processor.
enum class Clock { kWall, kProcessor };

class Stopwatch {
 public:
  Stopwatch(Clock clock, int num_threads);
  /// Seconds that `call` takes.
  double seconds(const std::function<void()>& call) const;

 private:
  double now() const;
  Clock clock_;
  double num_threads_;
};

/// Of an even number of values, the mean of the two in the middle. 0 of none.
struct Summary {
  double median = 0;
  double least = 0;
  double most = 0;
  size_t count = 0;

  /// (most - least) / median: how far apart all the values lie. 0 of a single one.
  double spread() const;
};
Summary summarise(std::vector<double> values);

}  // namespace msa::bench
