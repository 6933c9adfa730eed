// What every function of the binding needs: DLPack tensors as views, the context that fits their
// device, the caller's stream, and workspace.
//
// A Call is made from the first tensor of an op; all other tensors must lie on its device. Views
// keep pointer, shape and strides as they are: nothing is copied, and nothing is checked here that
// the op checks. Without a workspace of the caller's, one is taken from the allocator of the
// framework that the tensors came from, on the stream that the op runs on.
#pragma once

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/optional.h>

#include <optional>
#include <string>

#include "msa/msa.h"

namespace msa::python {

using tvm::ffi::Optional;
using tvm::ffi::TensorView;

/// Throws what Python sees as the msa_cpp exception of this code.
[[noreturn]] void raise(const Error& error);
[[noreturn]] void raise(ErrorCode code, const char* op, const std::string& message);

/// Runs body and turns what the library throws into Python's exceptions.
template <typename Body>
decltype(auto) guarded(Body body) {
  try {
    return body();
  } catch (const Error& error) {
    raise(error);
  }
}

/// The context for tensors on a device. `backend` is a code of c_api.h: 0 takes what the library
/// takes by itself in host memory, and cuda in device memory.
const Context& context_for(const char* op, int64_t backend, int device_type);

class Call {
 public:
  /// `name` and `first` are the tensor that decides the device.
  Call(const char* op, int64_t backend, const char* name, const TensorView& first);

  const Context& context() const { return context_; }
  Tensor input(const char* name, const TensorView& tensor) const;
  Tensor input(const char* name, const Optional<TensorView>& tensor) const;
  MutableTensor output(const char* name, const TensorView& tensor) const;
  MutableTensor output(const char* name, const Optional<TensorView>& tensor) const;
  Sequences sequences(const TensorView& cu_seqlens_q, const Optional<TensorView>& cu_seqlens_k,
                      const Optional<TensorView>& page_table,
                      const Optional<TensorView>& kv_lens) const;

  /// Runs `op(context, args, workspace)` on `given`, or on as much memory as `size` asks for.
  template <typename Args>
  void run(size_t (*size)(const Context&, const Args&),
           void (*op)(const Context&, const Args&, Workspace), const Args& args,
           const Optional<TensorView>& given) const {
    guarded([&] {
      if (given.has_value()) {
        op(context_, args, workspace(given.value()));
        return;
      }
      const size_t bytes = size(context_, args);
      const Optional<tvm::ffi::Tensor> memory = allocate(bytes);
      op(context_, args, aligned(memory, bytes));
    });
  }
  /// For ops that need the stream alone.
  Workspace stream_only() const { return {.stream = stream_}; }

 private:
  MutableTensor view(const char* name, const TensorView& tensor) const;
  Workspace workspace(const TensorView& given) const;
  Optional<tvm::ffi::Tensor> allocate(size_t bytes) const;
  Workspace aligned(const Optional<tvm::ffi::Tensor>& memory, size_t bytes) const;

  const char* op_;
  const char* first_name_;
  DLDevice device_;
  const Context& context_;
  void* stream_ = nullptr;
};

/// Numbers that Python may leave out.
inline std::optional<float> optional_scale(const Optional<double>& scale) {
  if (!scale.has_value()) return std::nullopt;
  return static_cast<float>(scale.value());
}

}  // namespace msa::python
