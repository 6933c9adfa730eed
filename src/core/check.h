// Argument checks with messages of one form: "[op] what is wrong: got ..., allowed ...".
#pragma once

#include <fmt/format.h>

#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>

#include "core/params.h"
#include "msa/error.h"
#include "msa/sequences.h"

namespace msa::core {

/// A part of a message that is made only when the message is: checks that pass build no strings,
/// which for the nine tensors of a call would cost more than all else before a small kernel.
template <typename Make>
struct Lazy {
  Make make;
};
template <typename Make>
Lazy(Make) -> Lazy<Make>;

/// describe(tensor), made when it is needed, within the expression that holds it.
inline auto shown(const Tensor& tensor) {
  return Lazy{[&tensor] { return describe(tensor); }};
}

/// Throws kInvalidArgument with "[op] message" unless ok. The message is built only on failure.
template <typename... Arguments>
void check(bool ok, const char* op, fmt::format_string<Arguments...> message,
           Arguments&&... arguments) {
  if (ok) return;
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("[{}] {}", op, fmt::format(message, std::forward<Arguments>(arguments)...)));
}

/// Limits that no memory reaches, so that sums and products of sizes stay within 64 bits.
inline constexpr int64_t kMaxElements = int64_t{1} << 44;  // of a view
inline constexpr int64_t kMaxReach = int64_t{1} << 60;     // elements from its first to its last
inline constexpr int64_t kMaxBlockSize = std::numeric_limits<int32_t>::max();
inline constexpr int64_t kMaxTopK = std::numeric_limits<int32_t>::max();

/// The view is present, has `rank` axes of non-negative extent within the limits, stride 1 on the
/// last, data aligned to its element and not null unless empty, and one of `dtypes`.
void check_tensor(const char* op, std::string_view name, const Tensor& tensor, int rank,
                  std::initializer_list<DType> dtypes);
/// An output, moreover, does not overlap itself: two threads would write one place.
void check_tensor(const char* op, std::string_view name, const MutableTensor& tensor, int rank,
                  std::initializer_list<DType> dtypes);

/// The shape is exactly `shape`; -1 stands for any extent.
void check_shape(const char* op, std::string_view name, const Tensor& tensor,
                 std::initializer_list<int64_t> shape);

/// 1 to kMaxBlockSize.
void check_block_size(const char* op, int64_t block_size);

/// Default 1 / sqrt(dim); finite and > 0.
float check_scale(const char* op, std::optional<float> scale, int64_t dim);

/// Shapes and types of the sequence arrays; fills everything but what the key tensor decides.
/// `keys` is a key tensor of rank `key_rank` without pages and key_rank + 1 with them.
SequenceParams check_sequences(const char* op, const Sequences& sequences, int64_t num_query_tokens,
                               const Tensor& keys, std::string_view keys_name);

/// What the caller says of the longest request; 0: nothing.
void check_max_query_length(const char* op, int64_t max_query_length);

/// Contents of the sequence arrays, for backends whose arrays the host can read: starts at 0,
/// never falls, ends within the tensors; lengths within the table; pages within the cache. Of the
/// table only slots [slot_begin, slot_end) are read.
void check_sequence_contents(const char* op, const SequenceParams& params, int64_t num_key_tokens,
                             int64_t slot_begin = 0,
                             int64_t slot_end = std::numeric_limits<int64_t>::max());

/// Pointer, type and strides of a key tensor; heads are axis -2 when has_heads.
KeyParams key_params(const Tensor& keys, bool paged, bool has_heads);

/// The workspace is large enough and aligned.
void check_workspace(const char* op, const Workspace& workspace, size_t bytes);

/// Throws kUnsupported with the backend's reason.
void check_supported(const Context& context, Op op, const Geometry& geometry, DType dtype);

}  // namespace msa::core

template <typename Make>
struct fmt::formatter<msa::core::Lazy<Make>> : fmt::formatter<std::string> {
  template <typename FormatContext>
  auto format(const msa::core::Lazy<Make>& lazy, FormatContext& context) const {
    return fmt::formatter<std::string>::format(lazy.make(), context);
  }
};
