// What each op must do at least: float operations and bytes, counted from the shapes and, for
// sparse attention, from the block ids at hand. A multiplication and an addition are 2 FLOP;
// exponentials, maxima and comparisons are not counted.
//
//   pairs    = sum over requests of q_len (k_len - q_len) + q_len (q_len + 1) / 2
//              (visible key tokens over all queries)
//   index    2 Hkv Di pairs               one dot product for each index head and visible token;
//                                         of queries at K B or later alone: others take all blocks
//   attend   4 G D tokens                 q.k and p.v; tokens = visible tokens of listed blocks,
//                                         over all queries and groups
//   dense    4 Hq D pairs
//   append   0
//   backward 2.5 times its forward        five products in place of two, sparse or dense
//   kl       (2 G D + 6 Di) / (4 G D) of the forward of its scope: q.k of all heads, the index dot
//            and its two gradients
//
// Bytes: every input read once and every output written once. Of the caches: index reads the index
// keys of each request longer than K B, dense its keys and values, attend those of the distinct
// blocks that each group of the request lists. Gradients are written for every key. Page tables and
// lengths are left out.
// docs/bench.md derives it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/plan.h"
#include "msa/msa.h"

namespace msa::bench {

/// One attention layer. The index dim is the head dim.
struct LayerShape {
  std::string name;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t block_size = 0;
  int64_t top_k = 0;
  DType q_type = DType::kFloat32;    ///< of queries and of out
  DType kv_type = DType::kBFloat16;  ///< of the caches

  int64_t group_size() const { return q_heads / kv_heads; }
};

struct Work {
  double flop = 0;
  double bytes = 0;

  Work& operator+=(const Work& other);
  Work times(double factor) const { return {flop * factor, bytes * factor}; }
};

/// Visible key tokens over all queries.
double visible_pairs(const std::vector<Request>& requests);

Work index_work(const LayerShape& shape, const std::vector<Request>& requests);
Work dense_work(const LayerShape& shape, const std::vector<Request>& requests);
Work append_work(const LayerShape& shape, const std::vector<Request>& requests);
/// `block_ids` is [Hkv, queries of all requests, K], each list ended by its first -1.
Work attend_work(const LayerShape& shape, const std::vector<Request>& requests,
                 const std::vector<int32_t>& block_ids);

/// Gradients of attention and of the KL loss; `forward` is the work of the forward of their scope,
/// which is that of listed blocks or of all visible tokens.
Work backward_work(const LayerShape& shape, const std::vector<Request>& requests,
                   const Work& forward);
Work kl_work(const LayerShape& shape, const std::vector<Request>& requests, const Work& forward,
             bool listed);

/// What the roofs allow at best: the longer of the products at `gflops` and the bytes at
/// `gbytes_per_second` (both in units of 10^9).
double floor_seconds(const Work& work, double gflops, double gbytes_per_second);

}  // namespace msa::bench
