// Index arithmetic that host and device share: where an element of a tile lies in swizzled shared
// memory, which row and column a tensor-core register holds, how a range is cut into pieces. Pure
// functions of integers, so that every one of them is tested on a machine without a GPU.
//
//   swizzle    128-byte rows; the 16-byte chunk c of row r lies at chunk c ^ (r % 8)
//   fragments  wgmma m64nNk16: register i of thread t, for the accumulator D and the operand A
//   partial    a row of 16-bit partial output is stored in the order of the accumulator registers
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MSA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MSA_HOST_DEVICE inline
#endif

namespace msa::cuda {

inline constexpr int kSwizzleBytes = 128;       // one row of a panel
inline constexpr int kPanelColumns = 64;        // 16-bit elements of that row
inline constexpr int kSwizzleAtomBytes = 1024;  // 8 rows: the pattern repeats from here on
inline constexpr int kWarpgroupThreads = 128;

MSA_HOST_DEVICE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
MSA_HOST_DEVICE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
/// Rounds toward minus infinity; b > 0.
MSA_HOST_DEVICE int64_t floor_div(int64_t a, int64_t b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}

/// Byte offset of element (row, column) of a tile of `rows` rows of 16-bit elements. The tile is a
/// series of panels of 64 columns; it starts at a multiple of 1024 bytes.
MSA_HOST_DEVICE int swizzled_offset(int rows, int row, int column) {
  const int panel = column / kPanelColumns;
  const int chunk = (column % kPanelColumns) / 8;
  return panel * rows * kSwizzleBytes + row * kSwizzleBytes + ((chunk ^ (row % 8)) * 16) +
         (column % 8) * 2;
}

/// Row, within the 64 of a warpgroup's tile, of accumulator register `index` of `thread` [0, 128).
MSA_HOST_DEVICE int accumulator_row(int thread, int index) {
  return (thread / 32) * 16 + (thread % 32) / 4 + ((index / 2) % 2) * 8;
}
MSA_HOST_DEVICE int accumulator_column(int thread, int index) {
  return (index / 4) * 8 + (thread % 4) * 2 + index % 2;
}
/// Operand A of m64k16: register `index` in 0..3 of `thread` holds columns (k, k + 1) of a row.
MSA_HOST_DEVICE int operand_row(int thread, int index) {
  return (thread / 32) * 16 + (thread % 32) / 4 + (index % 2) * 8;
}
MSA_HOST_DEVICE int operand_column(int thread, int index) {
  return (thread % 4) * 2 + (index / 2) * 8;
}

/// Place of column d in a stored row of partial output of `dim` columns. Thread c of a quad writes
/// for s = 0, 1, ... the 16 bytes at element s * 32 + c * 8: its columns of four n8 tiles.
MSA_HOST_DEVICE int partial_place(int column) {
  const int tile = column / 8;
  const int lane = (column % 8) / 2;
  return (tile / 4) * 32 + lane * 8 + (tile % 4) * 2 + column % 2;
}

/// Begin of piece `index` when `total` is cut into `pieces` that differ by one at most. In 32 bits:
/// a division of 64 is a call of a subroutine on the device.
MSA_HOST_DEVICE uint32_t piece_begin(uint32_t total, uint32_t pieces, uint32_t index) {
  const uint32_t base = total / pieces;
  const uint32_t longer = total % pieces;
  return index * base + (index < longer ? index : longer);
}

/// The key blocks of a request are cut into segments for the index LSE: within one, blocks are
/// added in order; then the segments are. It follows from the request's length alone, so a result
/// is the same bits however many thread blocks share the request.
inline constexpr int kMaxSegments = 64;
inline constexpr int kMinSegmentBlocks = 16;
MSA_HOST_DEVICE int64_t segment_blocks(int64_t num_blocks) {
  const int64_t blocks = ceil_div(num_blocks, kMaxSegments);
  return blocks > kMinSegmentBlocks ? blocks : kMinSegmentBlocks;
}

/// A block's score as an unsigned number: greater is better, and every score, minus infinity
/// included, is above kNoCandidate. NaN does not come here: the maximum ignores it.
MSA_HOST_DEVICE uint32_t ordered_score(uint32_t float_bits) {
  if (float_bits == 0x80000000u) float_bits = 0;  // -0 equals +0
  return (float_bits & 0x80000000u) != 0 ? ~float_bits : (float_bits | 0x80000000u);
}
inline constexpr uint32_t kNoCandidate = 0;
inline constexpr uint32_t kNeverReplaced = ~0u;  // above every score: fills slots past K - 1

/// Slots of a list of `num_kept` candidates: a multiple of what a thread handles at once.
inline constexpr int kSlotsAtOnce = 16;
MSA_HOST_DEVICE int list_slots(int num_kept) {
  return (num_kept + kSlotsAtOnce - 1) / kSlotsAtOnce * kSlotsAtOnce;
}

}  // namespace msa::cuda
