// The comparator itself: it must fail where it should.
#include "library/compare.h"

#include <gtest/gtest.h>

#include <limits>

namespace msa::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(Compare, EqualIsEqual) {
  EXPECT_TRUE(compare({1, -2, 0, kNaN, kInfinity, -kInfinity},
                      {1, -2, 0, kNaN, kInfinity, -kInfinity}, {0, 0, 0})
                  .ok);
  EXPECT_TRUE(compare({}, {}, {0, 0, 0}).ok);
}

TEST(Compare, SizesMustMatch) { EXPECT_FALSE(compare({1}, {1, 2}, {9, 9}).ok); }

TEST(Compare, MasksComeFirst) {
  EXPECT_FALSE(compare({kNaN}, {1}, {1e9, 1e9}).ok);
  EXPECT_FALSE(compare({1}, {kNaN}, {1e9, 1e9}).ok);
  EXPECT_FALSE(compare({kInfinity}, {-kInfinity}, {1e9, 1e9}).ok);
  EXPECT_FALSE(compare({kInfinity}, {3e38f}, {1e39, 1e9}).ok);
  EXPECT_FALSE(compare({kNaN}, {kInfinity}, {1e9, 1e9}).ok);
}

TEST(Compare, AbsoluteAndRelativeAddUp) {
  EXPECT_TRUE(compare({10.5f}, {10}, {0.25, 0.025}).ok);  // allowed 0.25 + 0.25
  EXPECT_FALSE(compare({10.5f}, {10}, {0.25, 0.02}).ok);  // allowed 0.45
  EXPECT_FALSE(compare({-10.5f}, {-10}, {0, 0.04}).ok);
  EXPECT_TRUE(compare({-10.5f}, {-10}, {0, 0.06}).ok);
}

TEST(Compare, NothingAllowedMeansEqual) {
  EXPECT_FALSE(compare({1e-30f}, {0}, {0, 1}).ok);
  EXPECT_TRUE(compare({0}, {0}, {0, 0}).ok);
}

TEST(Compare, OneBadElementIsFoundAndNamed) {
  std::vector<float> got(1000, 1.0f);
  got[700] = 1.1f;
  got[800] = 1.3f;
  const Comparison result = compare(got, std::vector<float>(1000, 1.0f), {0.05, 0});
  EXPECT_FALSE(result.ok);
  EXPECT_NE(result.message.find("element 800"), std::string::npos) << result.message;
}

TEST(Compare, FrobeniusSeesManySmallErrors) {
  const std::vector<float> got(100, 1.01f);
  const std::vector<float> expected(100, 1.0f);
  EXPECT_TRUE(compare(got, expected, {0.02, 0, 0.02}).ok);
  const Comparison result = compare(got, expected, {0.02, 0, 0.005});
  EXPECT_FALSE(result.ok);
  EXPECT_NE(result.message.find("Frobenius"), std::string::npos) << result.message;
}

TEST(Compare, FrobeniusOfAZeroReferenceIsNotForgiven) {
  EXPECT_FALSE(compare({1e-3f}, {0}, {1e-2, 0, 1e-2}).ok);
}

TEST(Compare, AllowanceIsPerElement) {
  EXPECT_TRUE(compare({1, 12}, {1, 10}, {1, 0}, {1, 3}).ok);
  EXPECT_FALSE(compare({3, 10}, {1, 10}, {1, 0}, {1, 3}).ok);
}

TEST(CompareBits, SeesTheSignOfZeroAndThePayload) {
  EXPECT_TRUE(compare_bits({kNaN, 1}, {kNaN, 1}).ok);
  EXPECT_FALSE(compare_bits({0.0f}, {-0.0f}).ok);
  EXPECT_FALSE(compare_bits({1.0f}, {1.0000001f}).ok);
  EXPECT_FALSE(compare_bits({1}, {}).ok);
}

}  // namespace
}  // namespace msa::test
