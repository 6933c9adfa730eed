#include "cli/parts/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace msa::cli {
namespace {

void check(bool good) {
  if (good) return;
  const std::string reason = std::strerror(errno);
  throw OutputError(fmt::format("cannot write to standard output: {}", reason));
}

}  // namespace

void print(std::string_view text) {
  check(std::fwrite(text.data(), 1, text.size(), stdout) == text.size());
}

void print_now(std::string_view text) {
  print(text);
  finish_output();
}

void finish_output() { check(std::fflush(stdout) == 0); }

void print_error(std::string_view text) {
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    line += byte < 0x20 || byte == 0x7F ? fmt::format("\\x{:02X}", byte) : std::string(1, c);
  }
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

bool output_is_terminal() { return isatty(STDOUT_FILENO) != 0; }
bool error_is_terminal() { return isatty(STDERR_FILENO) != 0; }
bool input_is_terminal() { return isatty(STDIN_FILENO) != 0; }

}  // namespace msa::cli
