// The seam between the benchmark and a backend: one layer's tensors in the backend's memory, and
// single calls of its ops, timed by the backend's clock. `reference` and `cpu` work on host memory
// (host_workbench.cpp); a backend with memory and a clock of its own implements the same class.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/accounting.h"
#include "bench/plan.h"
#include "bench/roof.h"
#include "bench/stopwatch.h"
#include "msa/msa.h"

namespace msa::bench {

/// What can be timed.
enum class Part {
  kAppend,
  kIndex,
  kAttend,
  kDense,
  kBackward,
  kDenseBackward,
  kKl,
  kDenseKl,
};
const char* part_name(Part part);

/// Which blocks attend reads: those that the index branch chose from the random data, or made ones
/// (bench/cuda/picks.h): K - 1 at random and the local one; each pick of the query before kept with
/// probability `keep`; block 0 in every list; or those that a model chose, from a file.
enum class PickKind { kIndex, kRandom, kKeep, kSink, kRecorded };

struct Picks {
  PickKind kind = PickKind::kIndex;
  double keep = 0.9;
  uint64_t seed = 1;
  std::vector<int32_t> recorded = {};  ///< [Hkv, queries, K] of the one call that they fit
  int64_t layer = 0;                   ///< that they are of
};

/// The most that any call will need.
struct Room {
  int64_t queries = 0;
  int64_t requests = 0;
  int64_t blocks = 0;        ///< of all requests of a call
  int64_t table_blocks = 0;  ///< of one request

  /// Over calls of at most `tile_queries` queries.
  void grow(const LayerShape& shape, const std::vector<Piece>& pieces);
};

/// Bytes that a workbench takes, without workspace.
double workbench_bytes(const LayerShape& shape, const Room& room, bool training);

class Workbench {
 public:
  virtual ~Workbench() = default;
  /// Puts the queries and lengths of a call in place; with picks other than the index branch's,
  /// makes them.
  virtual void place(const std::vector<Request>& requests) = 0;
  /// Seconds of one call. kAttend reads the ids that kIndex wrote last, or the made ones; gradients
  /// take what the forward of the same scope wrote last: see prepare().
  virtual double seconds(Part part) = 0;
  /// Runs, untimed, what `part` takes from others.
  virtual void prepare(Part part) = 0;
  /// Empties the caches, when the bench is of cold memory.
  virtual void cool() = 0;
  /// The ids that kAttend reads now, [Hkv, queries, K].
  virtual std::vector<int32_t> block_ids() const = 0;
  /// Largest workspace of any call so far.
  virtual size_t workspace_bytes() const = 0;
};

/// `flush` may be null: calls then find in the caches what the last one left. It must outlive the
/// workbench, as must the context.
///
/// With `training`, keys are packed and index calls write their LSE; without, they are in pages.
std::unique_ptr<Workbench> make_host_workbench(const Context& context, const LayerShape& shape,
                                               const Room& room, const Picks& picks, Clock clock,
                                               const ReadBuffer* flush, bool training);

}  // namespace msa::bench
