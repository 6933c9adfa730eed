// The tool `msa`: reads the command line, does what the verb says, and turns whatever goes wrong
// into one line on standard error and status 2.
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "cli/parts/output.h"
#include "cli/parts/usage_error.h"
#include "cli/parts/wait_policy.h"
#include "cli/verbs/verbs.h"
#include "msa/msa.h"

namespace {

using namespace msa::cli;

constexpr const char* kAbout =
    "MiniMax Sparse Attention: find facts in long documents, on the hardware at hand.";
constexpr const char* kFooter =
    "Exit status: 0 done, 1 the demo missed a fact, verify found a broken rule or doctor a "
    "machine\n"
    "that cannot run the demo, 2 bad input or something failed (one line on standard error).\n\n"
    "Example:\n  msa demo --length 32K --fact \"the door code = 4711\"";

/// Without memory of its own: there may be none left for a string either.
void say_no_memory() {
  constexpr std::string_view kLine =
      "msa: not enough memory for this; a smaller --length (bench: --context) needs less\n";
  // Nobody is left to tell when this fails.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kLine.data(), kLine.size());
}

/// Before any constructor of a global (CLI11 has dozens, in every file that includes it): what they
/// throw, nobody could catch.
[[gnu::constructor(101)]] void check_memory_to_start() {
  constexpr size_t kBytes = size_t{2} << 20;
  void* const memory =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    say_no_memory();
    _exit(kBadInput);
  }
  munmap(memory, kBytes);
}

int fail(const std::string& message) {
  print_error("msa: " + message);
  return kBadInput;
}

int parse_and_run(int argc, char** argv) {
  CLI::App app(kAbout, "msa");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string("msa ") + msa::version());
  app.require_subcommand(0, 1);
  Action chosen;
  add_demo(app, chosen);
  add_run(app, chosen);
  add_eval(app, chosen);
  add_info(app, chosen);
  add_inspect(app, chosen);
  add_verify(app, chosen);
  add_doctor(app, chosen);
  add_bench(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print(app.help());
    return kSuccess;
  } catch (const CLI::CallForVersion&) {
    print(std::string("msa ") + msa::version() + "\n");
    return kSuccess;
  } catch (const CLI::ParseError& error) {
    return fail(std::string(error.what()) + " (see msa --help, msa VERB --help)");
  }
  if (!chosen)
    return fail(
        "got no verb, allowed demo, run, eval, inspect, info, doctor, verify, bench (see msa "
        "--help)");
  return chosen();
}

}  // namespace

int main(int argc, char** argv) {
  shorten_waiting(argv);
  // A reader that goes away is then an error of the write and not a silent end of the program.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    const int status = parse_and_run(argc, argv);
    finish_output();
    return status;
  } catch (const UsageError& error) {
    return fail(error.what());
  } catch (const OutputError& error) {
    return fail(error.what());
  } catch (const msa::Error& error) {
    return fail(error.what());
  } catch (const std::bad_alloc&) {
    say_no_memory();
    return kBadInput;
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}
