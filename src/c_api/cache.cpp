// Paged caches in the C API: the two ops, and the page allocator behind its handle.
#include "msa/cache.h"

#include <memory>

#include "c_api/guard.h"
#include "c_api/views.h"

/// The handle of the C API.
struct msa_page_allocator {  // NOLINT(readability-identifier-naming): C's name
  msa::PageAllocator pages;
};

namespace msa::c_api {
namespace {

constexpr const char* kAppend = "cache_append";
constexpr const char* kCopy = "copy_pages";
constexpr const char* kPages = "pages";

CacheAppendArgs convert_append(const msa_cache_append_args& given) {
  return {.k = input(given.k),
          .v = input(given.v),
          .k_idx = input(given.k_idx),
          .sequences = sequences_of(given.sequences),
          .cache = {output(given.cache_k), output(given.cache_v), output(given.cache_k_idx)}};
}

CopyPagesArgs convert_copy(const msa_copy_pages_args& given) {
  return {.pages = input(given.pages),
          .cache = {output(given.cache_k), output(given.cache_v), output(given.cache_k_idx)}};
}

template <typename Handle, typename Result>
auto& checked(Handle* handle, const char* name, Result* result) {
  check_pointer(kPages, "the page allocator", handle);
  check_pointer(kPages, name, result);
  return handle->pages;
}

}  // namespace
}  // namespace msa::c_api

using namespace msa::c_api;  // NOLINT(google-build-using-namespace): the door's own parts

msa_status msa_cache_append(const msa_context* context, const msa_cache_append_args* args,
                            const msa_workspace* workspace) {
  return call_op(kAppend, context, args, workspace, convert_append, msa::cache_append);
}
msa_status msa_copy_pages(const msa_context* context, const msa_copy_pages_args* args,
                          const msa_workspace* workspace) {
  return call_op(kCopy, context, args, workspace, convert_copy, msa::copy_pages);
}

msa_status msa_page_allocator_create(int64_t num_pages, int64_t page_size,
                                     msa_page_allocator** pages) {
  return guarded([&] {
    check_pointer(kPages, "the result", pages);
    *pages = nullptr;
    *pages = std::make_unique<msa_page_allocator>(
                 msa_page_allocator{msa::PageAllocator(num_pages, page_size)})
                 .release();
  });
}

void msa_page_allocator_destroy(msa_page_allocator* pages) { delete pages; }

msa_status msa_page_allocator_num_free(const msa_page_allocator* pages, int64_t* num_free) {
  return guarded([&] { *num_free = checked(pages, "num_free", num_free).num_free_pages(); });
}

msa_status msa_sequence_create(msa_page_allocator* pages, int64_t* sequence) {
  return guarded([&] { *sequence = checked(pages, "sequence", sequence).create(); });
}

msa_status msa_sequence_fork(msa_page_allocator* pages, int64_t sequence, int64_t length,
                             int64_t* child) {
  return guarded([&] { *child = checked(pages, "child", child).fork(sequence, length); });
}

msa_status msa_sequence_release(msa_page_allocator* pages, int64_t sequence) {
  return guarded([&] { checked(pages, "pages", pages).release(sequence); });
}

msa_status msa_sequence_extend(msa_page_allocator* pages, int64_t sequence, int64_t length,
                               msa_page_copy* copy) {
  return guarded([&] {
    const auto needed = checked(pages, "copy", copy).extend(sequence, length);
    *copy = needed ? msa_page_copy{needed->from, needed->to} : msa_page_copy{-1, -1};
  });
}

msa_status msa_sequence_truncate(msa_page_allocator* pages, int64_t sequence, int64_t length) {
  return guarded([&] { checked(pages, "pages", pages).truncate(sequence, length); });
}

msa_status msa_sequence_length(const msa_page_allocator* pages, int64_t sequence, int64_t* length) {
  return guarded([&] { *length = checked(pages, "length", length).length(sequence); });
}

msa_status msa_sequence_pages(const msa_page_allocator* pages, int64_t sequence,
                              const int32_t** page_ids, int64_t* num_page_ids) {
  return guarded([&] {
    check_pointer(kPages, "num_page_ids", num_page_ids);
    const auto held = checked(pages, "page_ids", page_ids).pages(sequence);
    *page_ids = held.data();
    *num_page_ids = static_cast<int64_t>(held.size());
  });
}
