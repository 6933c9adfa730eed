// The comparator of `msa verify`: what it lets pass, what it does not, and what it says.
#include "cli/verify/compare.h"

#include <gtest/gtest.h>

#include <limits>

namespace msa::cli {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

PackResult equal() {
  PackResult how;
  how.how = "equal";
  return how;
}

PackResult close(double absolute, double relative, bool larger_of = false) {
  PackResult how;
  how.how = "close";
  how.absolute = absolute;
  how.relative = relative;
  how.larger_of = larger_of;
  how.per_element = true;
  return how;
}

Numbers row(std::vector<double> values) {
  return {{static_cast<int64_t>(values.size())}, std::move(values)};
}

TEST(Comparator, EqualMeansEveryElement) {
  EXPECT_EQ(compare("x", row({1, -2, 0}), row({1, -2, 0}), {}, equal()), "");
  EXPECT_EQ(compare("x", row({1, 2, 3}), row({1, 2, 4}), {}, equal()),
            "x[2]: got 3, expected 4, allowed no error");
  EXPECT_EQ(compare("x", row({-0.0}), row({0.0}), {}, equal()), "");
}

TEST(Comparator, NaNAndInfinitiesStandInTheSamePlaces) {
  for (const double odd : {kNaN, kInfinity, -kInfinity}) {
    EXPECT_EQ(compare("x", row({odd}), row({odd}), {}, equal()), "");
    EXPECT_NE(compare("x", row({odd}), row({1}), {}, close(1e300, 0)), "");
    EXPECT_NE(compare("x", row({1}), row({odd}), {}, close(1e300, 0)), "");
  }
  EXPECT_NE(compare("x", row({kInfinity}), row({-kInfinity}), {}, close(1, 1)), "");
  EXPECT_NE(compare("x", row({kNaN}), row({kInfinity}), {}, close(1, 1)), "");
}

TEST(Comparator, NamesTheFirstWrongElement) {
  const Numbers got{{2, 2, 2}, {0, 0, 0, 0, 0, 7, 9, 0}};
  const Numbers expected{{2, 2, 2}, {0, 0, 0, 0, 0, 0, 0, 0}};
  EXPECT_EQ(compare("out", got, expected, {}, close(0.5, 0)).substr(0, 12), "out[1, 0, 1]");
}

TEST(Comparator, AddsOrTakesTheLargerTolerance) {
  EXPECT_EQ(compare("x", row({11.5}), row({10}), {}, close(0.6, 0.1)), "");
  EXPECT_NE(compare("x", row({11.7}), row({10}), {}, close(0.6, 0.1)), "");
  EXPECT_EQ(compare("x", row({10.9}), row({10}), {}, close(0.6, 0.1, true)), "");
  EXPECT_NE(compare("x", row({11.1}), row({10}), {}, close(0.6, 0.1, true)), "");
}

TEST(Comparator, FactorsBelongToTheirRows) {
  const Numbers expected{{2, 2}, {0, 0, 0, 0}};
  EXPECT_EQ(compare("x", {{2, 2}, {1, 1, 3, 3}}, expected, {1, 3}, close(1, 0)), "");
  EXPECT_EQ(compare("x", {{2, 2}, {1, 3, 1, 1}}, expected, {1, 3}, close(1, 0)).substr(0, 7),
            "x[0, 1]");
  EXPECT_NE(compare("x", expected, expected, {1, 1, 1}, close(1, 0)), "");
}

TEST(Comparator, FrobeniusSeesManySmallErrors) {
  PackResult how = close(0.1, 0);
  how.frobenius = 0.05;
  EXPECT_EQ(compare("x", row({1.04, 1.04, 1.04}), row({1, 1, 1}), {}, how), "");
  EXPECT_NE(compare("x", row({1.06, 1.06, 1.06}), row({1, 1, 1}), {}, how), "");
  how.per_element = false;
  EXPECT_EQ(compare("x", row({101, 0}), row({100, 0}), {}, how), "");
  EXPECT_NE(compare("x", row({1, 0}), row({0, 0}), {}, how), "") << "all of it is error";
  EXPECT_EQ(compare("x", row({0, 0}), row({-7e-44, 0}), {}, how), "") << "flushed to 0";
  EXPECT_NE(compare("x", row({0, 0}), row({-7e-38, 0}), {}, how), "") << "float32 holds it";
}

TEST(Comparator, ShapesAreCompared) {
  EXPECT_EQ(compare("x", {{1, 2}, {1, 2}}, {{2, 1}, {1, 2}}, {}, equal()),
            "x has the shape [1, 2], expected [2, 1]");
}

/// One row of 5 visible blocks, the last of them local, K = 3.
std::string selection(std::vector<double> ids, std::vector<double> own) {
  const Numbers exact{{1, 1, 6}, {1, 2, 2.001, 5, 0, -kInfinity}};
  own.push_back(-kInfinity);
  return compare_selection({{1, 1, 3}, std::move(ids)}, {{1, 1, 6}, std::move(own)}, exact, {0.01});
}

TEST(Comparator, SelectionFollowsTheOwnScoresAndTheExactCut) {
  EXPECT_EQ(selection({2, 3, 4}, {1, 2, 2.001, 5, 0}), "");
  EXPECT_EQ(selection({1, 3, 4}, {1, 2.002, 2.001, 5, 0}), "") << "a near tie";
  EXPECT_NE(selection({1, 3, 4}, {1, 2, 2.001, 5, 0}), "") << "not what its own scores say";
  EXPECT_NE(selection({0, 3, 4}, {9, 2, 2.001, 5, 0}), "") << "far below the cut";
  EXPECT_NE(selection({1, 2, 4}, {1, 2, 2.001, 0, 0}), "") << "far above the cut and left";
}

}  // namespace
}  // namespace msa::cli
