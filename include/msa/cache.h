// Paged caches of K, V and index-K: writing new tokens, and which pages hold which sequence.
//
// The memory of the caches is the caller's, one set of views a layer; PageAllocator deals in page
// numbers alone, so one serves the caches of all layers. A step of decode goes
//
//   copy = pages.extend(sequence, length + new)      takes pages; says what to copy before writing
//   copy_pages(...)                                  if it says so, for each layer
//   cache_append(...)                                for each layer, before its attention
//   index_forward, attention_forward                 with the same Sequences
//
// truncate() rolls back, fork() lets a second sequence share all pages until one of them writes,
// and release() frees. Pages are shared by count; K, V and index-K always go together.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "msa/context.h"
#include "msa/sequences.h"

namespace msa {

/// The caches of one layer. K and V, index-K, or all three.
struct CacheViews {
  MutableTensor k;      ///< [num_pages, B, Hkv, D], any strides; float32, bfloat16 or float16
  MutableTensor v;      ///< as k, with the same type and shape; strides are its own
  MutableTensor k_idx;  ///< [num_pages, B, Di]
};

struct CacheAppendArgs {
  Tensor k;      ///< [Tq, Hkv, D] new tokens, any float type: rounded to the cache's type
  Tensor v;      ///< as k
  Tensor k_idx;  ///< [Tq, Di]
  /// With pages, as the attention of the same step takes it: kv_lens already counts the new tokens,
  /// and row t of a request goes to position k_len - q_len + t. Rows below 0 and rows past the last
  /// request are passed over. No two rows may fall on one slot: shared pages are copied before.
  Sequences sequences;
  CacheViews cache;  ///< those of k, v, k_idx that are given must be given here, and no others
};

/// Needs no workspace memory; of the workspace only the stream is used.
void cache_append(const Context& context, const CacheAppendArgs& args, Workspace workspace = {});

struct CopyPagesArgs {
  Tensor pages;  ///< int32 [n, 2]: physical pages from, to; no page is written twice, none that is
                 ///< written is read
  CacheViews cache;
};

/// Needs no workspace memory; of the workspace only the stream is used.
void copy_pages(const Context& context, const CopyPagesArgs& args, Workspace workspace = {});

/// What has to be copied before a shared page may be written.
struct PageCopy {
  int32_t from = 0;
  int32_t to = 0;
};

/// Which physical pages hold which sequences. Not thread-safe. Throws Error and changes nothing
/// when a sequence is unknown, a length is wrong or pages run out.
class PageAllocator {
 public:
  using Sequence = int64_t;

  /// Pages 0 ... num_pages - 1 of page_size tokens each.
  PageAllocator(int64_t num_pages, int64_t page_size);

  /// A new sequence of length 0.
  Sequence create();
  /// A new sequence that holds the first `length` tokens of another and shares their pages.
  Sequence fork(Sequence sequence, int64_t length);
  /// Forgets a sequence; pages that no other holds are free again.
  void release(Sequence sequence);

  /// Takes pages for tokens up to `length`, at least the present length. When the page in which the
  /// next token falls is shared, the sequence gets a page of its own and the copy is returned: it
  /// has to be done in every cache before the page is written, and before the next extend of any
  /// sequence. Pages that were in use before come first, then fresh ones in ascending order.
  [[nodiscard]] std::optional<PageCopy> extend(Sequence sequence, int64_t length);
  /// Rolls back to `length` tokens, at most the present length.
  void truncate(Sequence sequence, int64_t length);

  int64_t length(Sequence sequence) const;
  /// Physical pages in order, ceil(length / page_size) of them. Valid until the next change.
  std::span<const int32_t> pages(Sequence sequence) const;

  int64_t num_pages() const { return num_pages_; }
  int64_t page_size() const { return page_size_; }
  int64_t num_free_pages() const;
  int64_t num_touched_pages() const {
    return static_cast<int64_t>(holders_.size());
  }  ///< that were ever in use

 private:
  struct State {
    std::vector<int32_t> pages;
    int64_t length = 0;
    bool live = false;
  };
  const State& state(const char* what, Sequence sequence) const;
  State& state(const char* what, Sequence sequence);
  Sequence new_sequence();
  int32_t take_page();
  void drop_pages(State& state, int64_t num_kept);

  int64_t num_pages_;
  int64_t page_size_;
  std::vector<int32_t> holders_;     // of each touched page: sequences that hold it
  std::vector<int32_t> free_pages_;  // touched, held by none
  std::vector<State> sequences_;
  std::vector<Sequence> free_sequences_;
};

}  // namespace msa
