// What this backend does not do, said in the form of all errors.
#pragma once

#include <fmt/format.h>

#include "msa/error.h"

namespace msa::cuda {

/// Throws kUnsupported with "[op] message" unless ok.
template <typename... Arguments>
void check_support(bool ok, const char* op, fmt::format_string<Arguments...> message,
                   Arguments&&... arguments) {
  if (ok) return;
  throw Error(
      ErrorCode::kUnsupported,
      fmt::format("[{}] {}", op, fmt::format(message, std::forward<Arguments>(arguments)...)));
}

}  // namespace msa::cuda
