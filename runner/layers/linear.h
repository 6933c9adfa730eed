// y = x W^T (+ y) with float32 x and y, by oneDNN.
//
//   x [rows, in], W [out, in], y [rows, out]; W is packed once into oneDNN's blocked layout.
//
// More than one tile of rows: tiles of 64 rows, one task each on the context's threads, each a
// single-threaded oneDNN product over all of W. One tile or less (decode): one product, oneDNN's
// own threads over the columns, as many as the context has (one where W is below 2 MiB). Rows are
// rounded up to 16, so that few shapes are compiled; x and y must have that room (padded_rows).
//
// Bound by FLOP from about 16 rows on and by the bytes of W below. Measured on 2 cores with
// AVX-512 (2026-11), in 256, out 1024: 327 GFLOP/s at 1024 rows, 1 row 13 us. bfloat16 weights are
// for CPUs with bfloat16 products that are faster than float32 ones.
#pragma once

#include <cstdint>
#include <memory>

#include "msa/context.h"

namespace msa::runner {

class Linear {
 public:
  Linear();
  /// weights [out, in]. dtype is kFloat32 or kBFloat16; throws kUnsupported where the CPU has no
  /// bfloat16 products.
  Linear(const float* weights, int64_t out, int64_t in, DType dtype);
  Linear(Linear&&) noexcept;
  Linear& operator=(Linear&&) noexcept;
  ~Linear();

  /// Safe to call from several threads at once.
  void run(const Context& context, const float* x, int64_t rows, float* y, bool add = false) const;

  int64_t in() const;
  int64_t out() const;
  size_t bytes() const;  ///< of the packed weights

  /// Rows of memory that run() may read of x and write of y.
  static int64_t padded_rows(int64_t rows);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace msa::runner
