// cache_append and copy_pages: check -> fill params -> call the backend table.
#include "msa/cache.h"

#include "ops/attention_args.h"

namespace msa {
namespace {

constexpr const char* kAppend = "cache_append";
constexpr const char* kCopy = "copy_pages";

/// Views of one layer's caches, checked against each other.
struct Checked {
  core::CacheParams caches[3];
  int64_t num_pages = 0;
  int64_t page_size = 0;
};

core::CacheParams cache_params(const MutableTensor& view, bool has_heads) {
  core::CacheParams p;
  p.data = view.data;
  p.dtype = view.dtype;
  p.page_stride = view.stride[0];
  p.token_stride = view.stride[1];
  p.head_stride = has_heads ? view.stride[2] : 0;
  p.num_heads = has_heads ? view.shape[2] : 1;
  p.dim = view.shape[has_heads ? 3 : 2];
  return p;
}

Checked check_caches(const char* op, const CacheViews& views) {
  using core::check;
  check(views.k.present() == views.v.present(), op,
        "k and v belong together: got one of the two caches, allowed both or none");
  check(views.k.present() || views.k_idx.present(), op,
        "no cache is given: got none, allowed k with v, k_idx, or all three");
  Checked checked;
  if (views.k.present()) {
    core::check_tensor(op, "cache k", views.k, 4, ops::kFloatTypes);
    core::check_tensor(op, "cache v", views.v, 4, {views.k.dtype});
    const auto& shape = views.k.shape;
    core::check_shape(op, "cache v", views.v, {shape[0], shape[1], shape[2], shape[3]});
    checked.num_pages = shape[0];
    checked.page_size = shape[1];
    checked.caches[0] = cache_params(views.k, true);
    checked.caches[1] = cache_params(views.v, true);
  }
  if (views.k_idx.present()) {
    core::check_tensor(op, "cache k_idx", views.k_idx, 3, ops::kFloatTypes);
    if (views.k.present()) {
      core::check_shape(op, "cache k_idx", views.k_idx, {checked.num_pages, checked.page_size, -1});
    }
    checked.num_pages = views.k_idx.shape[0];
    checked.page_size = views.k_idx.shape[1];
    checked.caches[2] = cache_params(views.k_idx, false);
  }
  check(checked.page_size >= 1 && checked.page_size <= core::kMaxBlockSize, op,
        "the cache has pages of the wrong size: got {} tokens, allowed 1 to {}", checked.page_size,
        core::kMaxBlockSize);
  return checked;
}

Geometry geometry_of(const Checked& checked) {
  return {
      .num_kv_heads = checked.caches[0].num_heads,
      .head_dim = checked.caches[0].data != nullptr ? checked.caches[0].dim : checked.caches[2].dim,
      .block_size = checked.page_size};
}

DType dtype_of(const Checked& checked) {
  return checked.caches[checked.caches[0].data != nullptr ? 0 : 2].dtype;
}

}  // namespace

void cache_append(const Context& context, const CacheAppendArgs& args, Workspace workspace) {
  using core::check;
  const Checked checked = check_caches(kAppend, args.cache);
  core::CacheAppendParams p;
  int64_t num_tokens = -1;
  const auto fill = [&](int which, const char* name, const Tensor& rows, bool present, int rank) {
    check(rows.present() == present, kAppend,
          "{} and its cache do not match: got {} and {}, allowed both or none", name,
          rows.present() ? "rows" : "no rows", present ? "a cache" : "no cache");
    if (!present) return;
    core::CacheParams& cache = p.caches[which] = checked.caches[which];
    core::check_tensor(kAppend, name, rows, rank, ops::kFloatTypes);
    if (rank == 3) {
      core::check_shape(kAppend, name, rows, {num_tokens, cache.num_heads, cache.dim});
    } else {
      core::check_shape(kAppend, name, rows, {num_tokens, cache.dim});
    }
    num_tokens = rows.shape[0];
    cache.rows = {rows.data, rows.dtype, rows.stride[0], rank == 3 ? rows.stride[1] : 0};
  };
  fill(0, "k", args.k, args.cache.k.present(), 3);
  fill(1, "v", args.v, args.cache.v.present(), 3);
  fill(2, "k_idx", args.k_idx, args.cache.k_idx.present(), 2);
  check(args.sequences.page_table.present(), kAppend,
        "page_table is missing: got none, allowed page_table with kv_lens");
  const Tensor pages = args.cache.k.present() ? args.cache.k : args.cache.k_idx;
  p.sequences = core::check_sequences(kAppend, args.sequences, num_tokens, pages, "cache");
  core::check_supported(context, Op::kCacheAppend, geometry_of(checked), dtype_of(checked));
  ops::check_contents(context, kAppend, p.sequences, checked.num_pages);
  context.table().cache_append(p, ops::run_context(context, workspace));
}

void copy_pages(const Context& context, const CopyPagesArgs& args, Workspace workspace) {
  const Checked checked = check_caches(kCopy, args.cache);
  core::check_tensor(kCopy, "pages", args.pages, 2, {DType::kInt32});
  core::check_shape(kCopy, "pages", args.pages, {-1, 2});
  core::CopyPagesParams p;
  for (int n = 0; n < 3; ++n) p.caches[n] = checked.caches[n];
  p.pages = static_cast<const int32_t*>(args.pages.data);
  p.pages_stride = args.pages.stride[0];
  p.num_copies = args.pages.shape[0];
  p.num_pages = checked.num_pages;
  p.page_size = checked.page_size;
  core::check_supported(context, Op::kCopyPages, geometry_of(checked), dtype_of(checked));
  if (context.backend() != Backend::kCuda) {
    for (int64_t n = 0; n < p.num_copies; ++n) {
      for (int64_t side = 0; side < 2; ++side) {
        const int32_t page = p.pages[n * p.pages_stride + side];
        core::check(page >= 0 && page < checked.num_pages, kCopy,
                    "pages[{}, {}] is outside the cache: got {}, allowed 0 to {}", n, side, page,
                    checked.num_pages - 1);
      }
    }
  }
  context.table().copy_pages(p, ops::run_context(context, workspace));
}

}  // namespace msa
