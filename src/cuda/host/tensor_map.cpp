#include "cuda/host/tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>

#include "cuda/device/layout.h"
#include "cuda/host/device.h"
#include "cuda/host/support.h"

namespace msa::cuda {
namespace {

constexpr int64_t kAlignment = 16;  // bytes, of addresses and strides

/// From the driver, without linking to it.
PFN_cuTensorMapEncodeTiled_v12000 encode_function(const char* op) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(op, cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                  cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("[{}] the driver is too old: got no cuTensorMapEncodeTiled, allowed "
                            "CUDA 12.0 or newer",
                            op));
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

struct Axis {
  int64_t extent;
  int64_t stride;  // elements; not used for the first axis
  int64_t box;
};

template <size_t kRank>
CUtensorMap encode(const char* op, const char* name, DType dtype, const void* data,
                   const Axis (&axes)[kRank]) {
  cuuint64_t extents[kRank];
  cuuint64_t strides[kRank - 1];
  cuuint32_t box[kRank];
  cuuint32_t steps[kRank];
  int64_t packed = 1;
  for (size_t i = 0; i < kRank; ++i) {
    // An axis of one element may have any stride in the view; the encoder wants a valid one.
    const int64_t stride = axes[i].extent > 1 ? axes[i].stride : packed;
    extents[i] = static_cast<cuuint64_t>(std::max<int64_t>(axes[i].extent, 1));
    if (i > 0) strides[i - 1] = static_cast<cuuint64_t>(round_up(stride * 2, kAlignment));
    box[i] = static_cast<cuuint32_t>(axes[i].box);
    steps[i] = 1;
    packed = std::max(packed, stride * axes[i].extent);
  }
  CUtensorMap map{};
  const CUtensorMapDataType type = dtype == DType::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                             : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const CUresult result =
      encode_function(op)(&map, type, kRank, const_cast<void*>(data), extents, strides, box, steps,
                          CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                          CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error(ErrorCode::kInternal,
                fmt::format("[{}] the driver refused the descriptor of {}: got CUresult {}", op,
                            name, static_cast<int>(result)));
  }
  return map;
}

}  // namespace

void check_alignment(const char* op, const char* name, const void* data,
                     std::initializer_list<int64_t> strides, int64_t alignment) {
  check_support(
      reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(alignment) == 0, op,
      "{} is misaligned for the cuda backend: got address {}, allowed multiples of {} bytes", name,
      fmt::ptr(data), alignment);
  for (const int64_t stride : strides) {
    check_support(stride >= 0 && stride * 2 % alignment == 0, op,
                  "{} has a stride that the cuda backend cannot read: got {} elements, allowed "
                  "multiples of {}",
                  name, stride, alignment / 2);
  }
}

CUtensorMap key_map(const char* op, const char* name, const core::KeyParams& keys,
                    const core::SequenceParams& sequences, int64_t heads, int64_t dim,
                    int64_t block_size) {
  const int64_t tokens = sequences.paged() ? sequences.page_size : keys.num_rows;
  const int64_t pages = sequences.paged() ? keys.num_rows : 1;
  check_alignment(op, name, keys.data,
                  {tokens > 1 ? keys.token_stride : 0, heads > 1 ? keys.head_stride : 0,
                   pages > 1 ? keys.page_stride : 0},
                  kAlignment);
  return encode(op, name, keys.dtype, keys.data,
                {Axis{dim, 1, kPanelColumns}, Axis{tokens, keys.token_stride, block_size},
                 Axis{heads, keys.head_stride, 1}, Axis{pages, keys.page_stride, 1}});
}

CUtensorMap query_map(const char* op, const core::AttentionForwardParams& params, int64_t box_heads,
                      int64_t box_tokens) {
  const int64_t tokens = params.sequences.num_query_tokens;
  check_alignment(
      op, "q", params.q,
      {params.num_q_heads > 1 ? params.q_head_stride : 0, tokens > 1 ? params.q_token_stride : 0},
      kAlignment);
  return encode(op, "q", params.q_dtype, params.q,
                {Axis{params.head_dim, 1, kPanelColumns},
                 Axis{params.num_q_heads, params.q_head_stride, box_heads},
                 Axis{tokens, params.q_token_stride, box_tokens}});
}

}  // namespace msa::cuda
