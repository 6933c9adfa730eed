// One layer of a model with a long context in bfloat16 pages, and a chunk of float32 queries at its
// end: what the ops see in the runner. Random numbers; pages in random order.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "msa/msa.h"

namespace msa::bench {

struct Shape {
  std::string name;
  int64_t q_heads;
  int64_t kv_heads;
  int64_t head_dim;  // D = Di
  int64_t block_size;
  int64_t top_k;
};

class Workload {
 public:
  /// Caches for `context` tokens and room for `max_queries` queries.
  Workload(const Shape& shape, int64_t context, int64_t max_queries);

  /// Puts `num_queries` queries at the end of the first `k_len` tokens.
  void place(int64_t k_len, int64_t num_queries);

  void run_index(const Context& context);
  /// Over the ids that run_index chose, or over those of choose_overlapping().
  void run_sparse(const Context& context);
  void run_dense(const Context& context);

  /// Ids as a real model's overlap: each query keeps each pick of the one before with probability
  /// `keep`, and draws the others at random; the local block is always in.
  void choose_overlapping(double keep);

  // Work of the placed chunk, exactly as the causal mask has it.
  double dense_flop() const;
  double index_flop() const;
  double sparse_flop() const;  // of the ids at hand
  // Bytes of cache that must be read at least once.
  double dense_bytes() const;
  double index_bytes() const;
  double sparse_bytes() const;

  const Shape& shape() const { return shape_; }
  int64_t num_queries() const { return num_queries_; }
  int64_t k_len() const { return k_lens_[0]; }
  size_t workspace_bytes() const { return workspace_.size() * sizeof(workspace_[0]); }

 private:
  struct alignas(64) Line {
    unsigned char bytes[64];
  };
  Workspace workspace(size_t bytes);
  IndexForwardArgs index_args();
  AttentionForwardArgs sparse_args();
  DenseAttentionForwardArgs dense_args();
  void fill_random(std::vector<uint16_t>& values);

  Shape shape_;
  int64_t num_queries_ = 0;
  int64_t num_pages_;
  std::mt19937 random_{1};
  std::vector<float> q_, q_idx_, out_, lse_;
  std::vector<uint16_t> k_, v_, k_idx_;  // bfloat16 [pages, B, heads, D]
  std::vector<int32_t> ids_, page_table_, cu_q_, k_lens_;
  std::vector<Line> workspace_;
};

}  // namespace msa::bench
