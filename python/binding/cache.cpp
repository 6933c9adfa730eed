// cache_append and copy_pages for Python.
#include <tvm/ffi/function.h>

#include "call.h"

namespace msa::python {
namespace {

CacheViews cache_views(const Call& call, const Optional<TensorView>& k,
                       const Optional<TensorView>& v, const Optional<TensorView>& k_idx) {
  return {.k = call.output("k_cache", k),
          .v = call.output("v_cache", v),
          .k_idx = call.output("k_idx_cache", k_idx)};
}

void append(int64_t backend, TensorView cu_seqlens_q, TensorView page_table, TensorView kv_lens,
            Optional<TensorView> k, Optional<TensorView> v, Optional<TensorView> k_idx,
            Optional<TensorView> k_cache, Optional<TensorView> v_cache,
            Optional<TensorView> k_idx_cache) {
  const Call call("cache_append", backend, "cu_seqlens_q", cu_seqlens_q);
  CacheAppendArgs args;
  args.k = call.input("k", k);
  args.v = call.input("v", v);
  args.k_idx = call.input("k_idx", k_idx);
  args.sequences = call.sequences(cu_seqlens_q, {}, page_table, kv_lens);
  args.cache = cache_views(call, k_cache, v_cache, k_idx_cache);
  guarded([&] { cache_append(call.context(), args, call.stream_only()); });
}

void copy(int64_t backend, TensorView pages, Optional<TensorView> k_cache,
          Optional<TensorView> v_cache, Optional<TensorView> k_idx_cache) {
  const Call call("copy_pages", backend, "pages", pages);
  CopyPagesArgs args;
  args.pages = call.input("pages", pages);
  args.cache = cache_views(call, k_cache, v_cache, k_idx_cache);
  guarded([&] { copy_pages(call.context(), args, call.stream_only()); });
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(cache_append, append);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(copy_pages, copy);

}  // namespace msa::python
