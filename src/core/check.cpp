#include "core/check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <string>

#include "core/backend.h"

namespace msa::core {
namespace {

auto dtype_list(std::initializer_list<DType> dtypes) {
  return Lazy{[dtypes] {
    std::string list;
    for (DType dtype : dtypes) {
      if (!list.empty()) list += ", ";
      list += dtype_name(dtype);
    }
    return list;
  }};
}

/// "[8, 1]"
auto stride_list(const Tensor& tensor) {
  return Lazy{[&tensor] {
    std::string list;
    for (int axis = 0; axis < tensor.rank; ++axis) {
      list += (axis == 0 ? "" : ", ") + std::to_string(tensor.stride[static_cast<size_t>(axis)]);
    }
    return "[" + list + "]";
  }};
}

/// In double, where nothing overflows; both limits are far below what rounding could reach.
void check_size(const char* op, std::string_view name, const Tensor& tensor) {
  double elements = 1;
  double reach = 1;
  for (int axis = 0; axis < tensor.rank; ++axis) {
    const auto at = static_cast<size_t>(axis);
    const auto extent = static_cast<double>(std::max<int64_t>(1, tensor.shape[at]));
    elements *= extent;
    reach += (extent - 1) * std::abs(static_cast<double>(tensor.stride[at]));
  }
  check(elements <= static_cast<double>(kMaxElements), op,
        "{} is larger than any memory: got {}, allowed {} elements", name, shown(tensor),
        kMaxElements);
  check(reach <= static_cast<double>(kMaxReach), op,
        "{} reaches further than any memory: got strides {} of {}, allowed {} elements", name,
        stride_list(tensor), shown(tensor), kMaxReach);
}

/// From the finest axis to the coarsest, each step must pass over all that lies below it.
bool overlaps_itself(const Tensor& tensor) {
  std::array<int64_t, kMaxRank> steps{};
  std::array<int64_t, kMaxRank> extents{};
  size_t count = 0;
  for (int axis = 0; axis < tensor.rank; ++axis) {
    const int64_t extent = tensor.shape[static_cast<size_t>(axis)];
    if (extent == 0) return false;
    if (extent == 1) continue;
    const int64_t step = std::abs(tensor.stride[static_cast<size_t>(axis)]);
    size_t at = count++;
    for (; at > 0 && steps[at - 1] > step; --at) {
      steps[at] = steps[at - 1];
      extents[at] = extents[at - 1];
    }
    steps[at] = step;
    extents[at] = extent;
  }
  int64_t covered = 0;
  for (size_t n = 0; n < count; ++n) {
    if (steps[n] <= covered) return true;
    covered += (extents[n] - 1) * steps[n];
  }
  return false;
}

void check_int32_vector(const char* op, std::string_view name, const Tensor& tensor,
                        int64_t extent) {
  check_tensor(op, name, tensor, 1, {DType::kInt32});
  check_shape(op, name, tensor, {extent});
}

void check_offsets(const char* op, const char* name, const int32_t* offsets, int64_t batch,
                   int64_t num_rows) {
  check(offsets[0] == 0, op, "{}[0] is wrong: got {}, allowed 0", name, offsets[0]);
  for (int64_t r = 0; r < batch; ++r) {
    check(offsets[r + 1] >= offsets[r], op, "{} falls at {}: got {} after {}, allowed no decrease",
          name, r + 1, offsets[r + 1], offsets[r]);
  }
  check(offsets[batch] <= num_rows, op,
        "{}[{}] is past the tensor: got {}, allowed at most {} rows", name, batch, offsets[batch],
        num_rows);
}

}  // namespace

void check_tensor(const char* op, std::string_view name, const Tensor& tensor, int rank,
                  std::initializer_list<DType> dtypes) {
  check(tensor.present(), op, "{} is missing: got no tensor, allowed {} of rank {}", name,
        dtype_list(dtypes), rank);
  check(tensor.rank == rank, op, "{} has the wrong rank: got {}, allowed {}", name, tensor.rank,
        rank);
  bool known = false;
  for (DType dtype : dtypes) known = known || tensor.dtype == dtype;
  check(known, op, "{} has the wrong type: got {}, allowed {}", name, dtype_name(tensor.dtype),
        dtype_list(dtypes));
  bool empty = false;
  for (int axis = 0; axis < rank; ++axis) {
    const int64_t extent = tensor.shape[static_cast<size_t>(axis)];
    check(extent >= 0, op, "{} has a negative extent: got {}, allowed 0 or more", name,
          shown(tensor));
    empty = empty || extent == 0;
  }
  check(empty || tensor.data != nullptr, op, "{} has no data: got a null pointer for {}", name,
        shown(tensor));
  check(reinterpret_cast<uintptr_t>(tensor.data) % dtype_bytes(tensor.dtype) == 0, op,
        "{} is misaligned: got an address that is no multiple of {}", name,
        dtype_bytes(tensor.dtype));
  const auto last = static_cast<size_t>(rank - 1);
  check(tensor.stride[last] == 1 || tensor.shape[last] <= 1, op,
        "{} is strided on its last axis: got stride {}, allowed 1", name, tensor.stride[last]);
  check_size(op, name, tensor);
}

void check_tensor(const char* op, std::string_view name, const MutableTensor& tensor, int rank,
                  std::initializer_list<DType> dtypes) {
  const Tensor view = tensor;
  check_tensor(op, name, view, rank, dtypes);
  check(!overlaps_itself(view), op,
        "{} overlaps itself: got strides {} of {}, allowed those that give each element a place of "
        "its own",
        name, stride_list(view), shown(view));
}

void check_block_size(const char* op, int64_t block_size) {
  check(block_size >= 1 && block_size <= kMaxBlockSize, op,
        "block_size is wrong: got {}, allowed 1 to {}", block_size, kMaxBlockSize);
}

void check_shape(const char* op, std::string_view name, const Tensor& tensor,
                 std::initializer_list<int64_t> shape) {
  bool equal = tensor.rank == static_cast<int>(shape.size());
  size_t axis = 0;
  for (int64_t extent : shape) {
    equal = equal && (extent < 0 || tensor.shape[axis] == extent);
    ++axis;
  }
  const Lazy allowed{[shape] {
    std::string list;
    for (int64_t extent : shape) {
      list +=
          (list.empty() ? "" : ", ") + (extent < 0 ? std::string("any") : std::to_string(extent));
    }
    return list;
  }};
  check(equal, op, "{} has the wrong shape: got {}, allowed [{}]", name, shown(tensor), allowed);
}

float check_scale(const char* op, std::optional<float> scale, int64_t dim) {
  if (!scale) return static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim)));
  check(std::isfinite(*scale) && *scale > 0, op,
        "scale is wrong: got {}, allowed a finite number above 0", *scale);
  return *scale;
}

SequenceParams check_sequences(const char* op, const Sequences& sequences, int64_t num_query_tokens,
                               const Tensor& keys, std::string_view keys_name) {
  SequenceParams params;
  check_tensor(op, "cu_seqlens_q", sequences.cu_seqlens_q, 1, {DType::kInt32});
  params.batch = sequences.cu_seqlens_q.shape[0] - 1;
  check(params.batch >= 0, op, "cu_seqlens_q is empty: got 0 entries, allowed batch + 1");
  params.num_query_tokens = num_query_tokens;
  params.cu_seqlens_q = static_cast<const int32_t*>(sequences.cu_seqlens_q.data);
  const bool paged = sequences.page_table.present() || sequences.kv_lens.present();
  if (!paged) {
    check(sequences.cu_seqlens_k.present(), op,
          "key lengths are missing: got none, allowed cu_seqlens_k, or page_table with kv_lens");
    check_int32_vector(op, "cu_seqlens_k", sequences.cu_seqlens_k, params.batch + 1);
    params.cu_seqlens_k = static_cast<const int32_t*>(sequences.cu_seqlens_k.data);
    return params;
  }
  check(!sequences.cu_seqlens_k.present(), op,
        "key lengths are given twice: got cu_seqlens_k and pages, allowed one of them");
  check_int32_vector(op, "kv_lens", sequences.kv_lens, params.batch);
  check_tensor(op, "page_table", sequences.page_table, 2, {DType::kInt32});
  check_shape(op, "page_table", sequences.page_table, {params.batch, -1});
  params.kv_lens = static_cast<const int32_t*>(sequences.kv_lens.data);
  // A table of no entries may have no memory, yet marks the call as paged.
  static const int32_t kNoPages = 0;
  params.page_table = sequences.page_table.data != nullptr
                          ? static_cast<const int32_t*>(sequences.page_table.data)
                          : &kNoPages;
  params.page_table_stride = sequences.page_table.stride[0];
  params.max_pages = sequences.page_table.shape[1];
  params.num_pages = keys.shape[0];
  params.page_size = keys.shape[1];
  check(params.page_size > 0, op, "{} has empty pages: got {}, allowed at least 1 token a page",
        keys_name, shown(keys));
  check(params.page_size <= kMaxBlockSize, op,
        "{} has pages that are too large: got {}, allowed {} tokens a page", keys_name, shown(keys),
        kMaxBlockSize);
  return params;
}

void check_max_query_length(const char* op, int64_t max_query_length) {
  check(max_query_length >= 0, op,
        "max_query_length is negative: got {}, allowed 0 (not known) or more", max_query_length);
}

void check_sequence_contents(const char* op, const SequenceParams& params, int64_t num_key_tokens,
                             int64_t slot_begin, int64_t slot_end) {
  check_offsets(op, "cu_seqlens_q", params.cu_seqlens_q, params.batch, params.num_query_tokens);
  for (int64_t r = 0; params.max_query_length > 0 && r < params.batch; ++r) {
    check(params.query_length(r) <= params.max_query_length, op,
          "request {} has more rows than max_query_length: got {}, allowed {}", r,
          params.query_length(r), params.max_query_length);
  }
  if (!params.paged()) {
    check_offsets(op, "cu_seqlens_k", params.cu_seqlens_k, params.batch, num_key_tokens);
    return;
  }
  const int64_t longest = params.max_pages < std::numeric_limits<int32_t>::max() / params.page_size
                              ? params.max_pages * params.page_size
                              : std::numeric_limits<int32_t>::max();
  for (int64_t r = 0; r < params.batch; ++r) {
    const int64_t length = params.kv_lens[r];
    check(length >= 0 && length <= longest, op,
          "kv_lens[{}] is outside the page table: got {}, allowed 0 to {} ({} pages of {})", r,
          length, longest, params.max_pages, params.page_size);
    const int64_t used = (length + params.page_size - 1) / params.page_size;
    for (int64_t slot = slot_begin; slot < std::min(used, slot_end); ++slot) {
      const int64_t page = params.page_table[r * params.page_table_stride + slot];
      check(page >= 0 && page < params.num_pages, op,
            "page_table[{}, {}] is outside the cache: got {}, allowed 0 to {}", r, slot, page,
            params.num_pages - 1);
    }
  }
}

KeyParams key_params(const Tensor& keys, bool paged, bool has_heads) {
  KeyParams params;
  params.data = keys.data;
  params.dtype = keys.dtype;
  size_t axis = 0;
  if (paged) params.page_stride = keys.stride[axis++];
  params.token_stride = keys.stride[axis++];
  if (has_heads) params.head_stride = keys.stride[axis];
  params.num_rows = keys.shape[0];
  return params;
}

void check_workspace(const char* op, const Workspace& workspace, size_t bytes) {
  check(workspace.bytes >= bytes, op, "workspace is too small: got {} bytes, allowed at least {}",
        workspace.bytes, bytes);
  if (bytes == 0) return;
  check(workspace.data != nullptr, op, "workspace has no data: got a null pointer for {} bytes",
        bytes);
  check(reinterpret_cast<uintptr_t>(workspace.data) % 64 == 0, op,
        "workspace is misaligned: got an address that is no multiple of 64");
}

void check_supported(const Context& context, Op op, const Geometry& geometry, DType dtype) {
  const Support support = supports(context, op, geometry, dtype);
  if (!support.supported) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("[{}] not supported by the {} backend: {}", op_name(op),
                            backend_name(context.backend()), support.reason));
  }
}

}  // namespace msa::core
