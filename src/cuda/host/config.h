// How the work of a call is cut: pure functions of shapes, without a device, so that they can be
// printed and tested anywhere. No result depends on them, only time and workspace do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/params.h"

namespace msa::cuda {

struct IndexConfig {
  int tile_queries = 0;  // of a thread block: 256 rows / Hkv
  int num_tiles = 0;
  int splits = 0;         // thread blocks that share the keys of a tile, at most
  int even_splits = 0;    // the same for requests of one length
  int wanted_blocks = 0;  // thread blocks that all pieces are made for, with splits
  int slots = 0;          // of a list: room for K - 1 candidates
  std::string describe() const;
};
IndexConfig pick_index_config(const core::IndexForwardParams& params);

/// What measurements compare. The library uses the defaults; benchmarks and checks set others
/// before a call, never beside one.
struct AttentionTuning {
  bool query_tiles = true;   // neighbours that share blocks are computed together
  bool queries_stay = true;  // the copy engine asks L2 to keep gathered queries
  bool own_lists = true;     // plans of one small pass give each bin a list of its own
  int64_t most_chunk_rows = 8192;
  int merge_share = 24;  // per cent of the thread blocks that begin with a merge
};
AttentionTuning& attention_tuning();

struct AttentionConfig {
  int chunk_rows = 0;  // query rows of a chunk; a multiple of 32
  int groups_per_pass = 0;
  int chunks_per_plan = 0;
  int item_visits = 0;      // most visits of an item: a power of two
  int list_shift = 0;       // > 0: a plan of one pass with a list of 2^list_shift for each bin
  int partial_buffers = 0;  // 2 when a pass is merged while the next is gathered
  int64_t bins_per_pass = 0;
  int64_t visits_per_pass = 0;
  int64_t list_places = 0;  // of a pass: visits_per_pass, or those of all bins' own lists
  int64_t items_per_pass = 0;
  int64_t tile_capacity = 0;  // query tiles of a plan; 0: none are looked for
  std::string describe() const;
};
AttentionConfig pick_attention_config(const core::AttentionForwardParams& params);

/// Ops that are complete but that no GPU has run yet: the backend says that it does not have them,
/// unless a check or a benchmark turns them on before it makes a call.
struct UntriedOps {
  bool attention_backward = false;
};
UntriedOps& untried_ops();

/// What measurements compare in attention's backward; set as AttentionTuning is.
struct BackwardTuning {
  int64_t most_chunk_rows = 4096;  // of all groups of a pass: Q and dO of 4096 are 32 MiB at G 16
  int64_t most_plan_chunks = 1 << 20;
  int item_visits = 128;  // of an item, at most 255: dK and dV leave once for them
};
BackwardTuning& backward_tuning();

/// The passes of attention's backward: `attention` without query tiles and partial rows.
struct BackwardConfig {
  AttentionConfig attention;
  int64_t plan_rows() const { return int64_t{attention.chunks_per_plan} * attention.chunk_rows; }
  std::string describe() const;
};
BackwardConfig pick_backward_config(const core::AttentionBackwardParams& params);

/// Hands out parts of a workspace. With a null base it only counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
  template <typename T>
  T* take(int64_t count) {
    T* part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return part;
  }
  size_t bytes() const { return bytes_; }

 private:
  char* base_;
  size_t bytes_ = 0;
};

}  // namespace msa::cuda
