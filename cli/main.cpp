// The tool `msa`: reads the command line, does what the verb says, and turns whatever goes wrong
// into one line on standard error and status 2.
#include <fmt/format.h>

#include <csignal>
#include <exception>
#include <new>
#include <string>

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
    "Exit status: 0 done, 1 the demo missed a fact or verify found a broken rule, 2 bad input or\n"
    "something failed (one line on standard error says what).\n\n"
    "Example:\n  msa demo --length 32K --fact \"the door code = 4711\"";

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
  add_verify(app, chosen);
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
    return fail("got no verb, allowed demo, run, eval, info, verify, bench (see msa --help)");
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
    return fail("not enough memory for this; a smaller --length (bench: --context) needs less");
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}
