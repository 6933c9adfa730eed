// What happens to one token between linear layers, in float32.
//
//   rms_norm   y = x * rsqrt(mean(x^2) + eps) * (1 + w)
//   rotate     pairs (i, i + R/2) of the first R dims turn by position * theta^(-2i/R)
//   swiglu     g = min(gate, limit), u = clamp(up, -limit, limit), y = (u + 1) * g * sigmoid(a * g)
//
// Bound by nothing: about 2 % of a prefill's time. Loops are written so that compilers vectorise
// them without fast-math: sums run in 16 lanes.
#pragma once

#include <cstdint>
#include <vector>

namespace msa::runner {

/// x and y [n] may be the same.
void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* y);

/// gate_up [2 n]: gates, then ups; y [n].
void swiglu(const float* gate_up, int64_t n, float alpha, float limit, float* y);

/// The angles of rotary position embedding. As in Transformers, the inverse frequency and its
/// product with the position are rounded to float32; sine and cosine of that angle are exact.
class RotaryTable {
 public:
  RotaryTable(int64_t rotary_dim, double theta);
  int64_t num_pairs() const { return static_cast<int64_t>(inverse_frequencies_.size()); }
  /// cosines and sines [num_pairs] of one position.
  void fill(int64_t position, float* cosines, float* sines) const;

 private:
  std::vector<float> inverse_frequencies_;
};

/// Turns pairs (i, i + num_pairs) of x in place.
void rotate(float* x, const float* cosines, const float* sines, int64_t num_pairs);

}  // namespace msa::runner
