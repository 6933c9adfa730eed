// The table of function pointers that a backend offers. A null entry means "this backend has no
// such op"; the op layer turns that into an error that names both. Backends never include each
// other, and nothing but this header is between an op and a backend.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/params.h"
#include "msa/context.h"

namespace msa::core {

/// What a backend gets beside its params.
struct RunContext {
  const ParallelFor* parallel_for = nullptr;
  int num_threads = 1;
  void* stream = nullptr;     // the caller's cudaStream_t; only the cuda backend reads it
  void* workspace = nullptr;  // 64-byte aligned; as many bytes as the op's workspace function said
};

struct BackendTable {
  /// "" when the backend can run on this machine, else the sentence that says why not.
  std::string (*unavailable)();
  /// What it found to run on, for people.
  std::string (*description)();
  /// Instruction sets that the kernels are built for and that run here, best first; may be null.
  std::vector<std::string> (*instruction_sets)() = nullptr;
  /// "" when op has a kernel for the geometry and the type, else what is allowed.
  std::string (*unsupported)(Op op, const Geometry& geometry, DType dtype);

  // The workspace functions look at shapes and strides alone, never through a pointer.
  size_t (*index_forward_workspace)(const IndexForwardParams&, int num_threads);
  void (*index_forward)(const IndexForwardParams&, const RunContext&);
  size_t (*attention_forward_workspace)(const AttentionForwardParams&, int num_threads);
  void (*attention_forward)(const AttentionForwardParams&, const RunContext&);
  size_t (*dense_attention_forward_workspace)(const AttentionForwardParams&, int num_threads);
  void (*dense_attention_forward)(const AttentionForwardParams&, const RunContext&);

  size_t (*index_candidates_workspace)(const IndexForwardParams&, int num_threads) = nullptr;
  void (*index_candidates)(const IndexForwardParams&, const RunContext&) = nullptr;
  void (*merge_candidates)(const MergeCandidatesParams&, const RunContext&) = nullptr;
  void (*select_blocks)(const SelectBlocksParams&, const RunContext&) = nullptr;
  void (*merge_states)(const MergeStatesParams&, const RunContext&) = nullptr;
  void (*cache_append)(const CacheAppendParams&, const RunContext&) = nullptr;
  void (*copy_pages)(const CopyPagesParams&, const RunContext&) = nullptr;

  size_t (*attention_backward_workspace)(const AttentionBackwardParams&, int num_threads) = nullptr;
  void (*attention_backward)(const AttentionBackwardParams&, const RunContext&) = nullptr;
  size_t (*dense_attention_backward_workspace)(const AttentionBackwardParams&,
                                               int num_threads) = nullptr;
  void (*dense_attention_backward)(const AttentionBackwardParams&, const RunContext&) = nullptr;
  size_t (*kl_forward_backward_workspace)(const KlParams&, int num_threads) = nullptr;
  void (*kl_forward_backward)(const KlParams&, const RunContext&) = nullptr;

  size_t (*recall_workspace)(const RecallParams&, int num_threads) = nullptr;
  void (*recall)(const RecallParams&, const RunContext&) = nullptr;
};

const BackendTable& reference_backend();
const BackendTable& cpu_backend();
const BackendTable& cuda_backend();  // from src/cuda, or from src/no_cuda where nvcc is missing

}  // namespace msa::core
