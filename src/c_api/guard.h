// What every function of the C door goes through: nothing leaves but a status and a message.
//
// guarded() turns exceptions into both; read_struct() takes a struct of any version; call_op() and
// measure_op() are the whole way of an op: handle and struct -> C++ arguments -> op -> status.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "core/check.h"
#include "msa/c_api.h"
#include "msa/context.h"
#include "msa/error.h"

/// The handle of the C API.
struct msa_context {  // NOLINT(readability-identifier-naming): C's name
  msa::Context context;
  std::string description;
};

namespace msa::c_api {

/// Keeps the message, for msa_last_error() of this thread, and returns the status.
msa_status fail(msa_status status, const char* message) noexcept;
msa_status fail(const Error& error) noexcept;

template <typename Body>
msa_status guarded(const Body& body) noexcept {
  try {
    body();
    return MSA_OK;
  } catch (const Error& error) {
    return fail(error);
  } catch (const std::bad_alloc&) {
    return fail(MSA_OUT_OF_MEMORY, "[msa] memory ran out: got std::bad_alloc, allowed none");
  } catch (const std::length_error&) {
    return fail(MSA_OUT_OF_MEMORY, "[msa] memory ran out: got std::length_error, allowed none");
  } catch (const std::exception& error) {
    return fail(MSA_INTERNAL, error.what());
  } catch (...) {
    return fail(MSA_INTERNAL, "[msa] an unknown exception was thrown: please report it");
  }
}

template <typename Pointer>
void check_pointer(const char* op, const char* name, const Pointer* pointer) {
  core::check(pointer != nullptr, op, "{} is missing: got a null pointer", name);
}

/// Size of each growing struct in the version that brought it: what a caller must at least give.
/// They never change, whatever is appended later.
template <typename Struct>
inline constexpr uint64_t kFirstSize = 0;
template <>
inline constexpr uint64_t kFirstSize<msa_context_options> = 32;
template <>
inline constexpr uint64_t kFirstSize<msa_geometry> = 48;
template <>
inline constexpr uint64_t kFirstSize<msa_index_forward_args> = 752;
template <>
inline constexpr uint64_t kFirstSize<msa_index_candidates_args> = 680;
template <>
inline constexpr uint64_t kFirstSize<msa_merge_candidates_args> = 416;
template <>
inline constexpr uint64_t kFirstSize<msa_select_blocks_args> = 256;
template <>
inline constexpr uint64_t kFirstSize<msa_attention_forward_args> = 824;
template <>
inline constexpr uint64_t kFirstSize<msa_dense_attention_forward_args> = 736;
template <>
inline constexpr uint64_t kFirstSize<msa_merge_states_args> = 488;
template <>
inline constexpr uint64_t kFirstSize<msa_recall_args> = 1224;
template <>
inline constexpr uint64_t kFirstSize<msa_cache_append_args> = 808;
template <>
inline constexpr uint64_t kFirstSize<msa_copy_pages_args> = 328;
template <>
inline constexpr uint64_t kFirstSize<msa_attention_backward_args> = 1224;
template <>
inline constexpr uint64_t kFirstSize<msa_kl_forward_backward_args> = 1168;
inline constexpr uint64_t kLargestStruct = 1 << 16;  // more is a struct_size that nobody set

/// The caller's struct as this version knows it. Fields that an older caller does not have are 0;
/// fields of a newer caller must be 0.
template <typename Struct>
Struct read_struct(const char* op, const char* name, const Struct* given) {
  static_assert(sizeof(Struct) >= kFirstSize<Struct>, "a struct has shrunk");
  check_pointer(op, name, given);
  const uint64_t size = given->struct_size;
  core::check(size >= kFirstSize<Struct> && size <= kLargestStruct, op,
              "{} has the wrong struct_size: got {}, allowed its sizeof, {} in this version", name,
              size, sizeof(Struct));
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (uint64_t n = sizeof(Struct); n < size; ++n) {
    if (bytes[n] == 0) continue;
    throw Error(ErrorCode::kUnsupported,
                fmt::format("[{}] {} sets a field of a newer version: got byte {}, allowed the {} "
                            "bytes that this version knows",
                            op, name, n, sizeof(Struct)));
  }
  Struct known = {};
  std::memcpy(&known, given, size < sizeof(Struct) ? size : sizeof(Struct));
  return known;
}

inline void check_reserved(const char* op, int32_t reserved) {
  core::check(reserved == 0, op, "reserved is set: got {}, allowed 0", reserved);
}

inline const Context& context_of(const char* op, const msa_context* context) {
  check_pointer(op, "context", context);
  return context->context;
}

inline Workspace workspace_of(const msa_workspace* workspace) {
  if (workspace == nullptr) return {};
  return {workspace->data, workspace->bytes, workspace->stream};
}

template <typename Given, typename Args>
msa_status call_op(const char* op, const msa_context* context, const Given* given,
                   const msa_workspace* workspace, Args (*convert)(const Given&),
                   void (*run)(const Context&, const Args&, Workspace)) noexcept {
  return guarded([&] {
    run(context_of(op, context), convert(read_struct(op, "args", given)), workspace_of(workspace));
  });
}

template <typename Given, typename Args>
msa_status measure_op(const char* op, const msa_context* context, const Given* given, size_t* bytes,
                      Args (*convert)(const Given&),
                      size_t (*measure)(const Context&, const Args&)) noexcept {
  return guarded([&] {
    const Context& known = context_of(op, context);
    const Args args = convert(read_struct(op, "args", given));
    check_pointer(op, "bytes", bytes);
    *bytes = measure(known, args);
  });
}

}  // namespace msa::c_api
