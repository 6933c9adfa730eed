// The workbench of the backends that work on host memory. Caches are pages in random order, filled
// with standard normal numbers through cache_append, so that each is rounded as the library rounds.
#include <algorithm>
#include <bit>
#include <numeric>
#include <random>
#include <type_traits>

#include "bench/cuda/picks.h"
#include "bench/workbench.h"

namespace msa::bench {
namespace {

constexpr int64_t kFillBlocks = 64;

size_t count(int64_t n) { return static_cast<size_t>(n); }

/// Nearly standard normal: the sum of the eight bytes of a random word, less its mean, over its
/// standard deviation.
float normal_of(uint64_t bits) {
  constexpr uint64_t kLow = 0x00FF00FF00FF00FF;
  constexpr float kMean = 8 * 127.5f;
  constexpr float kDeviation = 209.0207f;  // sqrt(8 (256^2 - 1) / 12)
  const uint64_t pairs = (bits & kLow) + ((bits >> 8) & kLow);
  const uint64_t sum = (pairs * 0x0001000100010001u) >> 48;
  return (static_cast<float>(sum) - kMean) / kDeviation;
}

class HostWorkbench final : public Workbench {
 public:
  HostWorkbench(const Context& context, const LayerShape& shape, const Room& room,
                const Picks& picks, Clock clock, const ReadBuffer* flush, bool training)
      : context_(context),
        shape_(shape),
        room_(room),
        picks_(picks),
        stopwatch_(clock, context.num_threads()),
        flush_(flush),
        training_(training),
        random_(picks.seed) {
    const int64_t key_dim = shape.kv_heads * shape.head_dim;
    const int64_t slots = room.blocks * shape.block_size;
    k_.resize(count(slots * key_dim) * dtype_bytes(shape.kv_type));
    v_.resize(k_.size());
    k_idx_.resize(count(slots * shape.head_dim) * dtype_bytes(shape.kv_type));
    fill_caches();
    q_ = random_rows(shape.q_heads);
    q_idx_ = random_rows(shape.kv_heads);
    new_k_ = random_rows(shape.kv_heads);
    new_v_ = random_rows(shape.kv_heads);
    new_k_idx_ = random_rows(1);
    out_.resize(q_.size());
    lse_.resize(count(room.queries * shape.q_heads));
    index_ids_.resize(count(room.queries * shape.kv_heads * shape.top_k));
    made_ids_.resize(index_ids_.size());
    if (!training) return;
    dout_ = random_rows(shape.q_heads);
    dq_.resize(q_.size());
    dk_.resize(k_.size());
    dv_.resize(v_.size());
    dq_idx_.resize(q_idx_.size());
    dk_idx_.resize(k_idx_.size());
    lse_idx_.resize(count(room.queries * shape.kv_heads));
  }

  void place(const std::vector<Request>& requests) override {
    num_queries_ = count_queries(requests);
    cu_q_ = {0};
    cu_k_ = {0};
    k_lens_.clear();
    table_.assign(count(room_.table_blocks) * requests.size(), 0);
    std::vector<int32_t> pages(count(room_.blocks));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), random_);
    size_t used = 0;
    for (size_t r = 0; r < requests.size(); ++r) {
      cu_q_.push_back(cu_q_.back() + static_cast<int32_t>(requests[r].q_len));
      cu_k_.push_back(cu_k_.back() + static_cast<int32_t>(requests[r].k_len));
      k_lens_.push_back(static_cast<int32_t>(requests[r].k_len));
      const size_t blocks = count((requests[r].k_len + shape_.block_size - 1) / shape_.block_size);
      std::copy_n(pages.begin() + static_cast<std::ptrdiff_t>(used), blocks,
                  table_.begin() + static_cast<std::ptrdiff_t>(r * count(room_.table_blocks)));
      used += blocks;
    }
    if (picks_.kind != PickKind::kIndex) make_picks(requests);
  }

  double seconds(Part part) override {
    switch (part) {
      case Part::kAppend:
        return stopwatch_.seconds([args = append_args(), this] { cache_append(context_, args); });
      case Part::kIndex: {
        const IndexForwardArgs args = index_args();
        const Workspace space = workspace(index_forward_workspace_size(context_, args));
        return stopwatch_.seconds([&] { index_forward(context_, args, space); });
      }
      case Part::kAttend: {
        const AttentionForwardArgs args = attend_args();
        const Workspace space = workspace(attention_forward_workspace_size(context_, args));
        return stopwatch_.seconds([&] { attention_forward(context_, args, space); });
      }
      case Part::kDense: {
        const DenseAttentionForwardArgs args = dense_args();
        const Workspace space = workspace(dense_attention_forward_workspace_size(context_, args));
        return stopwatch_.seconds([&] { dense_attention_forward(context_, args, space); });
      }
      case Part::kBackward: {
        const AttentionBackwardArgs args = backward_args();
        const Workspace space = workspace(attention_backward_workspace_size(context_, args));
        return stopwatch_.seconds([&] { attention_backward(context_, args, space); });
      }
      case Part::kDenseBackward: {
        const DenseAttentionBackwardArgs args = dense_backward_args();
        const Workspace space = workspace(dense_attention_backward_workspace_size(context_, args));
        return stopwatch_.seconds([&] { dense_attention_backward(context_, args, space); });
      }
      case Part::kKl:
      case Part::kDenseKl: {
        const KlForwardBackwardArgs args = kl_args(part == Part::kDenseKl);
        const Workspace space = workspace(kl_forward_backward_workspace_size(context_, args));
        return stopwatch_.seconds([&] { kl_forward_backward(context_, args, space); });
      }
    }
    return 0;
  }

  void prepare(Part part) override {
    const bool listed = part == Part::kAttend || part == Part::kBackward || part == Part::kKl;
    lse_scope_ = part == Part::kDenseKl ? IndexLseScope::kVisible : IndexLseScope::kSelected;
    const bool picks = listed && picks_.kind == PickKind::kIndex;
    if (picks || part == Part::kKl || part == Part::kDenseKl) seconds(Part::kIndex);
    if (part == Part::kBackward || part == Part::kKl) seconds(Part::kAttend);
    if (part == Part::kDenseBackward || part == Part::kDenseKl) seconds(Part::kDense);
  }

  void cool() override {
    if (flush_ != nullptr) flush_->read();
  }

  std::vector<int32_t> block_ids() const override {
    const std::vector<int32_t>& ids = attended_ids();
    return {ids.begin(), ids.begin() + num_queries_ * shape_.kv_heads * shape_.top_k};
  }

  size_t workspace_bytes() const override { return workspace_.size() * sizeof(Line); }

 private:
  struct alignas(64) Line {
    unsigned char bytes[64];
  };

  /// [rows, heads, D] of the query type.
  std::vector<unsigned char> random_rows(int64_t heads) {
    const int64_t blocks = (room_.queries + shape_.block_size - 1) / shape_.block_size;
    std::vector<unsigned char> rows(count(blocks * shape_.block_size * heads * shape_.head_dim) *
                                    dtype_bytes(shape_.q_type));
    CacheViews views;
    views.k = MutableTensor(rows.data(), shape_.q_type,
                            {blocks, shape_.block_size, heads, shape_.head_dim});
    views.v = views.k;
    for (int64_t block = 0; block < blocks; ++block) fill(views, block, 1, heads);
    return rows;
  }

  void fill_caches() {
    const CacheViews views = cache_views();
    for (int64_t block = 0; block < room_.blocks; block += kFillBlocks) {
      fill(views, block, std::min(kFillBlocks, room_.blocks - block), shape_.kv_heads);
    }
  }

  /// Blocks [first, first + blocks) of k and v (and of index-K where there is one), through the
  /// library's own rounding.
  void fill(const CacheViews& views, int64_t first, int64_t blocks, int64_t heads) {
    const int64_t tokens = blocks * shape_.block_size;
    std::vector<float> k(count(tokens * heads * shape_.head_dim));
    std::vector<float> v(k.size());
    std::vector<float> k_idx(count(tokens * shape_.head_dim));
    for (std::vector<float>* values : {&k, &v, &k_idx}) {
      for (float& value : *values) value = normal_of(next_bits());
    }
    std::vector<int32_t> pages(count(blocks));
    std::iota(pages.begin(), pages.end(), static_cast<int32_t>(first));
    const std::vector<int32_t> cu = {0, static_cast<int32_t>(tokens)};
    const auto length = static_cast<int32_t>(tokens);
    CacheAppendArgs args;
    args.k = Tensor(k.data(), DType::kFloat32, {tokens, heads, shape_.head_dim});
    args.v = Tensor(v.data(), DType::kFloat32, {tokens, heads, shape_.head_dim});
    args.cache = views;
    if (views.k_idx.present()) {
      args.k_idx = Tensor(k_idx.data(), DType::kFloat32, {tokens, shape_.head_dim});
    }
    args.sequences.cu_seqlens_q = Tensor(cu.data(), DType::kInt32, {2});
    args.sequences.kv_lens = Tensor(&length, DType::kInt32, {1});
    args.sequences.page_table = Tensor(pages.data(), DType::kInt32, {1, blocks});
    cache_append(context_, args);
  }

  /// xorshift64*: the fill of a long context takes billions.
  uint64_t next_bits() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1Du;
  }

  void make_picks(const std::vector<Request>& requests) {
    if (picks_.kind == PickKind::kRecorded) {
      made_ids_ = picks_.recorded;
      return;
    }
    std::mt19937_64 random(picks_.seed);
    std::vector<std::vector<int32_t>> groups(count(shape_.kv_heads));
    for (const Request& request : requests) {
      const PickSpec spec = {.q_len = request.q_len,
                             .k_len = request.k_len,
                             .groups = shape_.kv_heads,
                             .block_size = shape_.block_size,
                             .top_k = shape_.top_k,
                             .keep = picks_.kind == PickKind::kKeep ? picks_.keep : 0,
                             .sink = picks_.kind == PickKind::kSink};
      append_picks(spec, random, groups);
    }
    auto to = made_ids_.begin();
    for (const std::vector<int32_t>& ids : groups) to = std::copy(ids.begin(), ids.end(), to);
  }

  const std::vector<int32_t>& attended_ids() const {
    return picks_.kind == PickKind::kIndex ? index_ids_ : made_ids_;
  }

  Workspace workspace(size_t bytes) {
    const size_t lines = (bytes + sizeof(Line) - 1) / sizeof(Line);
    if (workspace_.size() < lines) workspace_.resize(lines);
    return {workspace_.data(), workspace_.size() * sizeof(Line)};
  }

  Sequences sequences() const {
    Sequences all;
    const auto batch = static_cast<int64_t>(k_lens_.size());
    all.cu_seqlens_q = Tensor(cu_q_.data(), DType::kInt32, {batch + 1});
    if (training_) {
      all.cu_seqlens_k = Tensor(cu_k_.data(), DType::kInt32, {batch + 1});
      return all;
    }
    all.kv_lens = Tensor(k_lens_.data(), DType::kInt32, {batch});
    all.page_table = Tensor(table_.data(), DType::kInt32, {batch, room_.table_blocks});
    return all;
  }

  CacheViews cache_views() {
    CacheViews views;
    views.k = MutableTensor(k_.data(), shape_.kv_type,
                            {room_.blocks, shape_.block_size, shape_.kv_heads, shape_.head_dim});
    views.v = views.k;
    views.v.data = v_.data();
    views.k_idx = MutableTensor(k_idx_.data(), shape_.kv_type,
                                {room_.blocks, shape_.block_size, shape_.head_dim});
    return views;
  }

  /// Keys or values of all requests, packed: the pages in their physical order.
  template <typename Bytes>
  auto packed(Bytes& bytes) const {
    return std::conditional_t<std::is_const_v<Bytes>, Tensor, MutableTensor>(
        bytes.data(), shape_.kv_type, {cu_k_.back(), shape_.kv_heads, shape_.head_dim});
  }
  template <typename Bytes>
  auto packed_index(Bytes& bytes) const {
    return std::conditional_t<std::is_const_v<Bytes>, Tensor, MutableTensor>(
        bytes.data(), shape_.kv_type, {cu_k_.back(), shape_.head_dim});
  }
  MutableTensor results_of(std::vector<unsigned char>& rows, int64_t heads) const {
    return {rows.data(), shape_.q_type, {num_queries_, heads, shape_.head_dim}};
  }

  Tensor rows_of(const std::vector<unsigned char>& rows, int64_t heads) const {
    return Tensor(rows.data(), shape_.q_type, {num_queries_, heads, shape_.head_dim});
  }

  CacheAppendArgs append_args() {
    CacheAppendArgs args;
    args.k = rows_of(new_k_, shape_.kv_heads);
    args.v = rows_of(new_v_, shape_.kv_heads);
    args.k_idx = Tensor(new_k_idx_.data(), shape_.q_type, {num_queries_, shape_.head_dim});
    args.sequences = sequences();
    args.cache = cache_views();
    return args;
  }

  IndexForwardArgs index_args() {
    IndexForwardArgs args;
    args.q_idx = rows_of(q_idx_, shape_.kv_heads);
    args.k_idx = training_ ? packed_index(k_idx_) : cache_views().k_idx;
    args.sequences = sequences();
    args.block_size = shape_.block_size;
    if (training_) {
      args.lse_idx =
          MutableTensor(lse_idx_.data(), DType::kFloat32, {shape_.kv_heads, num_queries_});
      args.lse_scope = lse_scope_;
    }
    args.block_ids = MutableTensor(index_ids_.data(), DType::kInt32,
                                   {shape_.kv_heads, num_queries_, shape_.top_k});
    return args;
  }

  AttentionForwardArgs attend_args() {
    const DenseAttentionForwardArgs dense = dense_args();
    AttentionForwardArgs args;
    args.q = dense.q;
    args.k = dense.k;
    args.v = dense.v;
    args.sequences = dense.sequences;
    args.block_size = shape_.block_size;
    args.block_ids =
        Tensor(attended_ids().data(), DType::kInt32, {shape_.kv_heads, num_queries_, shape_.top_k});
    args.out = dense.out;
    args.lse = dense.lse;
    return args;
  }

  DenseAttentionForwardArgs dense_args() {
    const CacheViews views = cache_views();
    DenseAttentionForwardArgs args;
    args.q = rows_of(q_, shape_.q_heads);
    args.k = training_ ? packed(k_) : views.k;
    args.v = training_ ? packed(v_) : views.v;
    args.sequences = sequences();
    args.out =
        MutableTensor(out_.data(), shape_.q_type, {num_queries_, shape_.q_heads, shape_.head_dim});
    args.lse = MutableTensor(lse_.data(), DType::kFloat32, {num_queries_, shape_.q_heads});
    return args;
  }

  DenseAttentionBackwardArgs dense_backward_args() {
    const DenseAttentionForwardArgs forward = dense_args();
    DenseAttentionBackwardArgs args;
    args.q = forward.q;
    args.k = forward.k;
    args.v = forward.v;
    args.sequences = forward.sequences;
    args.out = forward.out;
    args.lse = forward.lse;
    args.dout = rows_of(dout_, shape_.q_heads);
    args.dq = results_of(dq_, shape_.q_heads);
    args.dk = packed(dk_);
    args.dv = packed(dv_);
    return args;
  }

  AttentionBackwardArgs backward_args() {
    const DenseAttentionBackwardArgs dense = dense_backward_args();
    AttentionBackwardArgs args;
    args.q = dense.q;
    args.k = dense.k;
    args.v = dense.v;
    args.sequences = dense.sequences;
    args.block_size = shape_.block_size;
    args.block_ids = attend_args().block_ids;
    args.out = dense.out;
    args.lse = dense.lse;
    args.dout = dense.dout;
    args.dq = dense.dq;
    args.dk = dense.dk;
    args.dv = dense.dv;
    return args;
  }

  KlForwardBackwardArgs kl_args(bool dense) {
    const DenseAttentionForwardArgs forward = dense_args();
    const IndexForwardArgs index = index_args();
    KlForwardBackwardArgs args;
    args.q = forward.q;
    args.k = forward.k;
    args.lse = forward.lse;
    args.q_idx = index.q_idx;
    args.k_idx = index.k_idx;
    args.lse_idx = index.lse_idx;
    args.sequences = forward.sequences;
    args.scope = dense ? KlScope::kVisible : KlScope::kSelected;
    args.block_size = shape_.block_size;
    if (!dense) args.block_ids = attend_args().block_ids;
    args.normaliser = static_cast<double>(shape_.kv_heads * num_queries_);
    args.loss = MutableTensor(&loss_, DType::kFloat32, {1});
    args.dq_idx = results_of(dq_idx_, shape_.kv_heads);
    args.dk_idx = packed_index(dk_idx_);
    return args;
  }

  const Context& context_;
  LayerShape shape_;
  Room room_;
  Picks picks_;
  Stopwatch stopwatch_;
  const ReadBuffer* flush_;
  bool training_;
  IndexLseScope lse_scope_ = IndexLseScope::kSelected;
  std::mt19937_64 random_;
  uint64_t state_ = 0x9E3779B97F4A7C15;
  int64_t num_queries_ = 0;
  std::vector<unsigned char> k_, v_, k_idx_;    // [blocks, B, heads, D] of the cache's type
  std::vector<unsigned char> q_, q_idx_, out_;  // [rows, heads, D] of the queries' type
  std::vector<unsigned char> new_k_, new_v_, new_k_idx_;
  std::vector<unsigned char> dout_, dq_, dq_idx_;  // of the queries' type; in training
  std::vector<unsigned char> dk_, dv_, dk_idx_;    // of the caches' type; in training
  std::vector<float> lse_, lse_idx_;
  float loss_ = 0;
  std::vector<int32_t> index_ids_, made_ids_, table_, cu_q_, cu_k_, k_lens_;
  std::vector<Line> workspace_;
};

}  // namespace

const char* part_name(Part part) {
  switch (part) {
    case Part::kAppend:
      return "append";
    case Part::kIndex:
      return "index";
    case Part::kAttend:
      return "attend";
    case Part::kDense:
      return "dense";
    case Part::kBackward:
      return "backward";
    case Part::kDenseBackward:
      return "dense-backward";
    case Part::kKl:
      return "kl";
    case Part::kDenseKl:
      return "dense-kl";
  }
  return "unknown part";
}

void Room::grow(const LayerShape& shape, const std::vector<Piece>& pieces) {
  for (const Piece& piece : pieces) {
    int64_t all = 0;
    for (const Request& request : piece.requests) {
      const int64_t own = (request.k_len + shape.block_size - 1) / shape.block_size;
      all += own;
      table_blocks = std::max(table_blocks, own);
    }
    blocks = std::max(blocks, all);
    queries = std::max(queries, count_queries(piece.requests));
    requests = std::max(requests, static_cast<int64_t>(piece.requests.size()));
  }
}

double workbench_bytes(const LayerShape& shape, const Room& room, bool training) {
  const auto real = [](int64_t n) { return static_cast<double>(n); };
  const double copies = training ? 2 : 1;  // gradients
  const double token = real((2 * shape.kv_heads + 1) * shape.head_dim);
  const double row = real((2 * shape.q_heads + 3 * shape.kv_heads + 1) * shape.head_dim);
  return copies * real(room.blocks * shape.block_size) * token *
             static_cast<double>(dtype_bytes(shape.kv_type)) +
         real(room.queries) * (copies * row * static_cast<double>(dtype_bytes(shape.q_type)) +
                               8 * real(shape.kv_heads * shape.top_k));
}

std::unique_ptr<Workbench> make_host_workbench(const Context& context, const LayerShape& shape,
                                               const Room& room, const Picks& picks, Clock clock,
                                               const ReadBuffer* flush, bool training) {
  return std::make_unique<HostWorkbench>(context, shape, room, picks, clock, flush, training);
}

}  // namespace msa::bench
