// One chunk of tokens through all layers: what lies between token ids and logits.
//
//   x = embedding[token]
//   each layer:  h = norm(x);  q, k, v = W h;  k, v and index-k go to the caches
//                x += W_o attention(q, caches);  x += W_down swiglu(W_gate_up norm(x))
//   logits = lm_head norm(x)
//
// x stays float32 from layer to layer. Rows that nobody asked for are left out of the last layer
// behind its caches: a chunk inside a prompt ends there, the last one goes on with its last row.
#pragma once

#include <span>

#include "runner/layers/caches.h"
#include "runner/layers/elementwise.h"
#include "runner/layers/memory.h"
#include "runner/loaded_model.h"

namespace msa::runner {

/// Which rows of a chunk need logits.
enum class LogitRows { kNone, kLast, kAll };

class Forward {
 public:
  Forward(const LoadedModel& model, const DecoderOptions& options);

  /// The caches already have pages for the chunk, whose first token stands at `first_position`.
  void run(std::span<const int32_t> tokens, int64_t first_position, LogitRows rows,
           const LogitsSink& sink, PagedCaches& caches);

  /// float32 [vocab] of the last row of the last run that made logits.
  const float* last_logits() const;
  size_t workspace_bytes() const;
  Timings& timings() { return timings_; }

 private:
  struct Chunk {
    int64_t num_tokens;
    int64_t first_position;
    int64_t key_length;  // tokens in the caches, the chunk included
  };
  void grow(int64_t num_tokens);
  void embed(std::span<const int32_t> tokens);
  void fill_angles(const Chunk& chunk);
  void norm_rows(const std::vector<float>& weight, int64_t first_row, int64_t num_rows);
  void project(int64_t layer, const Chunk& chunk);
  void project_index(int64_t layer, const Chunk& chunk);
  void append(int64_t layer, const Chunk& chunk, PagedCaches& caches);
  void attend(int64_t layer, const Chunk& chunk, int64_t first_row, PagedCaches& caches);
  void feed_forward(int64_t layer, int64_t first_row, int64_t num_rows);
  void make_logits(const Chunk& chunk, LogitRows rows, const LogitsSink& sink);
  bool selects(int64_t layer) const;
  void lap(double& field);

  const LoadedModel& model_;
  const DecoderOptions& options_;
  RotaryTable rotary_;
  Buffer x_;           // [rows, hidden]
  Buffer normed_;      // [rows, hidden]
  Buffer qkv_;         // [rows, (Hq + 2 Hkv) D]
  Buffer index_;       // [rows, (Hkv + 1) Di]
  Buffer attention_;   // [rows, Hq D]
  Buffer gate_up_;     // [rows, 2 intermediate]
  Buffer activation_;  // [rows, intermediate]
  Buffer block_ids_;   // int32 [Hkv, rows, K]
  Buffer cosines_;     // [rows, rotary pairs]
  Buffer sines_;       // [rows, rotary pairs]
  Buffer workspace_;   // of the ops
  Buffer logits_;      // [logit rows, vocab]
  const float* last_logits_ = nullptr;
  /// Threads and compiled layers had room when they were first wanted.
  bool started_ = false;
  double lap_start_us_ = 0;
  Timings timings_;
};

}  // namespace msa::runner
