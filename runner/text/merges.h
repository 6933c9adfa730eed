// Byte-pair merges: of all neighbours in a piece that the table can join, the pair of the lowest
// rank is joined first (the leftmost on a tie), until no pair is left.
//
// A heap of candidates and a linked list of symbols make a piece of n bytes cost O(n log n), so a
// megabyte without a space is no trap.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace msa::runner {

class Merges {
 public:
  /// Returns false when the pair is already there.
  bool add(int32_t left, int32_t right, int32_t joined);
  /// Joins within `symbols` and appends what is left to `ids`.
  void apply(std::span<const int32_t> symbols, std::vector<int32_t>& ids) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t joined;
  };
  const Merge* find(int32_t left, int32_t right) const;

  std::unordered_map<uint64_t, Merge> merges_;
};

}  // namespace msa::runner
