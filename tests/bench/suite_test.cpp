// Suites: the project's own, the shapes that their lines stand for, and broken files.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "cli/bench/cases.h"
#include "tests/cli/support.h"

namespace msa::cli::testing {
namespace {

class SuiteFile : public ::testing::Test {
 protected:
  ~SuiteFile() override { std::filesystem::remove(file_); }
  std::filesystem::path write(const std::string& text) {
    std::ofstream(file_) << text;
    return file_;
  }
  std::string error(const std::string& text) {
    const std::filesystem::path file = write(text);
    return error_of([&] { read_suite(file); });
  }

 private:
  std::filesystem::path file_ =
      std::filesystem::temp_directory_path() /
      (std::string("suite_") + ::testing::UnitTest::GetInstance()->current_test_info()->name() +
       ".csv");
};

TEST(Suites, TheProjectsOwnAreWhole) {
  const Suite prefill = read_suite(std::filesystem::path(MSA_SUITES) / "prefill.csv");
  EXPECT_FALSE(prefill.is_decode);
  EXPECT_EQ(prefill.cases.size(), 48u);
  const Suite decode = read_suite(std::filesystem::path(MSA_SUITES) / "decode.csv");
  EXPECT_TRUE(decode.is_decode);
  EXPECT_EQ(decode.cases.size(), 28u);
}

TEST_F(SuiteFile, PrefillSplitsQueriesAndLetsLengthsFall) {
  const Suite suite = read_suite(write("batch,query_tokens,max_kv_len,weight\n3,10,1000,7\n"));
  ASSERT_EQ(suite.cases.size(), 1u);
  const BenchCase& one = suite.cases[0];
  EXPECT_EQ(one.weight, 7);
  EXPECT_EQ(bench::count_queries(one.requests), 10);
  ASSERT_EQ(one.requests.size(), 3u);
  EXPECT_EQ(one.requests[0].q_len, 4);
  EXPECT_EQ(one.requests[0].k_len, 1000);
  EXPECT_EQ(one.requests[1].k_len, 750);
  EXPECT_EQ(one.requests[2].k_len, 500);
}

TEST_F(SuiteFile, DecodeKeepsTheMeanLength) {
  const Suite suite = read_suite(write("batch,nominal_kv_len,weight\n\n64,100000,1\n"));
  const BenchCase& one = suite.cases[0];
  ASSERT_EQ(one.requests.size(), 64u);
  double sum = 0;
  for (const bench::Request& request : one.requests) {
    EXPECT_GE(request.q_len, 1);
    EXPECT_LE(request.q_len, 8);
    EXPECT_GE(request.k_len, 75000);
    EXPECT_LE(request.k_len, 125000);
    sum += static_cast<double>(request.k_len);
  }
  EXPECT_NEAR(sum / 64, 100000, 1);
}

TEST_F(SuiteFile, BrokenFilesAreNamedWithTheLine) {
  EXPECT_NE(error_of([] { read_suite("/nonexistent"); }).find("/nonexistent: cannot read"),
            std::string::npos);
  EXPECT_NE(error("").find("got no shapes"), std::string::npos);
  EXPECT_NE(error("a,b,c\n1,2,3\n").find("got the title line 'a,b,c'"), std::string::npos);
  EXPECT_NE(error("batch,nominal_kv_len,weight\n").find("got no shapes"), std::string::npos);
  EXPECT_NE(error("batch,nominal_kv_len,weight\n1,2\n").find(":2: got 2 numbers, allowed 3"),
            std::string::npos);
  EXPECT_NE(error("batch,nominal_kv_len,weight\n1,x,3\n").find(":2: nominal_kv_len: got 'x'"),
            std::string::npos);
  EXPECT_NE(error("batch,nominal_kv_len,weight\n0,5,3\n").find(":2: batch: got '0'"),
            std::string::npos);
  EXPECT_NE(
      error("batch,query_tokens,max_kv_len,weight\n8,5,100,1\n").find("at least one for each"),
      std::string::npos);
}

}  // namespace
}  // namespace msa::cli::testing
