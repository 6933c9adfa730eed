// Index arithmetic of the kernels, against its definition.
#include "cuda/device/layout.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <set>
#include <utility>
#include <vector>

namespace msa::cuda {
namespace {

TEST(Swizzle, IsTheAddressPatternOf128Bytes) {
  // The copy engine and wgmma exchange address bits 4-6 with bits 7-9 by exclusive or.
  for (const int rows : {64, 128}) {
    std::set<int> places;
    for (int row = 0; row < rows; ++row) {
      for (int column = 0; column < 128; ++column) {
        const int plain = column / 64 * rows * 128 + row * 128 + column % 64 * 2;
        const int expected = plain ^ ((plain >> 7 & 7) << 4);
        EXPECT_EQ(swizzled_offset(rows, row, column), expected);
        places.insert(expected);
      }
    }
    EXPECT_EQ(places.size(), static_cast<size_t>(rows * 128));
  }
}

TEST(Swizzle, EightRowsOfOneChunkLieInEightBankGroups) {
  for (int chunk = 0; chunk < 8; ++chunk) {
    std::set<int> groups;
    for (int row = 0; row < 8; ++row) groups.insert(swizzled_offset(64, row, chunk * 8) % 128 / 16);
    EXPECT_EQ(groups.size(), 8u);
  }
}

TEST(Fragments, AccumulatorsCoverTheTileOnce) {
  for (const int columns : {64, 128}) {
    std::set<std::pair<int, int>> seen;
    for (int thread = 0; thread < 128; ++thread) {
      for (int i = 0; i < columns / 2; ++i) {
        seen.insert({accumulator_row(thread, i), accumulator_column(thread, i)});
      }
    }
    EXPECT_EQ(seen.size(), static_cast<size_t>(64 * columns));
    EXPECT_EQ(*seen.rbegin(), std::make_pair(63, columns - 1));
  }
}

TEST(Fragments, KnownPlacesOfTheInstructionSet) {
  EXPECT_EQ(accumulator_row(0, 0), 0);
  EXPECT_EQ(accumulator_row(0, 2), 8);     // the second pair lies eight rows below
  EXPECT_EQ(accumulator_column(1, 1), 3);  // thread 1 holds columns 2 and 3
  EXPECT_EQ(accumulator_column(0, 4), 8);  // then the next eight columns
  EXPECT_EQ(accumulator_row(37, 0), 17);   // warp 1, lane 5
  EXPECT_EQ(operand_row(5, 1), 9);
  EXPECT_EQ(operand_column(5, 2), 10);
}

TEST(Fragments, WeightsInAccumulatorsAreOperandA) {
  // softmax_tile puts the pair (i, i + 1), i = 4 n + 2 half, into register n % 2 * 2 + half of
  // step n / 2: it must be the pair of columns that operand A wants there.
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < 64; i += 4) {
      for (int half = 0; half < 2; ++half) {
        const int step = i / 8;
        const int reg = i / 4 % 2 * 2 + half;
        EXPECT_EQ(operand_row(thread, reg), accumulator_row(thread, i + 2 * half));
        EXPECT_EQ(step * 16 + operand_column(thread, reg),
                  accumulator_column(thread, i + 2 * half));
      }
    }
  }
}

TEST(Partial, PlacesAreThoseOfTheStores) {
  for (const int dim : {64, 128}) {
    std::set<int> places;
    for (int column = 0; column < dim; ++column) places.insert(partial_place(column));
    EXPECT_EQ(places.size(), static_cast<size_t>(dim));
    EXPECT_EQ(*places.rbegin(), dim - 1);
    // Word j of the 16 bytes that lane c of a quad stores at element s * 32 + c * 8 holds the
    // accumulators (s * 4 + j) * 4 and the next.
    for (int c = 0; c < 4; ++c) {
      for (int s = 0; s < dim / 32; ++s) {
        for (int j = 0; j < 4; ++j) {
          for (int b = 0; b < 2; ++b) {
            EXPECT_EQ(partial_place(accumulator_column(c, (s * 4 + j) * 4 + b)),
                      s * 32 + c * 8 + j * 2 + b);
          }
        }
      }
    }
  }
}

TEST(Candidates, GreaterScoresAreGreaterNumbers) {
  const std::vector<float> ascending = {
      -std::numeric_limits<float>::infinity(), -1e30f, -1.0f, -1e-40f, 0.0f, 1e-40f, 1.0f, 1e30f,
      std::numeric_limits<float>::infinity()};
  uint32_t last = 0;  // below every score
  for (const float score : ascending) {
    const uint32_t key = ordered_score(std::bit_cast<uint32_t>(score));
    EXPECT_GT(key, last);
    last = key;
  }
  EXPECT_EQ(ordered_score(std::bit_cast<uint32_t>(-0.0f)),
            ordered_score(std::bit_cast<uint32_t>(0.0f)));
  EXPECT_GT(ordered_score(0xFF800000u), kNoCandidate);
  EXPECT_LT(ordered_score(0x7F800000u), kNeverReplaced);
}

TEST(Pieces, CoverTheWholeInOrder) {
  for (const uint32_t total : {0u, 1u, 5u, 127u, 128u, 1000u}) {
    for (const uint32_t pieces : {1u, 2u, 3u, 8u, 64u}) {
      EXPECT_EQ(piece_begin(total, pieces, 0), 0u);
      EXPECT_EQ(piece_begin(total, pieces, pieces), total);
      for (uint32_t n = 0; n < pieces; ++n) {
        const uint32_t size = piece_begin(total, pieces, n + 1) - piece_begin(total, pieces, n);
        EXPECT_TRUE(size == total / pieces || size == (total + pieces - 1) / pieces);
      }
    }
  }
}

TEST(Segments, NeverMoreThanTheWorkspaceHolds) {
  for (int64_t blocks = 0; blocks <= 70000; blocks += 37) {
    EXPECT_GE(segment_blocks(blocks), kMinSegmentBlocks);
    EXPECT_LE(ceil_div(blocks, segment_blocks(blocks)), kMaxSegments);
  }
}

TEST(FloorDiv, RoundsDown) {
  for (int64_t a = -300; a < 300; ++a) {
    for (const int64_t b : {1, 2, 16, 128}) {
      EXPECT_EQ(floor_div(a, b),
                static_cast<int64_t>(std::floor(static_cast<double>(a) / static_cast<double>(b))));
    }
  }
}

}  // namespace
}  // namespace msa::cuda
