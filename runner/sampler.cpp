#include "runner/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runner/files/fail.h"

namespace msa::runner {
namespace {

constexpr const char* kWhat = "sampler";
constexpr float kLowest = -std::numeric_limits<float>::infinity();

}  // namespace

Sampler::Sampler(const SamplerOptions& options) : options_(options), state_(options.seed) {
  require(std::isfinite(options.temperature) && options.temperature >= 0, kWhat,
          "temperature is wrong: got {}, allowed 0 (greedy) or more", options.temperature);
  require(options.top_k >= 0, kWhat, "top_k is wrong: got {}, allowed 0 (all) or more",
          options.top_k);
  require(options.top_p > 0 && options.top_p <= 1, kWhat,
          "top_p is wrong: got {}, allowed above 0 and at most 1", options.top_p);
}

double Sampler::draw() {
  state_ += 0x9E3779B97F4A7C15u;
  uint64_t mixed = state_;
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
  mixed ^= mixed >> 31;
  return static_cast<double>(mixed >> 11) * 0x1p-53;
}

int32_t Sampler::next(std::span<const float> logits) {
  size_t best = logits.size();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] > (best == logits.size() ? kLowest : logits[best])) best = id;
  }
  require(best < logits.size(), kWhat,
          "no token can follow: got no logit above -inf among {}, "
          "allowed at least one",
          logits.size());
  // An infinite logit has all the weight, whatever the temperature.
  if (options_.temperature == 0 || std::isinf(logits[best])) return static_cast<int32_t>(best);

  order_.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    order_.emplace_back(std::isnan(logits[id]) ? kLowest : logits[id], static_cast<int32_t>(id));
  }
  const auto before = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  const auto top_k = static_cast<size_t>(options_.top_k);
  if (top_k > 0 && top_k < order_.size()) {
    std::partial_sort(order_.begin(), order_.begin() + options_.top_k, order_.end(), before);
    order_.resize(top_k);
  } else {
    std::sort(order_.begin(), order_.end(), before);
  }
  weights_.clear();
  double total = 0;
  for (const auto& [logit, id] : order_) {
    const double distance = static_cast<double>(logit) - static_cast<double>(logits[best]);
    weights_.push_back(std::exp(distance / static_cast<double>(options_.temperature)));
    total += weights_.back();
  }
  size_t kept = 0;
  double kept_weight = 0;
  const double wanted = static_cast<double>(options_.top_p) * total;
  while (kept < weights_.size() && (kept == 0 || kept_weight < wanted)) {
    kept_weight += weights_[kept++];
  }
  const double target = draw() * kept_weight;
  double passed = 0;
  for (size_t n = 0; n < kept; ++n) {
    passed += weights_[n];
    if (target < passed) return order_[n].second;
  }
  return order_[kept - 1].second;
}

}  // namespace msa::runner
