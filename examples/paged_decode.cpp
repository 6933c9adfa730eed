// Decode on a paged cache: a prompt, a second request that shares its pages, and steps of both in
// one batch. The keys and queries are random; an engine would take them from its layers.
#include <msa/msa.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

namespace {

constexpr int64_t kHq = 8, kHkv = 2, kDim = 64, kBlock = 64, kTopK = 4, kPages = 24, kBatch = 2;
constexpr int64_t kPrompt = 1000, kSteps = 40, kMostRows = kPrompt, kMostPages = kPages;
constexpr auto kFloat = msa::DType::kFloat32, kCacheType = msa::DType::kBFloat16;
constexpr auto kInt = msa::DType::kInt32;

std::mt19937 generator(7);

std::vector<float> random_rows(int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<size_t>(count));
  for (float& value : rows) value = normal(generator);
  return rows;
}

/// One layer: its caches, and the outputs and workspace that all its steps share.
class Layer {
 public:
  /// Appends the last `new_tokens[r]` tokens of each request and attends from them.
  void step(msa::PageAllocator& pages, const std::vector<int64_t>& requests,
            const std::vector<int32_t>& new_tokens) {
    rows_ = {0};
    lengths_.clear();
    table_.assign(static_cast<size_t>(kBatch * kMostPages), -1);
    for (size_t r = 0; r < requests.size(); ++r) {
      const int64_t length = pages.length(requests[r]) + new_tokens[r];
      if (const auto copy = pages.extend(requests[r], length)) {
        const int32_t from_to[] = {copy->from, copy->to};  // the page was shared
        copy_pages(context_, {.pages = {from_to, kInt, {1, 2}}, .cache = caches_});
      }
      const auto held = pages.pages(requests[r]);
      std::copy(held.begin(), held.end(), table_.begin() + static_cast<long>(r) * kMostPages);
      rows_.push_back(rows_.back() + new_tokens[r]);
      lengths_.push_back(static_cast<int32_t>(length));
    }
    const auto batch = static_cast<int64_t>(requests.size());
    const int64_t tokens = rows_.back();
    const msa::Sequences sequences = {.cu_seqlens_q = {rows_.data(), kInt, {batch + 1}},
                                      .cu_seqlens_k = {},
                                      .page_table = {table_.data(), kInt, {batch, kMostPages}},
                                      .kv_lens = {lengths_.data(), kInt, {batch}}};
    const auto k = random_rows(tokens * kHkv * kDim), v = random_rows(tokens * kHkv * kDim);
    const auto k_idx = random_rows(tokens * kDim), q_idx = random_rows(tokens * kHkv * kDim);
    const auto q = random_rows(tokens * kHq * kDim);
    cache_append(context_, {.k = {k.data(), kFloat, {tokens, kHkv, kDim}},
                            .v = {v.data(), kFloat, {tokens, kHkv, kDim}},
                            .k_idx = {k_idx.data(), kFloat, {tokens, kDim}},
                            .sequences = sequences,
                            .cache = caches_});
    msa::IndexForwardArgs index;
    index.q_idx = {q_idx.data(), kFloat, {tokens, kHkv, kDim}};
    index.k_idx = caches_.k_idx;
    index.sequences = sequences;
    index.block_size = kBlock;
    index.block_ids = {ids_.data(), kInt, {kHkv, tokens, kTopK}};
    msa::AttentionForwardArgs attention;
    attention.q = {q.data(), kFloat, {tokens, kHq, kDim}};
    attention.k = caches_.k;
    attention.v = caches_.v;
    attention.sequences = sequences;
    attention.block_size = kBlock;
    attention.block_ids = index.block_ids;
    attention.out = {out_.data(), kFloat, {tokens, kHq, kDim}};
    const size_t bytes = std::max(index_forward_workspace_size(context_, index),
                                  attention_forward_workspace_size(context_, attention));
    if (bytes > workspace_.size() * sizeof(Line)) workspace_.resize(bytes / sizeof(Line) + 1);
    const msa::Workspace workspace = {workspace_.data(), workspace_.size() * sizeof(Line)};
    index_forward(context_, index, workspace);
    attention_forward(context_, attention, workspace);
  }

 private:
  struct alignas(64) Line {
    unsigned char bytes[64];
  };
  msa::Context context_;
  std::vector<uint16_t> k_ = std::vector<uint16_t>(kPages * kBlock * kHkv * kDim), v_ = k_;
  std::vector<uint16_t> k_idx_ = std::vector<uint16_t>(kPages * kBlock * kDim);
  msa::CacheViews caches_ = {{k_.data(), kCacheType, {kPages, kBlock, kHkv, kDim}},
                             {v_.data(), kCacheType, {kPages, kBlock, kHkv, kDim}},
                             {k_idx_.data(), kCacheType, {kPages, kBlock, kDim}}};
  std::vector<int32_t> rows_, lengths_, table_;
  std::vector<int32_t> ids_ = std::vector<int32_t>(kHkv * kMostRows * kTopK);
  std::vector<float> out_ = std::vector<float>(kMostRows * kHq * kDim);
  std::vector<Line> workspace_;
};

}  // namespace

int main() {
  try {
    Layer layer;
    msa::PageAllocator pages(kPages, kBlock);
    const int64_t first = pages.create();
    layer.step(pages, {first}, {static_cast<int32_t>(kPrompt)});
    const int64_t second = pages.fork(first, kPrompt);  // no key is copied
    for (int64_t step = 0; step < kSteps; ++step) layer.step(pages, {first, second}, {1, 1});
    pages.truncate(second, kPrompt);             // its tokens were refused:
    layer.step(pages, {first, second}, {1, 3});  // three others instead
    std::printf("%lld and %lld tokens on %lld of %lld pages\n",
                static_cast<long long>(pages.length(first)),
                static_cast<long long>(pages.length(second)),
                static_cast<long long>(pages.num_pages() - pages.num_free_pages()),
                static_cast<long long>(pages.num_pages()));
  } catch (const msa::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
