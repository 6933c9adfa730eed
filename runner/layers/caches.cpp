#include "runner/layers/caches.h"

#include <cstring>

#include "runner/files/fail.h"
#include "runner/layers/bfloat16.h"

namespace msa::runner {
namespace {

constexpr size_t kRegionAlignment = 4096;

size_t aligned(size_t bytes) {
  return (bytes + kRegionAlignment - 1) / kRegionAlignment * kRegionAlignment;
}

}  // namespace

PagedCaches::PagedCaches(const ModelConfig& config, int64_t max_tokens, DType dtype,
                         bool with_index)
    : num_pages_((max_tokens + config.block_size - 1) / config.block_size),
      page_tokens_(config.block_size),
      num_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      index_dim_(config.index_dim),
      dtype_(dtype) {
  const size_t key_page =
      static_cast<size_t>(page_tokens_ * num_heads_ * head_dim_) * dtype_bytes(dtype);
  const size_t index_page = static_cast<size_t>(page_tokens_ * index_dim_) * dtype_bytes(dtype);
  const auto pages = static_cast<size_t>(num_pages_);
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
  const auto pages = static_cast<size_t>((length + page_tokens_ - 1) / page_tokens_);
  while (page_table_.size() < pages) {
    if (free_pages_.empty()) {
      page_table_.push_back(num_touched_++);
    } else {
      page_table_.push_back(free_pages_.back());
      free_pages_.pop_back();
    }
  }
  length_ = length;
}

void PagedCaches::truncate(int64_t length) {
  const auto pages = static_cast<size_t>((length + page_tokens_ - 1) / page_tokens_);
  while (page_table_.size() > pages) {
    free_pages_.push_back(page_table_.back());
    page_table_.pop_back();
  }
  length_ = length;
}

Tensor PagedCaches::key_view(size_t offset) const {
  const int64_t head_stride = page_tokens_ * head_dim_;
  return {memory_.data() + offset,
          dtype_,
          {num_pages_, page_tokens_, num_heads_, head_dim_},
          {num_heads_ * head_stride, head_dim_, head_stride, 1}};
}

Tensor PagedCaches::keys(int64_t layer) const {
  return key_view(layers_[static_cast<size_t>(layer)].keys);
}

Tensor PagedCaches::values(int64_t layer) const {
  return key_view(layers_[static_cast<size_t>(layer)].values);
}

Tensor PagedCaches::index_keys(int64_t layer) const {
  return {memory_.data() + layers_[static_cast<size_t>(layer)].index_keys,
          dtype_,
          {num_pages_, page_tokens_, index_dim_}};
}

Tensor PagedCaches::page_table() const {
  return {page_table_.data(), DType::kInt32, {1, static_cast<int64_t>(page_table_.size())}};
}

int64_t PagedCaches::page_of(int64_t position) const {
  return page_table_[static_cast<size_t>(position / page_tokens_)];
}

void PagedCaches::write(size_t offset, int64_t element, const float* from, int64_t count) {
  std::byte* region = memory_.data() + offset;
  if (dtype_ == DType::kFloat32) {
    std::memcpy(reinterpret_cast<float*>(region) + element, from,
                static_cast<size_t>(count) * sizeof(float));
    return;
  }
  uint16_t* to = reinterpret_cast<uint16_t*>(region) + element;
  for (int64_t i = 0; i < count; ++i) to[i] = float_to_bfloat16(from[i]);
}

void PagedCaches::write_key(int64_t layer, int64_t position, int64_t head, const float* from) {
  const int64_t row =
      (page_of(position) * num_heads_ + head) * page_tokens_ + position % page_tokens_;
  write(layers_[static_cast<size_t>(layer)].keys, row * head_dim_, from, head_dim_);
}

void PagedCaches::write_value(int64_t layer, int64_t position, int64_t head, const float* from) {
  const int64_t row =
      (page_of(position) * num_heads_ + head) * page_tokens_ + position % page_tokens_;
  write(layers_[static_cast<size_t>(layer)].values, row * head_dim_, from, head_dim_);
}

void PagedCaches::write_index_key(int64_t layer, int64_t position, const float* from) {
  const int64_t row = page_of(position) * page_tokens_ + position % page_tokens_;
  write(layers_[static_cast<size_t>(layer)].index_keys, row * index_dim_, from, index_dim_);
}

}  // namespace msa::runner
