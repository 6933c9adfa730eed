#include "call.h"

#include <fmt/format.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <cstdint>

namespace msa::python {
namespace {

constexpr size_t kAlignment = 64;  // what the library asks of a workspace

const char* error_kind(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "MsaInvalidArgument";
    case ErrorCode::kUnsupported:
      return "MsaUnsupported";
    case ErrorCode::kOutOfMemory:
      return "MsaOutOfMemory";
    case ErrorCode::kInternal:
      break;
  }
  return "MsaError";
}

std::string device_name(DLDevice device) {
  switch (static_cast<int>(device.device_type)) {
    case kDLCPU:
      return "cpu";
    case kDLCUDA:
      return fmt::format("cuda:{}", device.device_id);
    case kDLCUDAHost:
      return "pinned memory";
    default:
      return fmt::format("device {} of DLPack's type {}", device.device_id,
                         static_cast<int>(device.device_type));
  }
}

std::string type_name(DLDataType type) {
  const int bits = type.bits;
  const std::string lanes = type.lanes == 1 ? "" : fmt::format("x{}", int{type.lanes});
  switch (type.code) {
    case kDLFloat:
      return fmt::format("float{}{}", bits, lanes);
    case kDLInt:
      return fmt::format("int{}{}", bits, lanes);
    case kDLUInt:
      return fmt::format("uint{}{}", bits, lanes);
    case kDLBool:
      return "bool";
    case kDLBfloat:
      return fmt::format("bfloat{}{}", bits, lanes);
    case kDLComplex:
      return fmt::format("complex{}{}", bits, lanes);
    default:
      return fmt::format("DLPack's type {} of {} bits", int{type.code}, bits);
  }
}

std::optional<DType> dtype_of(DLDataType type) {
  if (type.lanes != 1) return std::nullopt;
  if (type.code == kDLFloat && type.bits == 32) return DType::kFloat32;
  if (type.code == kDLFloat && type.bits == 16) return DType::kFloat16;
  if (type.code == kDLBfloat && type.bits == 16) return DType::kBFloat16;
  if (type.code == kDLInt && type.bits == 32) return DType::kInt32;
  return std::nullopt;
}

bool is_host(int device_type) { return device_type == kDLCPU || device_type == kDLCUDAHost; }

/// One context for each way to ask; made when it is first used, and kept.
const Context& cached_context(int64_t backend) {
  switch (backend) {
    case 1: {
      static const Context context({.backend = Backend::kReference});
      return context;
    }
    case 2: {
      static const Context context({.backend = Backend::kCpu});
      return context;
    }
    case 3: {
      static const Context context({.backend = Backend::kCuda});
      return context;
    }
    default: {
      static const Context context;  // MSA_BACKEND, else cpu
      return context;
    }
  }
}

int64_t num_threads(int64_t backend, int64_t device_type) {
  return guarded([&] {
    return context_for("num_threads", backend, static_cast<int>(device_type)).num_threads();
  });
}

std::string description(int64_t backend, int64_t device_type) {
  return guarded([&] {
    return context_for("description", backend, static_cast<int>(device_type)).description();
  });
}

}  // namespace

void raise(const Error& error) {
  throw tvm::ffi::Error(error_kind(error.code()), error.what(), std::string());
}

void raise(ErrorCode code, const char* op, const std::string& message) {
  raise(Error(code, fmt::format("[{}] {}", op, message)));
}

const Context& context_for(const char* op, int64_t backend, int device_type) {
  const bool device_memory = device_type == kDLCUDA;
  if (!device_memory && !is_host(device_type)) {
    raise(ErrorCode::kUnsupported, op,
          fmt::format("tensors are on {}: allowed cpu or cuda",
                      device_name({static_cast<DLDeviceType>(device_type), 0})));
  }
  if (backend == 0 && device_memory) backend = 3;
  const Context& context = guarded([&]() -> const Context& { return cached_context(backend); });
  const bool device_backend = context.backend() == Backend::kCuda;
  if (device_backend != device_memory) {
    raise(ErrorCode::kInvalidArgument, op,
          fmt::format("tensors are not where the {} backend works: got {}, allowed {}",
                      backend_name(context.backend()), device_memory ? "cuda" : "cpu",
                      device_backend ? "cuda" : "cpu"));
  }
  return context;
}

Call::Call(const char* op, int64_t backend, const char* name, const TensorView& first)
    : op_(op),
      first_name_(name),
      device_(first.device()),
      context_(context_for(op, backend, static_cast<int>(first.device().device_type))) {
  if (device_.device_type == kDLCUDA) {
    stream_ = TVMFFIEnvGetStream(device_.device_type, device_.device_id);
  }
}

MutableTensor Call::view(const char* name, const TensorView& tensor) const {
  const DLDevice device = tensor.device();
  if (device.device_type != device_.device_type || device.device_id != device_.device_id) {
    raise(ErrorCode::kInvalidArgument, op_,
          fmt::format("{} is on another device: got {}, allowed {}, where {} is", name,
                      device_name(device), device_name(device_), first_name_));
  }
  const std::optional<DType> dtype = dtype_of(tensor.dtype());
  if (!dtype) {
    raise(ErrorCode::kInvalidArgument, op_,
          fmt::format("{} has a type that no op takes: got {}, allowed float32, bfloat16, float16, "
                      "int32",
                      name, type_name(tensor.dtype())));
  }
  MutableTensor result;
  result.dtype = *dtype;
  result.rank = tensor.ndim();
  if (result.rank < 1 || result.rank > kMaxRank) {
    raise(
        ErrorCode::kInvalidArgument, op_,
        fmt::format("{} has the wrong rank: got {}, allowed 1 to {}", name, result.rank, kMaxRank));
  }
  result.data = static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset();
  for (int axis = 0; axis < result.rank; ++axis) {
    result.shape[static_cast<size_t>(axis)] = tensor.size(axis);
    result.stride[static_cast<size_t>(axis)] = tensor.stride(axis);
  }
  return result;
}

Tensor Call::input(const char* name, const TensorView& tensor) const { return view(name, tensor); }

Tensor Call::input(const char* name, const Optional<TensorView>& tensor) const {
  return tensor.has_value() ? Tensor(view(name, tensor.value())) : Tensor();
}

MutableTensor Call::output(const char* name, const TensorView& tensor) const {
  return view(name, tensor);
}

MutableTensor Call::output(const char* name, const Optional<TensorView>& tensor) const {
  return tensor.has_value() ? view(name, tensor.value()) : MutableTensor();
}

Sequences Call::sequences(const TensorView& cu_seqlens_q, const Optional<TensorView>& cu_seqlens_k,
                          const Optional<TensorView>& page_table,
                          const Optional<TensorView>& kv_lens) const {
  return {.cu_seqlens_q = input("cu_seqlens_q", cu_seqlens_q),
          .cu_seqlens_k = input("cu_seqlens_k", cu_seqlens_k),
          .page_table = input("page_table", page_table),
          .kv_lens = input("kv_lens", kv_lens)};
}

Workspace Call::workspace(const TensorView& given) const {
  const DLDataType type = given.dtype();
  const DLDevice device = given.device();
  const bool bytes = type.code == kDLUInt && type.bits == 8 && type.lanes == 1;
  const bool line = given.ndim() == 1 && (given.size(0) <= 1 || given.stride(0) == 1);
  if (!bytes || !line || device.device_type != device_.device_type ||
      device.device_id != device_.device_id) {
    raise(ErrorCode::kInvalidArgument, op_,
          fmt::format("workspace is wrong: got {} of rank {} on {}, allowed contiguous uint8 of "
                      "rank 1 on {}",
                      type_name(type), given.ndim(), device_name(device), device_name(device_)));
  }
  return {.data = static_cast<char*>(given.data_ptr()) + given.byte_offset(),
          .bytes = static_cast<size_t>(given.size(0)),
          .stream = stream_};
}

Optional<tvm::ffi::Tensor> Call::allocate(size_t bytes) const {
  if (bytes == 0) return std::nullopt;
  const int64_t shape[] = {static_cast<int64_t>(bytes + kAlignment - 1)};
  return tvm::ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {shape, 1}, {kDLUInt, 8, 1}, device_);
}

Workspace Call::aligned(const Optional<tvm::ffi::Tensor>& memory, size_t bytes) const {
  if (!memory.has_value()) return stream_only();
  const tvm::ffi::Tensor& tensor = memory.value();
  char* data = static_cast<char*>(tensor.data_ptr());
  const size_t past = reinterpret_cast<uintptr_t>(data) % kAlignment;
  return {.data = data + (past == 0 ? 0 : kAlignment - past), .bytes = bytes, .stream = stream_};
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(num_threads, num_threads);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(description, description);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(version, [] { return std::string(msa::version()); });

}  // namespace msa::python
