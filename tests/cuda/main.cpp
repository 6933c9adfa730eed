// cuda_check: everything that can be said about the cuda backend's results on the machine at hand.
//
//   cuda_check [--part primitives|select|stages|ops|decode|each|long|long_decode|all] [--small]
//              [--cases N] [--seed N] [--json FILE]
//
// "each" runs one small batch through every kernel.
//
// Primitives first: when one fails, what follows cannot be right. Status 0 when all is well.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include "cuda/backward_check.h"
#include "cuda/decode_check.h"
#include "cuda/host/config.h"
#include "cuda/op_checks.h"
#include "cuda/primitives.h"
#include "cuda/select_check.h"
#include "cuda/stage_check.h"
#include "cuda/stream_check.h"

namespace {

int usage() {
  std::fputs(
      "usage: cuda_check [--part primitives|select|stages|ops|decode|each|long|long_decode|"
      "backward|all] "
      "[--small] [--cases N] "
      "[--seed N] [--json FILE]\n",
      stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  std::string part = "all";
  std::string json;
  msa::test::OpCheckOptions options;
  for (int n = 1; n < argc; ++n) {
    const bool has_value = n + 1 < argc;
    if (std::strcmp(argv[n], "--small") == 0) {
      options.small = true;
    } else if (std::strcmp(argv[n], "--part") == 0 && has_value) {
      part = argv[++n];
    } else if (std::strcmp(argv[n], "--json") == 0 && has_value) {
      json = argv[++n];
    } else if (std::strcmp(argv[n], "--cases") == 0 && has_value) {
      options.random_cases = std::atoi(argv[++n]);
    } else if (std::strcmp(argv[n], "--seed") == 0 && has_value) {
      options.seed = static_cast<unsigned>(std::atoi(argv[++n]));
    } else {
      return usage();
    }
  }
  const auto known = {"all",    "primitives", "select", "stages",      "ops",
                      "decode", "each",       "long",   "long_decode", "backward"};
  if (std::find(known.begin(), known.end(), part) == known.end()) return usage();
  msa::test::Report report;
  try {
    if (part == "all" || part == "primitives") msa::test::check_primitives(report);
    if (report.failures() == 0 && (part == "all" || part == "stages")) {
      msa::test::check_stages(report);
    }
    if (report.failures() == 0 && (part == "all" || part == "ops")) {
      msa::test::check_ops(report, options);
      if (report.failures() == 0) msa::test::check_streams(report);
    }
    if (report.failures() == 0 && (part == "all" || part == "select")) {
      msa::test::check_select(report, options.small);
    }
    if (report.failures() == 0 && (part == "all" || part == "decode")) {
      msa::test::check_decode(report, options);
    }
    if (report.failures() == 0 && (part == "all" || part == "long_decode")) {
      msa::test::check_long_decode(report, options.small);
    }
    if (part == "backward") msa::test::check_backward(report, options);  // not yet part of "all"
    if (part == "each") msa::test::check_each_kernel_once(report);
    if (report.failures() == 0 && (part == "all" || part == "long")) {
      msa::test::check_long(report, 8192, 8192, 24);
      msa::test::check_long(report, 9000, 3000, 16);  // two groups a pass, a part of a block last
      if (!options.small) msa::test::check_long(report, 131072, 16384, 16);
      if (!options.small) msa::test::check_long(report, 1 << 20, 8192, 6);
    }
  } catch (const std::exception& error) {
    report.add("no exception", false, error.what());
  }
  std::printf("%d failed\n", report.failures());
  if (!json.empty() && !report.write(json)) {
    std::fprintf(stderr, "cannot write %s\n", json.c_str());
    return 1;
  }
  return report.failures() == 0 ? 0 : 1;
}
