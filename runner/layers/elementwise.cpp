#include "runner/layers/elementwise.h"

#include <algorithm>
#include <cmath>

namespace msa::runner {

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* y) {
  constexpr int64_t kLanes = 16;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * x[i + lane];
  }
  for (; i < n; ++i) lanes[i % kLanes] += x[i] * x[i];
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  const float factor = 1.0f / std::sqrt(lanes[0] / static_cast<float>(n) + eps);
  for (int64_t j = 0; j < n; ++j) y[j] = x[j] * factor * (1.0f + weight[j]);
}

void swiglu(const float* gate_up, int64_t n, float alpha, float limit, float* y) {
  for (int64_t i = 0; i < n; ++i) {
    const float gate = std::min(gate_up[i], limit);
    const float up = std::clamp(gate_up[n + i], -limit, limit);
    y[i] = (up + 1.0f) * (gate / (1.0f + std::exp(-alpha * gate)));
  }
}

RotaryTable::RotaryTable(int64_t rotary_dim, double theta) {
  for (int64_t i = 0; i < rotary_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rotary_dim);
    const auto power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    inverse_frequencies_.push_back(1.0f / power);
  }
}

void RotaryTable::fill(int64_t position, float* cosines, float* sines) const {
  for (size_t i = 0; i < inverse_frequencies_.size(); ++i) {
    const float angle = static_cast<float>(position) * inverse_frequencies_[i];
    cosines[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
    sines[i] = static_cast<float>(std::sin(static_cast<double>(angle)));
  }
}

void rotate(float* x, const float* cosines, const float* sines, int64_t num_pairs) {
  float* second = x + num_pairs;
  for (int64_t i = 0; i < num_pairs; ++i) {
    const float a = x[i];
    const float b = second[i];
    x[i] = a * cosines[i] - b * sines[i];
    second[i] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace msa::runner
