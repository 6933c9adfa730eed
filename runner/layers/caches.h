// The caches of one sequence: K, V and index-K of every layer, in pages of one block.
//
//   K, V      [pages, Hkv, B, D] a layer, seen by the ops as [pages, B, Hkv, D] through strides
//   index-K   [pages, B, Di] a sparse layer
//
// One PageAllocator serves all layers and all three, so they are written, rolled back and freed
// together. It takes freed pages first, then fresh ones in order; memory follows the pages in use.
#pragma once

#include <cstdint>
#include <vector>

#include "msa/msa.h"
#include "runner/config.h"
#include "runner/layers/memory.h"

namespace msa::runner {

class PagedCaches {
 public:
  /// Index-K is kept only when with_index and the layer is sparse.
  PagedCaches(const ModelConfig& config, int64_t max_tokens, DType dtype, bool with_index);

  int64_t length() const { return pages_.length(sequence_); }
  /// Takes pages for tokens up to `length`; at most max_tokens.
  void extend(int64_t length);
  /// Frees the pages that hold no token below `length`.
  void truncate(int64_t length);

  /// What the ops read and cache_append writes; k_idx is absent where there is none.
  CacheViews layer(int64_t layer) const;
  Tensor page_table() const;  ///< int32 [1, pages in use]

  /// Of the pages that have ever been in use: freed ones are kept for the next tokens.
  size_t bytes() const { return static_cast<size_t>(pages_.num_touched_pages()) * page_bytes_; }

 private:
  struct Layer {
    size_t keys = 0;  // offsets in bytes into memory_
    size_t values = 0;
    size_t index_keys = 0;
    bool has_index = false;
  };
  MutableTensor key_view(size_t offset) const;

  PageAllocator pages_;
  PageAllocator::Sequence sequence_;
  int64_t num_heads_;  // Hkv
  int64_t head_dim_;   // D
  int64_t index_dim_;  // Di
  DType dtype_;
  size_t page_bytes_ = 0;  // of one page in all layers
  std::vector<Layer> layers_;
  LazyMemory memory_;
};

}  // namespace msa::runner
