// Keys and values as the micro-kernel wants them: panels of kPanelColumns columns, float32.
//
//   keys    [dim][tokens]  transposed, so that a vector holds one dimension of 16 tokens
//   values  [tokens][dim]  as they are
//
// A panel is [depth][width] without gaps; the last one is narrower. Transposing works on 4 x 4
// squares inside 128-bit blocks: each block of a vector is loaded from another token, so that no
// lane ever crosses blocks. Of 16-bit types other than float16 two dimensions travel as one 32-bit
// word and are split at the end, which halves the shuffles: 64 x 64 take about 500 cycles on
// AVX-512, the arithmetic of two query rows.
#if defined(MSA_CPU_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_CPU_PACK_INL_H_
#undef MSA_CPU_PACK_INL_H_
#else
#define MSA_CPU_PACK_INL_H_
#endif

#include <algorithm>

#include "cpu/gemm-inl.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

using Words = hn::RebindToUnsigned<Floats>;
using WordVector = hn::Vec<Words>;
using Block = hn::CappedTag<uint32_t, 4>;
using BlockVector = hn::Vec<Block>;
static_assert(kLanes == 4 || kLanes == 8 || kLanes == 16, "vectors are 1, 2 or 4 blocks");

/// Four words: 4 floats, or 8 bfloat16, as they are in memory.
template <class Element>
HWY_INLINE BlockVector load_block(const Element* from) {
  return hn::LoadU(Block(), reinterpret_cast<const uint32_t*>(from));
}
HWY_INLINE BlockVector load_block(const Float16* from) {
  return hn::BitCast(Block(), load_floats(hn::CappedTag<float, 4>(), from));
}

/// Block n of the result comes from rows[4 n].
template <class Element>
HWY_INLINE WordVector load_blocks(const Element* const* rows, size_t dim) {
#if HWY_TARGET == HWY_AVX2
  return hn::Combine(Words(), load_block(rows[4] + dim), load_block(rows[0] + dim));
#elif HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  const hn::Half<Words> half;
  const auto low = hn::Combine(half, load_block(rows[4] + dim), load_block(rows[0] + dim));
  const auto high = hn::Combine(half, load_block(rows[12] + dim), load_block(rows[8] + dim));
  return hn::Combine(Words(), high, low);
#else
  static_assert(kLanes == 4, "one block");
  return load_block(rows[0] + dim);
#endif
}

/// out[c] = word c of each row, for 4 words and kLanes rows.
HWY_INLINE void transpose_blocks(const WordVector in[4], WordVector out[4]) {
  const Words d;
  const hn::Repartition<uint64_t, Words> d64;
  const auto a = hn::BitCast(d64, hn::InterleaveLower(d, in[0], in[1]));
  const auto b = hn::BitCast(d64, hn::InterleaveUpper(d, in[0], in[1]));
  const auto e = hn::BitCast(d64, hn::InterleaveLower(d, in[2], in[3]));
  const auto f = hn::BitCast(d64, hn::InterleaveUpper(d, in[2], in[3]));
  out[0] = hn::BitCast(d, hn::InterleaveLower(d64, a, e));
  out[1] = hn::BitCast(d, hn::InterleaveUpper(d64, a, e));
  out[2] = hn::BitCast(d, hn::InterleaveLower(d64, b, f));
  out[3] = hn::BitCast(d, hn::InterleaveUpper(d64, b, f));
}

HWY_INLINE void store_words(WordVector words, float* to) {
  hn::StoreU(hn::BitCast(Floats(), words), Floats(), to);
}

/// Columns for `count` tokens: whole vectors.
HWY_INLINE size_t padded_columns(size_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

/// Columns past `count` hold copies of the first token: their scores are masked by the caller, and
/// nothing past the last token is read.
template <class Element>
HWY_NOINLINE void pack_transposed(const Element* base, const int64_t* offsets, size_t count,
                                  size_t dim, float* panels) {
  const size_t columns = padded_columns(count);
  for (size_t first = 0; first < columns; first += kLanes) {
    const Element* rows[kLanes];
    for (size_t n = 0; n < kLanes; ++n) {
      rows[n] = base + offsets[first + n < count ? first + n : 0];
    }
    const size_t panel = first / kPanelColumns * kPanelColumns;
    const size_t width = std::min(kPanelColumns, columns - panel);
    float* to = panels + panel * dim + (first - panel);
    constexpr bool kPairs = sizeof(Element) == 2 && !std::is_same_v<Element, Float16>;
    constexpr size_t kDims = kPairs ? 8 : 4;  // dimensions of four words
    for (size_t at = 0; at < dim; at += kDims) {
      WordVector in[4];
      WordVector out[4];
      for (size_t r = 0; r < 4; ++r) in[r] = load_blocks(rows + r, at);
      transpose_blocks(in, out);
      for (size_t c = 0; c < 4; ++c) {
        if constexpr (kPairs) {  // the even dimension is in the low half
          store_words(hn::ShiftLeft<16>(out[c]), to + (at + 2 * c) * width);
          store_words(hn::And(out[c], hn::Set(Words(), 0xFFFF0000u)),
                      to + (at + 2 * c + 1) * width);
        } else {
          store_words(out[c], to + (at + c) * width);
        }
      }
    }
  }
}

/// Columns past `dim` are 0.
template <class Element>
HWY_NOINLINE void pack_rows(const Element* base, const int64_t* offsets, size_t count, size_t dim,
                            float* panels) {
  const size_t columns = padded_columns(dim);
  for (size_t panel = 0; panel < columns; panel += kPanelColumns) {
    const size_t width = std::min(kPanelColumns, columns - panel);
    const size_t filled = std::min(width, dim - panel);
    for (size_t n = 0; n < count; ++n) {
      float* to = panels + panel * count + n * width;
      if (filled < width) std::memset(to + filled, 0, (width - filled) * sizeof(float));
      convert(base + offsets[n] + panel, filled, to);
    }
  }
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MSA_CPU_PACK_INL_H_
