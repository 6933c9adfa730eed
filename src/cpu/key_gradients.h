// Sums over queries without atomics: how the training ops divide a request, and how the gradients
// of its keys come together.
//
// The queries of a request are cut into tiles, and its tiles are dealt out to parts in turn: part p
// has the tiles p, p + parts, ... so that under causal masks all parts have about the same work. A
// task is a part and a key-value head. It alone adds to a plane of float32 sums of its own, tile
// after tile in ascending order; the planes of a request are then added in ascending order of the
// parts. Tiles and parts follow from the geometry and the request's own length, so gradients have
// the same bits for any number of threads and beside any other requests.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/backend.h"
#include "cpu/schedule.h"
#include "cpu/workspace.h"

namespace msa::cpu {

/// Tasks of one long request, of all its key-value heads together. Each part costs a plane.
inline constexpr int64_t kRequestTasks = 16;
/// Of what a tile keeps of its queries: it stays in the second-level cache.
inline constexpr int64_t kGradientTileBytes = int64_t{1} << 20;

struct GradientPlan {
  int64_t tile_queries = 1;
  int64_t most_parts = 1;  // of the longest request that the shapes allow

  GradientPlan(int64_t bytes_per_query, int64_t num_kv_heads, int64_t num_query_tokens)
      : tile_queries(std::clamp<int64_t>(kGradientTileBytes / bytes_per_query, 16, 512)),
        most_parts(std::max<int64_t>(1, kRequestTasks / num_kv_heads)) {
    most_parts = std::max<int64_t>(1, num_parts(num_query_tokens));
  }
  int64_t num_parts(int64_t num_queries) const {
    return std::min(most_parts, divide_up(num_queries, tile_queries));
  }
};

/// Sums of the gradients of keys: [parts][Hkv][Tk][columns], columns a multiple of kMaxLanes.
struct KeyPlanes {
  float* data = nullptr;
  int64_t num_heads = 0;
  int64_t num_keys = 0;  // Tk
  int64_t columns = 0;

  static KeyPlanes take(Arena& arena, const GradientPlan& plan, int64_t num_heads, int64_t num_keys,
                        int64_t columns) {
    return {arena.take<float>(plan.most_parts * num_heads * columns, num_keys), num_heads, num_keys,
            columns};
  }
  float* row(int64_t part, int64_t head, int64_t key) const {
    return data + ((part * num_heads + head) * num_keys + key) * columns;
  }
};

/// One part of a request, of one key-value head.
struct GradientTask {
  Request request;
  int64_t kv_head = 0;
  int64_t part = 0;
  int64_t num_parts = 1;
};

/// Fills the table with the parts of every request.
TaskTable gradient_tasks(const core::SequenceParams& sequences, const GradientPlan& plan,
                         int64_t num_kv_heads, int64_t* task_begin);
GradientTask gradient_task(const core::SequenceParams& sequences, const GradientPlan& plan,
                           int64_t num_kv_heads, const TaskTable& tasks, int64_t task);

/// Where the sums of planes go.
struct KeyGradients {
  KeyPlanes planes;
  core::RowsParams<void*> to;  // [Tk, Hkv, dim]; [Tk, 1, dim] with `over_heads`
  int64_t dim = 0;
  float factor = 1;
  bool over_heads = false;  // one gradient for the keys that all heads share
};
/// Adds the planes up and writes every row; keys of no request get 0. Needs batch + 1 places.
void write_key_gradients(const KeyGradients& gradients, const core::SequenceParams& sequences,
                         const GradientPlan& plan, int64_t* task_begin,
                         const core::RunContext& run);

/// 0 for the packed rows of no request.
void write_zero_rows(const core::RowsParams<void*>& to, int64_t begin, int64_t end,
                     int64_t num_heads, int64_t dim);

}  // namespace msa::cpu
