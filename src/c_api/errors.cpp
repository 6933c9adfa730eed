// Statuses, the last message of each thread, and the version.
#include <cstdio>
#include <cstring>

#include "c_api/guard.h"

namespace msa::c_api {
namespace {

constexpr size_t kMessageBytes = 1024;

/// Of this thread; no allocation, so that it holds the message of an allocation that failed.
char* last_message() noexcept {
  thread_local char message[kMessageBytes] = "";
  return message;
}

msa_status status_of(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return MSA_INVALID_ARGUMENT;
    case ErrorCode::kUnsupported:
      return MSA_UNSUPPORTED;
    case ErrorCode::kOutOfMemory:
      return MSA_OUT_OF_MEMORY;
    case ErrorCode::kInternal:
      return MSA_INTERNAL;
  }
  return MSA_INTERNAL;
}

}  // namespace

msa_status fail(msa_status status, const char* message) noexcept {
  std::snprintf(last_message(), kMessageBytes, "%s", message);
  return status;
}

msa_status fail(const Error& error) noexcept { return fail(status_of(error.code()), error.what()); }

}  // namespace msa::c_api

const char* msa_last_error(void) { return msa::c_api::last_message(); }

const char* msa_status_name(msa_status status) {
  switch (status) {
    case MSA_OK:
      return "ok";
    case MSA_INVALID_ARGUMENT:
      return "invalid argument";
    case MSA_UNSUPPORTED:
      return "unsupported";
    case MSA_OUT_OF_MEMORY:
      return "out of memory";
    case MSA_INTERNAL:
      return "internal error";
    default:
      return "unknown status";
  }
}

int32_t msa_version(void) {
  return 10000 * MSA_VERSION_MAJOR + 100 * MSA_VERSION_MINOR + MSA_VERSION_PATCH;
}

const char* msa_version_string(void) { return msa::version(); }
