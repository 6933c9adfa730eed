// Runs the calls of a plan again and again, and adds their times up.
//
// A sweep is every call of the plan once, and its total is the sum of weight x time: the time of
// the whole work as this sweep saw it. Sweeps go on until there are `repeats` of them or `seconds`
// have been spent, at least one; median, least and most are over their totals. Before the first,
// one call of the first piece warms up and is not counted.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "bench/workbench.h"

namespace msa::bench {

struct MeasureOptions {
  int repeats = 15;
  double seconds = 12;
  /// Run what the chain's first part takes from others, and do not time it.
  bool prepare = false;
};

struct Timing {
  std::vector<double> seconds;         ///< a total for each sweep
  std::vector<double> sample_seconds;  ///< the sampled estimate of the same sweeps; may be empty
  Work work;                           ///< weighted as the times are
};

struct Measurement {
  std::vector<std::pair<Part, Timing>> parts;  ///< in the order of `chain`
  Timing sum;                                  ///< of all parts, sweep by sweep
};

/// Told after each timed call which it was.
using OnCall = std::function<void(const Piece& piece, Part part)>;

/// Times the parts of `chain` one after another on each piece of `plan`.
Measurement measure(Workbench& workbench, const LayerShape& shape, const Plan& plan,
                    const std::vector<Part>& chain, const MeasureOptions& options,
                    const OnCall& on_call);

}  // namespace msa::bench
