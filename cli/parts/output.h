// Standard output, checked. A pipe that closed or a disk that is full is an error like any other:
// one line on standard error and status 2, never a result cut short in silence.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace msa::cli {

class OutputError : public std::runtime_error {
 public:
  explicit OutputError(const std::string& message) : std::runtime_error(message) {}
};

/// Writes to standard output; throws OutputError.
void print(std::string_view text);
/// The same, and out to the reader at once.
void print_now(std::string_view text);
/// Flushes and checks; main() calls it last.
void finish_output();
/// One line on standard error: control characters, which a file's name may have, are escaped.
void print_error(std::string_view text);

bool output_is_terminal();
bool error_is_terminal();
/// True when standard input is a terminal, that is, nobody piped anything in.
bool input_is_terminal();

}  // namespace msa::cli
