#include "cli/parts/wait_policy.h"

#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace msa::cli {

void shorten_waiting(char** argv) {
  constexpr std::array kVariables = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"};
  for (const char* variable : kVariables) {
    if (getenv(variable) != nullptr) return;
  }
  setenv("GOMP_SPINCOUNT", "1000", 0);  // a few microseconds
  setenv("KMP_BLOCKTIME", "0", 0);      // the same for LLVM's runtime
  const int before = errno;
  execv("/proc/self/exe", argv);
  errno = before;
}

}  // namespace msa::cli
