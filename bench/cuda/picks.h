// Block ids for attend benchmarks, for one request: [Hkv, q_len, K], ascending, local block last.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace msa::bench {

struct PickSpec {
  int64_t q_len = 0;
  int64_t k_len = 0;
  int64_t groups = 4;
  int64_t block_size = 128;
  int64_t top_k = 16;
  double keep = 0;    // a non-local pick of the row before is kept with this probability
  bool sink = false;  // block 0 in every list
};

/// Appends group g's lists of this request to per_group[g].
void append_picks(const PickSpec& spec, std::mt19937_64& random,
                  std::vector<std::vector<int32_t>>& per_group);

}  // namespace msa::bench
