// Vectors of float, conversions from and to storage types, and 2^x: the words that the kernels are
// written in. Re-included for each target in Highway's manner.
#if defined(MSA_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_CPU_SIMD_INL_H_
#undef MSA_CPU_SIMD_INL_H_
#else
#define MSA_CPU_SIMD_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include "core/element.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, 16>;
using Vector = hn::Vec<Floats>;
constexpr size_t kLanes = hn::MaxLanes(Floats());

// Storage types. bfloat16 is handled as its bits: every Highway version converts those alike.
struct Bfloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

/// Reads one vector of tag `d`'s lanes.
template <class D>
HWY_INLINE hn::Vec<D> load_floats(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load_floats(D d, const Bfloat16* from) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, &from->bits));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}
template <class D>
HWY_INLINE hn::Vec<D> load_floats(D d, const Float16* from) {
  const hn::Rebind<hwy::float16_t, D> d16;
  const auto value =
      hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
#if HWY_ARCH_X86 && HWY_TARGET >= HWY_SSE4
  // Without F16C Highway 1.0 widens the exponent of infinities and NaN like any other: mend those.
  const hn::RebindToUnsigned<D> d32;
  const hn::Rebind<uint16_t, D> d16u;
  const auto exponent = hn::Set(d32, 0x7C00u);
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16u, &from->bits));
  const auto special = hn::Eq(hn::And(bits, exponent), exponent);
  const auto all_ones = hn::Or(hn::BitCast(d32, value), hn::Set(d32, 0x7F800000u));
  return hn::BitCast(d, hn::IfThenElse(special, all_ones, hn::BitCast(d32, value)));
#else
  return value;
#endif
}

/// Copies `count` elements, a multiple of 8, as floats.
template <class Element>
HWY_INLINE void convert(const Element* from, size_t count, float* to) {
  const Floats d;
  const hn::CappedTag<float, 8> d8;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) hn::StoreU(load_floats(d, from + i), d, to + i);
  for (; i < count; i += hn::MaxLanes(d8)) hn::StoreU(load_floats(d8, from + i), d8, to + i);
}

/// Calls `body` with a typed pointer to the tensor.
template <class Body>
HWY_INLINE void with_type(const void* data, DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kBFloat16:
      body(static_cast<const Bfloat16*>(data));
      return;
    case DType::kFloat16:
      body(static_cast<const Float16*>(data));
      return;
    default:
      body(static_cast<const float*>(data));
  }
}

/// Writes `count` floats, a multiple of 8, times `factor`, rounded to nearest even.
HWY_INLINE void store_row(const float* from, float factor, size_t count, void* data, DType dtype,
                          int64_t offset) {
  if (dtype == DType::kFloat16) {
    for (size_t i = 0; i < count; ++i) {
      core::store_element(data, dtype, offset + static_cast<int64_t>(i), from[i] * factor);
    }
    return;
  }
  const hn::CappedTag<float, 8> d;
  const auto scale = hn::Set(d, factor);
  for (size_t i = 0; i < count; i += hn::MaxLanes(d)) {
    const auto value = hn::Mul(hn::LoadU(d, from + i), scale);
    if (dtype == DType::kFloat32) {
      hn::StoreU(value, d, static_cast<float*>(data) + offset + i);
      continue;
    }
    const hn::RebindToUnsigned<decltype(d)> d32;
    const hn::RebindToSigned<decltype(d)> d32s;
    const hn::Rebind<uint16_t, decltype(d)> d16;
    const auto bits = hn::BitCast(d32, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
    const auto nearest = hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7FFFu)));
    const auto quiet = hn::Or(bits, hn::Set(d32, 0x400000u));  // a NaN stays a NaN
    // Not Eq: Ne of a NaN with itself is false on AVX2 and AVX-512.
    const auto is_nan = hn::RebindMask(d32, hn::Not(hn::Eq(value, value)));
    const auto top = hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, nearest));
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(d32s, top)), d16,
               static_cast<uint16_t*>(data) + offset + i);
  }
}

/// 2^x for x <= 0: exact at 0, 0 below -126, NaN for NaN; within 2 units in the last place.
/// Adding the magic number rounds x to an integer and leaves it, biased, in the low bits, from
/// where it moves into the exponent; the rest in [-0.5, 0.5] goes through a polynomial of degree 5
/// fitted for the least relative error (1.1e-7) with the constant term fixed at 1.
HWY_INLINE Vector exp2_nonpositive(Vector x) {
  const Floats d;
  const hn::RebindToUnsigned<Floats> bits;
  const Vector magic = hn::Set(d, 12582912.0f + 127.0f);  // 1.5 * 2^23 + bias
  const Vector shifted = hn::Add(x, magic);
  const Vector rest = hn::Sub(x, hn::Sub(shifted, magic));
  const Vector power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(bits, shifted)));
  Vector value = hn::Set(d, 0.001326472731307149f);
  value = hn::MulAdd(value, rest, hn::Set(d, 0.009671512991189957f));
  value = hn::MulAdd(value, rest, hn::Set(d, 0.05550733581185341f));
  value = hn::MulAdd(value, rest, hn::Set(d, 0.24022242426872253f));
  value = hn::MulAdd(value, rest, hn::Set(d, 0.6931470036506653f));
  value = hn::MulAdd(value, rest, hn::Set(d, 1.0f));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), hn::Mul(value, power));
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MSA_CPU_SIMD_INL_H_
