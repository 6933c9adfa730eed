// How the runner says that something is wrong: one msa::Error with one line,
// "[what] what is wrong: got ..., allowed ...". Text from a file is quoted first, so that a hostile
// name can neither break the line nor fill the screen.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "msa/error.h"

namespace msa::runner {

/// In double quotes, control and non-ASCII bytes escaped, cut after 80 bytes.
std::string quote(std::string_view text);

template <typename... Arguments>
[[noreturn]] void fail(std::string_view what, fmt::format_string<Arguments...> message,
                       Arguments&&... arguments) {
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("[{}] {}", what, fmt::format(message, std::forward<Arguments>(arguments)...)));
}

/// The message is built only on failure; its arguments are evaluated always, so keep them cheap.
template <typename... Arguments>
void require(bool ok, std::string_view what, fmt::format_string<Arguments...> message,
             Arguments&&... arguments) {
  if (!ok) fail(what, message, std::forward<Arguments>(arguments)...);
}

}  // namespace msa::runner
