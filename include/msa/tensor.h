// Views of memory that the caller owns: a pointer, a type, a shape and strides. Nothing is copied
// and nothing is freed. Strides count elements, not bytes, and are 64-bit, so a view of a cache of
// any size, in any order of axes, is exact. The last axis of every view must have stride 1.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace msa {

enum class DType : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kInt32 = 3 };

/// Size of one element in bytes.
size_t dtype_bytes(DType dtype);
/// "float32", "bfloat16", "float16" or "int32".
const char* dtype_name(DType dtype);

inline constexpr int kMaxRank = 4;

/// A view with 1 to 4 axes. A default-constructed view is absent: data is null and rank is 0.
/// `Pointer` is `void*` for outputs and `const void*` for inputs.
template <typename Pointer>
struct TensorView {
  Pointer data = nullptr;
  DType dtype = DType::kFloat32;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape{};
  std::array<int64_t, kMaxRank> stride{};

  TensorView() = default;

  /// A dense, row-major view.
  TensorView(Pointer data_in, DType dtype_in, std::initializer_list<int64_t> shape_in)
      : data(data_in), dtype(dtype_in) {
    for (int64_t extent : shape_in) {
      if (rank < kMaxRank) shape[static_cast<size_t>(rank)] = extent;
      ++rank;  // a rank above kMaxRank is refused by the op that gets the view
    }
    int64_t step = 1;
    for (int axis = (rank < kMaxRank ? rank : kMaxRank) - 1; axis >= 0; --axis) {
      stride[static_cast<size_t>(axis)] = step;
      step *= shape[static_cast<size_t>(axis)];
    }
  }

  /// A strided view.
  TensorView(Pointer data_in, DType dtype_in, std::initializer_list<int64_t> shape_in,
             std::initializer_list<int64_t> stride_in)
      : TensorView(data_in, dtype_in, shape_in) {
    int axis = 0;
    for (int64_t step : stride_in) {
      if (axis < kMaxRank) stride[static_cast<size_t>(axis)] = step;
      ++axis;
    }
    if (axis != rank) rank = -1;  // refused by the op that gets the view
  }

  bool present() const { return rank != 0; }
};

using MutableTensor = TensorView<void*>;

/// The read-only view; a mutable view converts to it.
struct Tensor : TensorView<const void*> {
  using TensorView::TensorView;
  Tensor(const MutableTensor& other) {  // NOLINT(google-explicit-constructor): a plain widening
    data = other.data;
    dtype = other.dtype;
    rank = other.rank;
    shape = other.shape;
    stride = other.stride;
  }
};

/// "float32 [3, 4, 64]", for messages.
std::string describe(const Tensor& tensor);

}  // namespace msa
