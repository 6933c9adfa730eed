// The caches of one sequence: K, V and index-K of every layer, in pages of one block.
//
//   K, V      [pages, Hkv, B, D] a layer, seen by the ops as [pages, B, Hkv, D] through strides
//   index-K   [pages, B, Di] a sparse layer
//
// One page table serves all layers and all three, so they are written, rolled back and freed
// together. Pages come from a list of freed ones, then fresh; memory follows the pages in use.
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

  int64_t length() const { return length_; }
  /// Takes pages for tokens up to `length`; at most max_tokens.
  void extend(int64_t length);
  /// Frees the pages that hold no token below `length`.
  void truncate(int64_t length);

  Tensor keys(int64_t layer) const;        ///< [pages, B, Hkv, D]
  Tensor values(int64_t layer) const;      ///< as keys
  Tensor index_keys(int64_t layer) const;  ///< [pages, B, Di]
  Tensor page_table() const;               ///< int32 [1, pages in use]

  void write_key(int64_t layer, int64_t position, int64_t head, const float* from);
  void write_value(int64_t layer, int64_t position, int64_t head, const float* from);
  void write_index_key(int64_t layer, int64_t position, const float* from);

  /// Of the pages that have ever been in use: freed ones are kept for the next tokens.
  size_t bytes() const { return static_cast<size_t>(num_touched_) * page_bytes_; }

 private:
  struct Layer {
    size_t keys = 0;  // offsets in bytes into memory_
    size_t values = 0;
    size_t index_keys = 0;
    bool has_index = false;
  };
  Tensor key_view(size_t offset) const;
  void write(size_t offset, int64_t element, const float* from, int64_t count);
  int64_t page_of(int64_t position) const;

  int64_t num_pages_;
  int64_t page_tokens_;  // B
  int64_t num_heads_;    // Hkv
  int64_t head_dim_;     // D
  int64_t index_dim_;    // Di
  DType dtype_;
  size_t page_bytes_ = 0;  // of one page in all layers
  std::vector<Layer> layers_;
  LazyMemory memory_;
  std::vector<int32_t> page_table_;  // logical to physical, of the pages in use
  std::vector<int32_t> free_pages_;
  int32_t num_touched_ = 0;
  int64_t length_ = 0;
};

}  // namespace msa::runner
