// From logits to a token.
//
// Greedy takes the largest logit, the lowest id on a tie. Otherwise tokens are ordered by logit
// (then id), cut to top_k, weighted by exp((logit - largest) / temperature) in double, cut to the
// shortest front that holds top_p of the weight, and one is drawn.
//
// The generator is SplitMix64: state += 0x9E3779B97F4A7C15, then three xor-shifts and two products
// (0xBF58476D1CE4E5B9, 0x94D049BB133111EB) mix it; a draw is the upper 53 bits as a fraction. Only
// integers are involved, so equal logits and seeds give equal tokens on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "runner/runner.h"

namespace msa::runner {

class Sampler {
 public:
  /// Throws on options outside their range.
  explicit Sampler(const SamplerOptions& options);
  /// A NaN counts as -inf. Throws when no logit is above -inf.
  int32_t next(std::span<const float> logits);

 private:
  double draw();  // in [0, 1)

  SamplerOptions options_;
  uint64_t state_;
  std::vector<std::pair<float, int32_t>> order_;
  std::vector<double> weights_;
};

}  // namespace msa::runner
