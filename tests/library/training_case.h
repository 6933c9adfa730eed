// A packed batch in double for the training ops, and one call of them on a backend in any storage
// type.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "library/cases.h"
#include "library/scratch.h"

namespace msa::test {

using Doubles = std::vector<double>;
using Floats = std::vector<float>;

/// A batch of packed float32 tensors, with everything that the ops read and write.
struct Batch {
  int64_t heads = 2, group = 2, dim, index_dim, block_size = 4, top_k = 2;
  std::vector<int32_t> cu_q, cu_k;
  int64_t rows = 0, keys = 0;  // with padding
  Doubles q, k, v, q_idx, k_idx, dout, dlse;
  std::vector<int32_t> ids;  // [Hkv, Tq, K]
  double scale = 0.7, scale_idx = 1.3, coefficient = 2.5, normaliser = 13;

  int64_t q_heads() const { return heads * group; }

  Batch(const std::vector<int32_t>& q_lens, const std::vector<int32_t>& k_lens, int64_t padding,
        int64_t head_dim = 4, int64_t index_head_dim = 3)
      : dim(head_dim), index_dim(index_head_dim) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal(0, 1);
    cu_q = {0};
    cu_k = {0};
    for (const int32_t length : q_lens) cu_q.push_back(cu_q.back() + length);
    for (const int32_t length : k_lens) cu_k.push_back(cu_k.back() + length);
    rows = cu_q.back() + padding;
    keys = cu_k.back() + padding;
    const auto fill = [&](Doubles& to, int64_t count) {
      for (int64_t n = 0; n < count; ++n) to.push_back(static_cast<double>(normal(random)));
    };
    fill(q, rows * q_heads() * dim);
    fill(k, keys * heads * dim);
    fill(v, keys * heads * dim);
    fill(q_idx, rows * heads * index_dim);
    fill(k_idx, keys * index_dim);
    fill(dout, rows * q_heads() * dim);
    fill(dlse, rows * q_heads());
    for (int64_t n = 0; n < heads * rows; ++n) {  // any blocks, in any order, local or not
      for (int64_t place = 0; place < top_k; ++place) {
        ids.push_back(static_cast<int32_t>(random() % 4) - (place > 0 ? 1 : 0));
      }
    }
  }
  /// Request and position of a row; -1 for padding.
  std::pair<int64_t, int64_t> place(int64_t t) const {
    for (size_t r = 0; r + 1 < cu_q.size(); ++r) {
      if (t >= cu_q[r] && t < cu_q[r + 1]) {
        return {static_cast<int64_t>(r), cu_k[r + 1] - cu_k[r] - cu_q[r + 1] + t};
      }
    }
    return {-1, -1};
  }
  /// Packed keys that row t of group g reads.
  std::vector<int64_t> reads(int64_t t, int64_t g, bool dense) const {
    std::vector<int64_t> tokens;
    const auto [request, position] = place(t);
    std::set<int32_t> chosen;
    for (int64_t n = 0; n < top_k; ++n) {
      const int32_t id = ids[static_cast<size_t>((g * rows + t) * top_k + n)];
      if (id == -1) break;
      chosen.insert(id);
    }
    for (int64_t j = 0; j <= position; ++j) {
      if (dense || chosen.count(static_cast<int32_t>(j / block_size)) > 0) {
        tokens.push_back(cu_k[static_cast<size_t>(request)] + j);
      }
    }
    return tokens;
  }
};

inline double product(const Doubles& a, int64_t a_row, const Doubles& b, int64_t b_row,
                      int64_t dim) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) {
    sum += a[static_cast<size_t>(a_row * dim + d)] * b[static_cast<size_t>(b_row * dim + d)];
  }
  return sum;
}

inline double log_sum_exp(const Doubles& logits) {
  double sum = 0;
  const double largest = *std::max_element(logits.begin(), logits.end());
  for (const double logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

/// Tensors of a batch in a storage type, and the results.
class Call {
 public:
  explicit Call(const Batch& batch, DType dtype = DType::kFloat32,
                Backend backend = Backend::kReference)
      : context{{.backend = backend, .num_threads = 2}}, batch_(batch), dtype_(dtype) {
    store(q_, batch.q);
    store(k_, batch.k);
    store(v_, batch.v);
    store(q_idx_, batch.q_idx);
    store(k_idx_, batch.k_idx);
    store(dout_, batch.dout);
    for (const double value : batch.dlse) dlse.push_back(static_cast<float>(value));
    sequences.cu_seqlens_q =
        Tensor(batch.cu_q.data(), DType::kInt32, {static_cast<int64_t>(batch.cu_q.size())});
    sequences.cu_seqlens_k =
        Tensor(batch.cu_k.data(), DType::kInt32, {static_cast<int64_t>(batch.cu_k.size())});
    const int64_t heads = batch.q_heads();
    for (Buffer* buffer : {&out_, &dq_}) buffer->allocate(dtype, batch.rows * heads * batch.dim);
    for (Buffer* buffer : {&dk_, &dv_}) {
      buffer->allocate(dtype, batch.keys * batch.heads * batch.dim);
    }
    dq_idx_.allocate(dtype, batch.rows * batch.heads * batch.index_dim);
    dk_idx_.allocate(dtype, batch.keys * batch.index_dim);
    lse.assign(static_cast<size_t>(batch.rows * heads), std::numeric_limits<float>::quiet_NaN());
    lse_idx.assign(static_cast<size_t>(batch.rows * batch.heads),
                   std::numeric_limits<float>::quiet_NaN());
  }

  /// Out and lse over the listed blocks, or over all visible tokens.
  void forward(bool dense) {
    if (dense) {
      DenseAttentionForwardArgs args;
      fill(args);
      args.out = view(out_, batch_.rows, batch_.q_heads(), batch_.dim);
      args.lse = mutable_lse();
      dense_attention_forward(
          context, args, Scratch(dense_attention_forward_workspace_size(context, args)).view());
    } else {
      AttentionForwardArgs args;
      fill(args);
      fill_ids(args);
      args.out = view(out_, batch_.rows, batch_.q_heads(), batch_.dim);
      args.lse = mutable_lse();
      attention_forward(context, args,
                        Scratch(attention_forward_workspace_size(context, args)).view());
    }
  }
  void backward(bool dense, bool with_dlse) {
    const auto fill_all = [&](auto& args) {
      fill(args);
      args.out = view(out_, batch_.rows, batch_.q_heads(), batch_.dim);
      args.lse = mutable_lse();
      args.dout = view(dout_, batch_.rows, batch_.q_heads(), batch_.dim);
      if (with_dlse) {
        args.dlse = Tensor(dlse.data(), DType::kFloat32, {batch_.rows, batch_.q_heads()});
      }
      args.dq = view(dq_, batch_.rows, batch_.q_heads(), batch_.dim);
      args.dk = view(dk_, batch_.keys, batch_.heads, batch_.dim);
      args.dv = view(dv_, batch_.keys, batch_.heads, batch_.dim);
    };
    if (dense) {
      DenseAttentionBackwardArgs args;
      fill_all(args);
      dense_attention_backward(
          context, args, Scratch(dense_attention_backward_workspace_size(context, args)).view());
    } else {
      AttentionBackwardArgs args;
      fill_all(args);
      fill_ids(args);
      attention_backward(context, args,
                         Scratch(attention_backward_workspace_size(context, args)).view());
    }
  }
  KlForwardBackwardArgs kl_args(bool dense) {
    KlForwardBackwardArgs args;
    args.q = view(q_, batch_.rows, batch_.q_heads(), batch_.dim);
    args.k = view(k_, batch_.keys, batch_.heads, batch_.dim);
    args.lse = mutable_lse();
    args.q_idx = view(q_idx_, batch_.rows, batch_.heads, batch_.index_dim);
    args.k_idx = Tensor(k_idx_.bytes.data(), dtype_, {batch_.keys, batch_.index_dim});
    args.lse_idx = Tensor(lse_idx.data(), DType::kFloat32, {batch_.heads, batch_.rows});
    args.sequences = sequences;
    args.scale = static_cast<float>(batch_.scale);
    args.scale_idx = static_cast<float>(batch_.scale_idx);
    args.scope = dense ? KlScope::kVisible : KlScope::kSelected;
    if (!dense) fill_ids(args);
    args.coefficient = static_cast<float>(batch_.coefficient);
    args.normaliser = batch_.normaliser;
    args.loss = {&loss, DType::kFloat32, {1}};
    args.dq_idx = view(dq_idx_, batch_.rows, batch_.heads, batch_.index_dim);
    args.dk_idx = {dk_idx_.bytes.data(), dtype_, {batch_.keys, batch_.index_dim}};
    return args;
  }
  void kl(bool dense) {
    for (int64_t g = 0; g < batch_.heads; ++g) {
      for (int64_t t = 0; t < batch_.rows; ++t) {
        Doubles scores;
        for (const int64_t j : batch_.reads(t, g, dense)) {
          scores.push_back(batch_.scale_idx * product(batch_.q_idx, t * batch_.heads + g,
                                                      batch_.k_idx, j, batch_.index_dim));
        }
        lse_idx[static_cast<size_t>(g * batch_.rows + t)] =
            scores.empty() ? -std::numeric_limits<float>::infinity()
                           : static_cast<float>(log_sum_exp(scores));
      }
    }
    const KlForwardBackwardArgs args = kl_args(dense);
    kl_forward_backward(context, args,
                        Scratch(kl_forward_backward_workspace_size(context, args)).view());
  }

  static Floats floats(const Buffer& buffer) {
    Floats values;
    const auto count = static_cast<int64_t>(buffer.bytes.size() / dtype_bytes(buffer.dtype));
    for (int64_t n = 0; n < count; ++n) values.push_back(buffer.get(n));
    return values;
  }
  Floats dq() const { return floats(dq_); }
  Floats dk() const { return floats(dk_); }
  Floats dv() const { return floats(dv_); }
  Floats dq_idx() const { return floats(dq_idx_); }
  Floats dk_idx() const { return floats(dk_idx_); }

  const Context context;
  Floats lse, lse_idx, dlse;
  float loss = std::numeric_limits<float>::quiet_NaN();
  Sequences sequences;

 private:
  void store(Buffer& buffer, const Doubles& values) const {
    buffer.allocate(dtype_, static_cast<int64_t>(values.size()));
    for (size_t n = 0; n < values.size(); ++n) {
      buffer.set(static_cast<int64_t>(n), static_cast<float>(values[n]));
    }
  }
  MutableTensor view(Buffer& buffer, int64_t a, int64_t b, int64_t c) const {
    return {buffer.bytes.data(), dtype_, {a, b, c}};
  }
  MutableTensor mutable_lse() {
    return {lse.data(), DType::kFloat32, {batch_.rows, batch_.q_heads()}};
  }
  template <typename Args>
  void fill(Args& args) {
    args.q = view(q_, batch_.rows, batch_.q_heads(), batch_.dim);
    args.k = view(k_, batch_.keys, batch_.heads, batch_.dim);
    args.v = view(v_, batch_.keys, batch_.heads, batch_.dim);
    args.sequences = sequences;
    args.scale = static_cast<float>(batch_.scale);
  }
  template <typename Args>
  void fill_ids(Args& args) const {
    args.block_size = batch_.block_size;
    args.block_ids =
        Tensor(batch_.ids.data(), DType::kInt32, {batch_.heads, batch_.rows, batch_.top_k});
  }

  const Batch& batch_;
  DType dtype_;
  Buffer q_, k_, v_, q_idx_, k_idx_, dout_, out_, dq_, dk_, dv_, dq_idx_, dk_idx_;
};

}  // namespace msa::test
