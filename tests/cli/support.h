// What the tests of the tool share.
#pragma once

#include <functional>
#include <string>

#include "cli/parts/usage_error.h"

namespace msa::cli::testing {

/// The message of the UsageError that `action` throws; empty when it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

}  // namespace msa::cli::testing
