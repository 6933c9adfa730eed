#include "msa/tensor.h"

#include <fmt/format.h>

#include "msa/version.h"

namespace msa {

size_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kBFloat16:
    case DType::kFloat16:
      return 2;
  }
  return 0;
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
    case DType::kInt32:
      return "int32";
  }
  return "unknown type";
}

std::string describe(const Tensor& tensor) {
  std::string text = fmt::format("{} [", dtype_name(tensor.dtype));
  for (int axis = 0; axis < tensor.rank && axis < kMaxRank; ++axis) {
    text += fmt::format("{}{}", axis == 0 ? "" : ", ", tensor.shape[static_cast<size_t>(axis)]);
  }
  return text + "]";
}

#define MSA_STRINGIFY_(x) #x
#define MSA_STRINGIFY(x) MSA_STRINGIFY_(x)
const char* version() {
  return MSA_STRINGIFY(MSA_VERSION_MAJOR) "." MSA_STRINGIFY(MSA_VERSION_MINOR) "." MSA_STRINGIFY(
      MSA_VERSION_PATCH);
}

}  // namespace msa
