// Which calls stand for a piece of work, and how their times add up to its time.
//
// The work is a batch of requests whose queries, packed one after another, are read in calls of at
// most `chunk` queries: the prefill of a context of 64K tokens in chunks of 1024 is 64 calls. Where
// that is more calls than `samples`, as many query tiles of `chunk` queries stand for all: the
// packed queries are cut into `samples` equal parts, the tile in the middle of each part is
// measured, and its time counts (queries of the part / queries of the tile) times. This is the
// midpoint rule: exact where cost is linear in the position within each part, as the products of
// dense attention and of the index branch are. What it misses is tested, and one whole run beside
// it says how much of the time it misses (docs/bench.md).
#pragma once

#include <cstdint>
#include <vector>

namespace msa::bench {

/// The last q_len tokens of k_len ask; row t stands at position k_len - q_len + t.
struct Request {
  int64_t q_len = 0;
  int64_t k_len = 0;
};

/// One call.
struct Piece {
  std::vector<Request> requests;
  double weight = 1;         ///< what its time counts in the whole
  double sample_weight = 0;  ///< what it counts in the sampled estimate beside a whole run
};

struct PlanOptions {
  int64_t chunk = 1024;
  int64_t samples = 8;
  /// Run every call, and the sampled tiles beside them, so that the two can be compared.
  bool whole = false;
};

struct Plan {
  std::vector<Piece> pieces;
  bool sampled = false;          ///< pieces stand for more than themselves
  bool checks_sampling = false;  ///< whole, with the sampled estimate beside it
  int64_t num_queries = 0;       ///< of the work
  int64_t measured_queries = 0;  ///< of the pieces that count in the whole
  int64_t tile_queries = 0;      ///< largest call
};

int64_t count_queries(const std::vector<Request>& requests);

/// Queries [begin, end) of the packed batch as a batch of its own: the same positions, and of the
/// keys those that exist by then.
std::vector<Request> slice(const std::vector<Request>& requests, int64_t begin, int64_t end);

Plan plan_calls(const std::vector<Request>& requests, const PlanOptions& options);

}  // namespace msa::bench
