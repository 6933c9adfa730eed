// What the person at the keyboard did wrong, in one line that names what was got and what is
// allowed. main() prints it after "msa: " and ends with status 2.
#pragma once

#include <stdexcept>
#include <string>

namespace msa::cli {

class UsageError : public std::runtime_error {
 public:
  explicit UsageError(const std::string& message) : std::runtime_error(message) {}
};

}  // namespace msa::cli
