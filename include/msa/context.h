// The context: which backend does the work, and with which threads. It is chosen once, is immutable
// afterwards, and may be shared by any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "msa/tensor.h"

namespace msa {

namespace core {
struct BackendTable;
}

enum class Backend : int32_t {
  kReference = 0,  ///< plain loops in double: the law, for tests
  kCpu = 1,        ///< SIMD and threads
  kCuda = 2,       ///< NVIDIA Hopper
};

/// "reference", "cpu" or "cuda".
const char* backend_name(Backend backend);

/// Runs body(task, worker) once for each task in [0, num_tasks), in any order, on any number of
/// threads, and returns when all are done. `worker` is in [0, num_threads) and no two bodies run at
/// the same time with the same worker. The body does not throw.
using ParallelFor = std::function<void(int64_t num_tasks,
                                       const std::function<void(int64_t task, int worker)>& body)>;

struct ContextOptions {
  /// The backend; when absent, MSA_BACKEND=reference|cpu|cuda, else cpu.
  std::optional<Backend> backend = {};
  /// Threads; 0 means MSA_THREADS, else as many as the machine has.
  int num_threads = 0;
  /// The caller's own thread pool; when absent, OpenMP. It must offer num_threads workers.
  ParallelFor parallel_for = {};
};

class Context {
 public:
  /// Throws Error when the backend is not built, has no device here, or the name is unknown.
  explicit Context(ContextOptions options = {});

  Backend backend() const { return backend_; }
  int num_threads() const { return num_threads_; }
  const ParallelFor& parallel_for() const { return parallel_for_; }
  const core::BackendTable& table() const { return *table_; }
  /// What the backend found to run on, for people: "cpu: AVX3 (16 float lanes), 2 threads".
  std::string description() const;
  /// Instruction sets that the cpu backend's kernels are built for and that run here, the chosen
  /// one first; empty for the other backends.
  std::vector<std::string> instruction_sets() const;

 private:
  Backend backend_;
  int num_threads_;
  ParallelFor parallel_for_;
  const core::BackendTable* table_;
};

enum class Op : int32_t {
  kIndexForward = 0,
  kAttentionForward = 1,
  kDenseAttentionForward = 2,
  kIndexCandidates = 3,
  kMergeCandidates = 4,
  kMergeStates = 5,
  kCacheAppend = 6,
  kCopyPages = 7,
  kAttentionBackward = 8,
  kDenseAttentionBackward = 9,
  kKlForwardBackward = 10,
  kRecall = 11,
  kSelectBlocks = 12,
};

/// "index_forward", ...
const char* op_name(Op op);

/// The sizes that decide whether a backend has a kernel. Fields that an op does not use stay 0.
struct Geometry {
  int64_t num_q_heads = 0;   ///< Hq
  int64_t num_kv_heads = 0;  ///< Hkv = Hi
  int64_t head_dim = 0;      ///< D; for index_forward the index dim Di
  int64_t block_size = 0;    ///< B
  int64_t top_k = 0;         ///< K
};

struct Support {
  bool supported = false;
  std::string reason;  ///< what is not supported and what is; empty when supported
};

/// Answers beforehand what a call would say: is there a kernel for this?
Support supports(const Context& context, Op op, const Geometry& geometry, DType dtype);

}  // namespace msa
