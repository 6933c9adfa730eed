#include "bench/measure.h"

#include <chrono>

namespace msa::bench {
namespace {

Work work_of(const Workbench& workbench, const LayerShape& shape, const Piece& piece, Part part) {
  switch (part) {
    case Part::kAppend:
      return append_work(shape, piece.requests);
    case Part::kIndex:
      return index_work(shape, piece.requests);
    case Part::kAttend:
      return attend_work(shape, piece.requests, workbench.block_ids());
    case Part::kDense:
      return dense_work(shape, piece.requests);
    case Part::kBackward:
      return backward_work(shape, piece.requests,
                           attend_work(shape, piece.requests, workbench.block_ids()));
    case Part::kDenseBackward:
      return backward_work(shape, piece.requests, dense_work(shape, piece.requests));
    case Part::kKl:
      return kl_work(shape, piece.requests,
                     attend_work(shape, piece.requests, workbench.block_ids()), true);
    case Part::kDenseKl:
      return kl_work(shape, piece.requests, dense_work(shape, piece.requests), false);
  }
  return {};
}

/// The parts of one piece in a row, as a layer runs them: caches are cold at most at its start.
std::vector<double> run_piece(Workbench& workbench, const Piece& piece,
                              const std::vector<Part>& chain, bool prepare) {
  workbench.place(piece.requests);
  if (prepare) workbench.prepare(chain.front());
  workbench.cool();
  std::vector<double> times;
  times.reserve(chain.size());
  for (const Part part : chain) times.push_back(workbench.seconds(part));
  return times;
}

struct SweepTotals {
  std::vector<double> seconds;
  std::vector<double> sample_seconds;
};

}  // namespace

Measurement measure(Workbench& workbench, const LayerShape& shape, const Plan& plan,
                    const std::vector<Part>& chain, const MeasureOptions& options,
                    const OnCall& on_call) {
  Measurement result;
  for (const Part part : chain) result.parts.emplace_back(part, Timing{});
  run_piece(workbench, plan.pieces.front(), chain, options.prepare);
  const auto begin = std::chrono::steady_clock::now();
  double spent = 0;
  for (int sweep = 0; sweep < options.repeats && (sweep == 0 || spent < options.seconds); ++sweep) {
    SweepTotals totals = {std::vector<double>(chain.size()), std::vector<double>(chain.size())};
    for (const Piece& piece : plan.pieces) {
      const std::vector<double> times = run_piece(workbench, piece, chain, options.prepare);
      for (size_t n = 0; n < chain.size(); ++n) {
        totals.seconds[n] += piece.weight * times[n];
        totals.sample_seconds[n] += piece.sample_weight * times[n];
        if (sweep == 0) {
          const Work work = work_of(workbench, shape, piece, chain[n]).times(piece.weight);
          result.parts[n].second.work += work;
          result.sum.work += work;
        }
        on_call(piece, chain[n]);
      }
    }
    double sum = 0;
    double sample_sum = 0;
    for (size_t n = 0; n < chain.size(); ++n) {
      Timing& timing = result.parts[n].second;
      timing.seconds.push_back(totals.seconds[n]);
      if (plan.checks_sampling) timing.sample_seconds.push_back(totals.sample_seconds[n]);
      sum += totals.seconds[n];
      sample_sum += totals.sample_seconds[n];
    }
    result.sum.seconds.push_back(sum);
    if (plan.checks_sampling) result.sum.sample_seconds.push_back(sample_sum);
    spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  return result;
}

}  // namespace msa::bench
