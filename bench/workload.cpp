#include "workload.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace msa::bench {

Workload::Workload(const Shape& shape, int64_t context, int64_t max_queries)
    : shape_(shape), num_pages_((context + shape.block_size - 1) / shape.block_size) {
  const auto count = [](int64_t n) { return static_cast<size_t>(n); };
  std::normal_distribution<float> normal;
  q_.resize(count(max_queries * shape.q_heads * shape.head_dim));
  q_idx_.resize(count(max_queries * shape.kv_heads * shape.head_dim));
  for (float& x : q_) x = normal(random_);
  for (float& x : q_idx_) x = normal(random_);
  out_.resize(q_.size());
  lse_.resize(count(max_queries * shape.q_heads));
  k_.resize(count(num_pages_ * shape.block_size * shape.kv_heads * shape.head_dim));
  v_.resize(k_.size());
  k_idx_.resize(count(num_pages_ * shape.block_size * shape.head_dim));
  fill_random(k_);
  fill_random(v_);
  fill_random(k_idx_);
  ids_.resize(count(max_queries * shape.kv_heads * shape.top_k));
  page_table_.resize(count(num_pages_));
  std::iota(page_table_.begin(), page_table_.end(), 0);
  std::shuffle(page_table_.begin(), page_table_.end(), random_);
}

/// bfloat16 bits of roughly normal numbers, cheaply: the sum of four bytes.
void Workload::fill_random(std::vector<uint16_t>& values) {
  for (uint16_t& value : values) {
    const auto bits = static_cast<uint32_t>(random_());
    const auto sum =
        static_cast<int>((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24));
    const float x = static_cast<float>(sum - 510) / 148.0f;
    uint32_t word = 0;
    std::copy_n(reinterpret_cast<const unsigned char*>(&x), sizeof(x),
                reinterpret_cast<unsigned char*>(&word));
    value = static_cast<uint16_t>(word >> 16);
  }
}

void Workload::place(int64_t k_len, int64_t num_queries) {
  num_queries_ = num_queries;
  cu_q_ = {0, static_cast<int32_t>(num_queries)};
  k_lens_ = {static_cast<int32_t>(k_len)};
}

Workspace Workload::workspace(size_t bytes) {
  const size_t lines = (bytes + sizeof(Line) - 1) / sizeof(Line);
  if (workspace_.size() < lines) workspace_.resize(lines);
  return {workspace_.data(), workspace_.size() * sizeof(Line)};
}

IndexForwardArgs Workload::index_args() {
  IndexForwardArgs args;
  args.q_idx =
      Tensor(q_idx_.data(), DType::kFloat32, {num_queries_, shape_.kv_heads, shape_.head_dim});
  args.k_idx =
      Tensor(k_idx_.data(), DType::kBFloat16, {num_pages_, shape_.block_size, shape_.head_dim});
  args.sequences.cu_seqlens_q = Tensor(cu_q_.data(), DType::kInt32, {2});
  args.sequences.kv_lens = Tensor(k_lens_.data(), DType::kInt32, {1});
  args.sequences.page_table = Tensor(page_table_.data(), DType::kInt32, {1, num_pages_});
  args.block_size = shape_.block_size;
  args.block_ids =
      MutableTensor(ids_.data(), DType::kInt32, {shape_.kv_heads, num_queries_, shape_.top_k});
  return args;
}

AttentionForwardArgs Workload::sparse_args() {
  const DenseAttentionForwardArgs dense = dense_args();
  AttentionForwardArgs args;
  args.q = dense.q;
  args.k = dense.k;
  args.v = dense.v;
  args.sequences = dense.sequences;
  args.block_size = shape_.block_size;
  args.block_ids =
      Tensor(ids_.data(), DType::kInt32, {shape_.kv_heads, num_queries_, shape_.top_k});
  args.out = dense.out;
  args.lse = dense.lse;
  return args;
}

DenseAttentionForwardArgs Workload::dense_args() {
  DenseAttentionForwardArgs args;
  args.q = Tensor(q_.data(), DType::kFloat32, {num_queries_, shape_.q_heads, shape_.head_dim});
  args.k = Tensor(k_.data(), DType::kBFloat16,
                  {num_pages_, shape_.block_size, shape_.kv_heads, shape_.head_dim});
  args.v = Tensor(v_.data(), DType::kBFloat16,
                  {num_pages_, shape_.block_size, shape_.kv_heads, shape_.head_dim});
  args.sequences = index_args().sequences;
  args.out =
      MutableTensor(out_.data(), DType::kFloat32, {num_queries_, shape_.q_heads, shape_.head_dim});
  args.lse = MutableTensor(lse_.data(), DType::kFloat32, {num_queries_, shape_.q_heads});
  return args;
}

void Workload::run_index(const Context& context) {
  const IndexForwardArgs args = index_args();
  index_forward(context, args, workspace(index_forward_workspace_size(context, args)));
}

void Workload::run_sparse(const Context& context) {
  const AttentionForwardArgs args = sparse_args();
  attention_forward(context, args, workspace(attention_forward_workspace_size(context, args)));
}

void Workload::run_dense(const Context& context) {
  const DenseAttentionForwardArgs args = dense_args();
  dense_attention_forward(context, args,
                          workspace(dense_attention_forward_workspace_size(context, args)));
}

void Workload::choose_overlapping(double keep) {
  std::bernoulli_distribution kept(keep);
  for (int64_t h = 0; h < shape_.kv_heads; ++h) {
    std::set<int32_t> picks;
    for (int64_t t = 0; t < num_queries_; ++t) {
      const int64_t position = k_len() - num_queries_ + t;
      const auto local = static_cast<int32_t>(position / shape_.block_size);
      std::set<int32_t> next = {local};
      for (int32_t id : picks) {
        if (kept(random_) && static_cast<int64_t>(next.size()) < shape_.top_k) next.insert(id);
      }
      std::uniform_int_distribution<int32_t> draw(0, local);
      const int64_t wanted = std::min<int64_t>(shape_.top_k, local + 1);
      while (static_cast<int64_t>(next.size()) < wanted) next.insert(draw(random_));
      int32_t* list = ids_.data() + (h * num_queries_ + t) * shape_.top_k;
      std::fill_n(list, shape_.top_k, -1);
      std::copy(next.begin(), next.end(), list);
      picks = next;
    }
  }
}

double Workload::dense_flop() const {
  double tokens = 0;  // visible tokens over all queries
  for (int64_t t = 0; t < num_queries_; ++t) {
    tokens += static_cast<double>(k_len() - num_queries_ + t + 1);
  }
  return 4.0 * static_cast<double>(shape_.q_heads * shape_.head_dim) * tokens;
}

double Workload::index_flop() const {
  return dense_flop() / 2 * static_cast<double>(shape_.kv_heads) /
         static_cast<double>(shape_.q_heads);
}

double Workload::sparse_flop() const {
  double tokens = 0;
  for (int64_t list = 0; list < shape_.kv_heads * num_queries_; ++list) {
    const int64_t position = k_len() - num_queries_ + list % num_queries_;
    for (int64_t n = 0; n < shape_.top_k; ++n) {
      const int64_t id = ids_[static_cast<size_t>(list * shape_.top_k + n)];
      if (id < 0) break;
      tokens +=
          static_cast<double>(std::min(shape_.block_size, position + 1 - id * shape_.block_size));
    }
  }
  const int64_t group = shape_.q_heads / shape_.kv_heads;
  return 4.0 * static_cast<double>(group * shape_.head_dim) * tokens;
}

double Workload::dense_bytes() const {
  return 4.0 * static_cast<double>(k_len() * shape_.kv_heads * shape_.head_dim);
}

double Workload::index_bytes() const {
  return 2.0 * static_cast<double>(k_len() * shape_.head_dim);
}

double Workload::sparse_bytes() const {
  double blocks = 0;  // distinct blocks of each group
  for (int64_t h = 0; h < shape_.kv_heads; ++h) {
    const auto begin = ids_.begin() + h * num_queries_ * shape_.top_k;
    std::set<int32_t> distinct(begin, begin + num_queries_ * shape_.top_k);
    distinct.erase(-1);
    blocks += static_cast<double>(distinct.size());
  }
  return 4.0 * blocks * static_cast<double>(shape_.block_size * shape_.head_dim);
}

}  // namespace msa::bench
