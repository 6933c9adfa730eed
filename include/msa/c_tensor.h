// Views of memory, as all ops of the C API take them; part of msa/c_api.h.
//
// All zeros is an absent tensor. msa_tensor_1d to _4d make dense, row-major views; any other layout
// is written into shape and stride.
#pragma once

#include <stdint.h>

// NOLINTBEGIN(readability-identifier-naming): names as C has them
#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t msa_dtype;
enum { MSA_FLOAT32 = 0, MSA_BFLOAT16 = 1, MSA_FLOAT16 = 2, MSA_INT32 = 3 };

/// A view with 1 to 4 axes of memory that the caller owns. All zeros: absent. Strides count
/// elements and may be negative; inputs may also have strides of 0. The last axis has stride 1,
/// data is aligned to its element, and a view covers at most 2^44 elements. An input is never
/// written through its pointer, so a const pointer may be cast.
typedef struct msa_tensor {
  void* data;
  msa_dtype dtype;
  int32_t rank;
  int64_t shape[4];
  int64_t stride[4];
} msa_tensor;

/// Dense, row-major views. Extents that multiply past 64 bits are refused by the op.
static inline int64_t msa_stride_of(int64_t extent, int64_t stride) {
  return (int64_t)((uint64_t)extent * (uint64_t)stride);  // NOLINT: C's cast; wraps around
}
static inline msa_tensor msa_tensor_4d(void* data, msa_dtype dtype, int64_t n0, int64_t n1,
                                       int64_t n2, int64_t n3) {
  const int64_t step = msa_stride_of(n2, n3);
  msa_tensor tensor = {data, dtype, 4, {n0, n1, n2, n3}, {msa_stride_of(n1, step), step, n3, 1}};
  return tensor;
}
static inline msa_tensor msa_tensor_3d(void* data, msa_dtype dtype, int64_t n0, int64_t n1,
                                       int64_t n2) {
  msa_tensor tensor = {data, dtype, 3, {n0, n1, n2, 0}, {msa_stride_of(n1, n2), n2, 1, 0}};
  return tensor;
}
static inline msa_tensor msa_tensor_2d(void* data, msa_dtype dtype, int64_t n0, int64_t n1) {
  msa_tensor tensor = {data, dtype, 2, {n0, n1, 0, 0}, {n1, 1, 0, 0}};
  return tensor;
}
static inline msa_tensor msa_tensor_1d(void* data, msa_dtype dtype, int64_t n0) {
  msa_tensor tensor = {data, dtype, 1, {n0, 0, 0, 0}, {1, 0, 0, 0}};
  return tensor;
}

#ifdef __cplusplus
}
#endif
// NOLINTEND(readability-identifier-naming)
