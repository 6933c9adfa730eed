// How the rows of a batch become tasks, the same for every op.
//
// A request with many queries is cut into tiles of consecutive queries. A request with few queries
// and a long context (decode) is cut along its keys instead: every piece leaves a partial result in
// the workspace, and the pieces are merged in ascending order. Where the cuts lie follows from the
// lengths of the request alone, never from the batch or the threads, and within a tile no row's
// arithmetic depends on another row: results are bitwise the same in any batch, with any number of
// threads, and for any size of tile.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/backend.h"
#include "cpu/workspace.h"

namespace msa::cpu {

/// One request's place in the batch.
struct Request {
  int64_t index = 0;
  int64_t first_row = 0;  // packed row of its first query
  int64_t num_queries = 0;
  int64_t num_keys = 0;
  int64_t first_position() const { return num_keys - num_queries; }  // may be below 0
};

inline Request request_at(const core::SequenceParams& sequences, int64_t index) {
  return {index, sequences.cu_seqlens_q[index], sequences.query_length(index),
          sequences.key_length(index)};
}

// Splits along the keys. 1024 tokens are some 10 us of work, far above the cost of a task; 64
// splits are enough for 64 threads and bound the memory of the partial results.
inline constexpr int64_t kMaxSplitQueries = 16;
inline constexpr int64_t kMaxSplits = 64;
inline constexpr int64_t kMinSplitTokens = 1024;
inline constexpr int64_t kPartialBytes = int64_t{8} << 20;  // unless one request needs more

/// Tokens of one split: a multiple of `unit`, chosen by the context length alone.
inline int64_t split_tokens(int64_t num_keys, int64_t unit) {
  return round_up(std::max(kMinSplitTokens, divide_up(num_keys, kMaxSplits)), unit);
}
inline int64_t num_splits(const Request& request, int64_t unit) {
  if (request.num_queries == 0 || request.num_queries > kMaxSplitQueries) return 1;
  return std::max<int64_t>(1, divide_up(request.num_keys, split_tokens(request.num_keys, unit)));
}

/// Bytes set aside for the partial results of all splits in flight: what the batch could need at
/// most, but no more than kPartialBytes unless a single request needs more.
inline int64_t partial_capacity(int64_t num_query_tokens, int64_t bytes_per_query) {
  const int64_t per_query = kMaxSplits * bytes_per_query;
  const int64_t one_request = std::min(num_query_tokens, kMaxSplitQueries) * per_query;
  const int64_t all = num_query_tokens * per_query;
  return std::min(all, std::max(one_request, kPartialBytes));
}

/// Tasks of each request, as running totals: request r owns [begin[r], begin[r + 1]).
class TaskTable {
 public:
  TaskTable() = default;
  TaskTable(int64_t* begin, int64_t first_request) : begin_(begin), first_request_(first_request) {
    begin_[0] = 0;
  }
  void append(int64_t num_tasks) {
    begin_[size_ + 1] = begin_[size_] + num_tasks;
    ++size_;
  }
  int64_t total() const { return begin_[size_]; }
  /// The request of a task; `within` is the task's number among those of the request.
  int64_t find(int64_t task, int64_t* within) const {
    const int64_t* past = std::upper_bound(begin_, begin_ + size_ + 1, task);
    const int64_t slot = past - begin_ - 1;
    *within = task - begin_[slot];
    return first_request_ + slot;
  }

 private:
  int64_t* begin_ = nullptr;
  int64_t first_request_ = 0;
  int64_t size_ = 0;
};

/// Queries of a tile: `largest`, halved while there are too few tasks to keep the threads busy.
/// Sizes change no result, only how often a block of keys is packed.
inline int64_t tile_queries(const core::SequenceParams& sequences, int64_t largest,
                            int64_t tasks_per_tile, int num_threads) {
  constexpr int64_t kSmallest = 32;
  int64_t size = largest;
  while (size > kSmallest) {
    int64_t tasks = 0;
    for (int64_t r = 0; r < sequences.batch; ++r) {
      tasks += divide_up(sequences.query_length(r), size) * tasks_per_tile;
    }
    if (tasks >= 4 * int64_t{num_threads}) break;
    size = std::max(kSmallest, size / 2);
  }
  return size;
}

/// Offsets of `count` consecutive tokens of one request and head, in elements.
inline void fill_key_offsets(const core::KeyParams& keys, const core::SequenceParams& sequences,
                             int64_t request, int64_t head, int64_t first, int64_t count,
                             int64_t* offsets) {
  int64_t done = 0;
  while (done < count) {  // one run for each page
    const int64_t token = first + done;
    const int64_t run =
        sequences.paged()
            ? std::min(count - done, sequences.page_size - token % sequences.page_size)
            : count - done;
    const int64_t begin = core::key_offset(keys, sequences, request, token, head);
    for (int64_t n = 0; n < run; ++n) offsets[done + n] = begin + n * keys.token_stride;
    done += run;
  }
}

/// Cuts the requests into waves whose partial results fit into `capacity`: calls run(first, last)
/// for each. need(request) is what a split request takes of it, and 0 for one with a single split.
template <typename Need, typename Run>
void for_each_wave(const core::SequenceParams& sequences, int64_t capacity, const Need& need,
                   const Run& run) {
  int64_t first = 0;
  int64_t used = 0;
  for (int64_t r = 0; r < sequences.batch; ++r) {
    const int64_t needed = need(request_at(sequences, r));
    if (used + needed > capacity) {
      run(first, r);
      first = r;
      used = 0;
    }
    used += needed;
  }
  if (used > 0) run(first, sequences.batch);
}

}  // namespace msa::cpu
