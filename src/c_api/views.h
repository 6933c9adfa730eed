// Views of the C API as those of the C++ API. Types and ranks that do not exist stay what they are:
// the op's own checks refuse them by name.
#pragma once

#include <algorithm>
#include <optional>

#include "msa/c_api.h"
#include "msa/sequences.h"
#include "msa/tensor.h"

namespace msa::c_api {

static_assert(MSA_FLOAT32 == static_cast<int>(DType::kFloat32));
static_assert(MSA_BFLOAT16 == static_cast<int>(DType::kBFloat16));
static_assert(MSA_FLOAT16 == static_cast<int>(DType::kFloat16));
static_assert(MSA_INT32 == static_cast<int>(DType::kInt32));
static_assert(MSA_HEAD_MAJOR == static_cast<int>(BlockIdLayout::kHeadMajor));
static_assert(MSA_TOKEN_MAJOR == static_cast<int>(BlockIdLayout::kTokenMajor));
static_assert(std::size(decltype(msa_tensor::shape){}) == kMaxRank);

inline MutableTensor output(const msa_tensor& given) {
  MutableTensor tensor;
  tensor.data = given.data;
  tensor.dtype = static_cast<DType>(given.dtype);
  tensor.rank = given.rank;
  std::copy_n(given.shape, kMaxRank, tensor.shape.begin());
  std::copy_n(given.stride, kMaxRank, tensor.stride.begin());
  return tensor;
}

inline Tensor input(const msa_tensor& given) { return output(given); }

inline Sequences sequences_of(const msa_sequences& given) {
  return {.cu_seqlens_q = input(given.cu_seqlens_q),
          .cu_seqlens_k = input(given.cu_seqlens_k),
          .page_table = input(given.page_table),
          .kv_lens = input(given.kv_lens)};
}

inline std::optional<float> scale_of(float given) {
  if (given == 0) return std::nullopt;
  return given;
}

}  // namespace msa::c_api
