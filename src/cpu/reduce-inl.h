// What a row of dots with a piece of a block is reduced to: its maximum and, relative to that, the
// sum of its exponentials. Both look at the first `visible` dots only.
#if defined(MSA_CPU_REDUCE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_CPU_REDUCE_INL_H_
#undef MSA_CPU_REDUCE_INL_H_
#else
#define MSA_CPU_REDUCE_INL_H_
#endif

#include <limits>

#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

/// Largest of the first `visible` dots; NaN is ignored, and -inf stands for none.
HWY_INLINE float largest_dot(const float* dots, size_t visible) {
  const Floats d;
  const Vector lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  Vector largest = lowest;
  size_t i = 0;
  for (; i + kLanes <= visible; i += kLanes) {
    const Vector dot = hn::LoadU(d, dots + i);
    largest = hn::IfThenElse(hn::Gt(dot, largest), dot, largest);  // false for NaN
  }
  if (i < visible) {
    const Vector dot = hn::IfThenElse(hn::FirstN(d, visible - i), hn::LoadU(d, dots + i), lowest);
    largest = hn::IfThenElse(hn::Gt(dot, largest), dot, largest);
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

/// Sum of exp(scale * (dot - origin)) over the first `visible` dots; no dot is above the origin.
HWY_INLINE float sum_of_exp(const float* dots, size_t visible, float origin, float scale_log2) {
  const Floats d;
  const Vector shift = hn::Set(d, origin == -std::numeric_limits<float>::infinity() ? 0 : origin);
  const Vector scale = hn::Set(d, scale_log2);
  Vector sum = hn::Zero(d);
  for (size_t i = 0; i < visible; i += kLanes) {
    const Vector term = exp2_nonpositive(hn::Mul(hn::Sub(hn::LoadU(d, dots + i), shift), scale));
    sum = hn::Add(
        sum, i + kLanes <= visible ? term : hn::IfThenElseZero(hn::FirstN(d, visible - i), term));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MSA_CPU_REDUCE_INL_H_
