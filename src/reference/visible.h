// The tokens that a row reads, and dot products in double, for the plain loops of the reference.
#pragma once

#include <cstdint>
#include <vector>

#include "core/element.h"
#include "core/params.h"
#include "reference/rows.h"

namespace msa::reference {

/// S(i,g), ascending: visible tokens of the listed blocks; without ids all visible tokens.
inline std::vector<int64_t> visible_tokens(const core::AttentionForwardParams& p, int64_t t,
                                           int64_t g, const Row& row) {
  std::vector<int64_t> tokens;
  if (row.empty()) return tokens;
  if (p.block_size == 0) {  // dense
    for (int64_t j = 0; j <= row.position; ++j) tokens.push_back(j);
    return tokens;
  }
  const int64_t num_visible_blocks = row.position / p.block_size + 1;
  std::vector<bool> chosen(static_cast<size_t>(num_visible_blocks), false);
  const int32_t* ids =
      p.block_ids.data + g * p.block_ids.head_stride + t * p.block_ids.token_stride;
  for (int64_t n = 0; n < p.block_ids.top_k && ids[n] != -1; ++n) {
    if (ids[n] >= 0 && ids[n] < num_visible_blocks) chosen[static_cast<size_t>(ids[n])] = true;
  }
  for (int64_t j = 0; j <= row.position; ++j) {
    if (chosen[static_cast<size_t>(j / p.block_size)]) tokens.push_back(j);
  }
  return tokens;
}

/// Element at an offset, in double.
inline double element(const void* data, DType dtype, int64_t offset) {
  return static_cast<double>(core::load_element(data, dtype, offset));
}

inline double dot(const void* a, DType a_type, int64_t a_offset, const void* b, DType b_type,
                  int64_t b_offset, int64_t dim) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) {
    sum += element(a, a_type, a_offset + d) * element(b, b_type, b_offset + d);
  }
  return sum;
}

/// scale * q[t,h] . k[j,g] of a request's token j.
inline double logit(const core::AttentionForwardParams& p, int64_t request, int64_t t, int64_t h,
                    int64_t j) {
  const int64_t k = core::key_offset(p.k, p.sequences, request, j, h / p.group_size());
  return static_cast<double>(p.scale) * dot(p.q, p.q_dtype,
                                            t * p.q_token_stride + h * p.q_head_stride, p.k.data,
                                            p.k.dtype, k, p.head_dim);
}

/// Writes doubles as a row of a tensor.
inline void store_row(const std::vector<double>& values, const core::RowsParams<void*>& to,
                      int64_t token, int64_t head) {
  for (size_t d = 0; d < values.size(); ++d) {
    core::store_element(to.data, to.dtype, to.offset(token, head) + static_cast<int64_t>(d),
                        static_cast<float>(values[d]));
  }
}

}  // namespace msa::reference
