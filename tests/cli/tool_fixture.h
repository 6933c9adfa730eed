// Runs the program as people do, by a shell (hence system() and its NOLINT), with a small random
// model and a haystack of its own.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "tests/cli/small_model.h"

namespace msa::cli::testing {

using runner::test::Json;
using runner::test::read_whole;

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

class ToolTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new runner::test::TempFolder();
    write_small_model(*folder_);
    std::string hay;
    for (int i = 0; i < 500; ++i) hay += "line " + std::to_string(i) + " of plain hay\n";
    folder_->write("hay.txt", hay);
    folder_->write("empty.txt", "");
    folder_->write("nul.txt", std::string("a\0b", 3));
    folder_->write("latin1.txt", "caf\xE9\n");
  }
  static void TearDownTestSuite() { delete folder_; }

  static std::string path(const std::string& name) { return (folder_->path() / name).string(); }
  static std::string model() { return "--model '" + folder_->path().string() + "' "; }
  /// The haystack and the model of the tests.
  static std::string hay() { return model() + "--file '" + path("hay.txt") + "' "; }

  /// Runs `msa arguments`, from a folder that is not the project's; `before` is what the shell does
  /// first.
  static Outcome run(const std::string& arguments, const std::string& redirect = "",
                     const std::string& before = "") {
    const std::string out = path("out");
    const std::string err = path("err");
    const std::string to = redirect.empty() ? "> '" + out + "'" : redirect;
    const std::string command = "cd '" + folder_->path().string() + "' && " + before +
                                "'" MSA_TOOL "' " + arguments + " " + to + " 2> '" + err + "'";
    folder_->write("out", "");
    const int status = std::system(command.c_str());  // NOLINT(bugprone-command-processor)
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_whole(out), read_whole(err)};
  }

  /// One line on standard error that starts with "msa: " and holds `part`; status 2; no output.
  static void expect_refused(const std::string& arguments, const std::string& part) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, 2) << arguments;
    EXPECT_EQ(outcome.out, "") << arguments;
    EXPECT_EQ(outcome.err.rfind("msa: ", 0), 0u) << arguments << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(part), std::string::npos) << arguments << ": " << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }

  static inline runner::test::TempFolder* folder_ = nullptr;
};

}  // namespace msa::cli::testing
