#include "runner/layers/caches.h"

#include <fmt/format.h>

namespace msa::runner {
namespace {

constexpr size_t kRegionAlignment = 4096;

size_t aligned(size_t bytes) {
  return (bytes + kRegionAlignment - 1) / kRegionAlignment * kRegionAlignment;
}

}  // namespace

PagedCaches::PagedCaches(const ModelConfig& config, int64_t max_tokens, DType dtype,
                         bool with_index)
    : pages_((max_tokens + config.block_size - 1) / config.block_size, config.block_size),
      sequence_(pages_.create()),
      num_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      index_dim_(config.index_dim),
      dtype_(dtype) {
  const size_t key_page =
      static_cast<size_t>(config.block_size * num_heads_ * head_dim_) * dtype_bytes(dtype);
  const size_t index_page =
      static_cast<size_t>(config.block_size * index_dim_) * dtype_bytes(dtype);
  const auto pages = static_cast<size_t>(pages_.num_pages());
  size_t bytes = 0;
  for (LayerKind kind : config.layers) {
    Layer layer;
    layer.has_index = with_index && kind == LayerKind::kSparseAttention;
    layer.keys = bytes;
    layer.values = layer.keys + aligned(pages * key_page);
    layer.index_keys = layer.values + aligned(pages * key_page);
    bytes = layer.index_keys + (layer.has_index ? aligned(pages * index_page) : 0);
    page_bytes_ += 2 * key_page + (layer.has_index ? index_page : 0);
    layers_.push_back(layer);
  }
  memory_ = LazyMemory(fmt::format("caches of {} tokens", max_tokens), bytes);
}

void PagedCaches::extend(int64_t length) {
  (void)pages_.extend(sequence_, length);  // a single sequence shares no page: nothing to copy
}

void PagedCaches::truncate(int64_t length) { pages_.truncate(sequence_, length); }

MutableTensor PagedCaches::key_view(size_t offset) const {
  const int64_t page_tokens = pages_.page_size();
  const int64_t head_stride = page_tokens * head_dim_;
  return {memory_.data() + offset,
          dtype_,
          {pages_.num_pages(), page_tokens, num_heads_, head_dim_},
          {num_heads_ * head_stride, head_dim_, head_stride, 1}};
}

CacheViews PagedCaches::layer(int64_t layer) const {
  const Layer& offsets = layers_[static_cast<size_t>(layer)];
  CacheViews views;
  views.k = key_view(offsets.keys);
  views.v = key_view(offsets.values);
  if (offsets.has_index) {
    views.k_idx = {memory_.data() + offsets.index_keys,
                   dtype_,
                   {pages_.num_pages(), pages_.page_size(), index_dim_}};
  }
  return views;
}

Tensor PagedCaches::page_table() const {
  const auto pages = pages_.pages(sequence_);
  return {pages.data(), DType::kInt32, {1, static_cast<int64_t>(pages.size())}};
}

}  // namespace msa::runner
