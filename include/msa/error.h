// One error class for the whole library.
//
// Every message reads "[op] what is wrong: got ..., allowed ...". Nothing in the library prints,
// exits or aborts; whatever goes wrong leaves as this exception, and the next call works as usual.
#pragma once

#include <stdexcept>
#include <string>

namespace msa {

enum class ErrorCode {
  kInvalidArgument,  ///< a shape, stride, type, length or pointer that the contract does not allow
  kUnsupported,      ///< a valid request that the chosen backend has no implementation for
  kOutOfMemory,      ///< memory that the call needs could not be had
  kInternal,         ///< a broken invariant inside the library: please report it
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace msa
