// Small valid geometries, and the views and arrays that belong to them.
#pragma once

#include <vector>

#include "fuzz/c_api_call.h"

namespace msa::fuzz {

struct Shape {
  int64_t kv_heads, group, dim, index_dim, block_size, top_k;
  std::vector<int64_t> q_lens, k_lens;
  int64_t num_queries = 0;  // Tq, with rows past the last request
  int64_t num_keys = 0;     // Tk
  int64_t num_pages = 0;
  int64_t max_pages = 0;
  bool paged, heads_first, token_major;
  msa_dtype q_dtype, k_dtype;

  Shape(ByteReader& bytes, bool may_page) {
    kv_heads = bytes.in_range(1, 3);
    group = bytes.in_range(1, 3);
    dim = bytes.one_in(8) ? bytes.in_range(1, 9) : 8 * bytes.in_range(1, 4);
    index_dim = bytes.one_in(8) ? bytes.in_range(1, 9) : 8 * bytes.in_range(1, 3);
    block_size = bytes.in_range(1, 9);
    top_k = bytes.in_range(1, 5);
    for (int64_t left = bytes.in_range(0, 3); left > 0; --left) {
      q_lens.push_back(bytes.in_range(0, bytes.one_in(8) ? 40 : 4));
      k_lens.push_back(bytes.in_range(0, bytes.one_in(8) ? 1300 : 30));
      num_queries += q_lens.back();
      num_keys += k_lens.back();
      max_pages = std::max(max_pages, (k_lens.back() + block_size - 1) / block_size);
    }
    num_queries += bytes.in_range(0, 2);
    num_keys += bytes.in_range(0, 2);
    num_pages = bytes.in_range(1, 6);
    paged = may_page && bytes.one_in(2);
    heads_first = bytes.one_in(2);
    token_major = bytes.one_in(2);
    q_dtype = static_cast<msa_dtype>(bytes.in_range(0, 2));
    k_dtype = static_cast<msa_dtype>(bytes.in_range(0, 2));
  }

  int64_t q_heads() const { return kv_heads * group; }

  /// [Tk, Hkv, D] or [num_pages, B, Hkv, D], with heads outside of tokens or inside.
  msa_tensor keys() const {
    const int64_t tokens = paged ? block_size : num_keys;
    const int64_t token_stride = heads_first ? dim : kv_heads * dim;
    const int64_t head_stride = heads_first ? tokens * dim : dim;
    if (!paged) {
      return {nullptr, k_dtype, 3, {tokens, kv_heads, dim, 0}, {token_stride, head_stride, 1, 0}};
    }
    return {nullptr,
            k_dtype,
            4,
            {num_pages, tokens, kv_heads, dim},
            {tokens * kv_heads * dim, token_stride, head_stride, 1}};
  }
  msa_tensor index_keys() const {
    return paged ? msa_tensor_3d(nullptr, k_dtype, num_pages, block_size, index_dim)
                 : msa_tensor_2d(nullptr, k_dtype, num_keys, index_dim);
  }
  msa_tensor queries() const {
    return msa_tensor_3d(nullptr, q_dtype, num_queries, q_heads(), dim);
  }
  msa_tensor index_queries() const {
    return msa_tensor_3d(nullptr, q_dtype, num_queries, kv_heads, index_dim);
  }
  msa_tensor ids() const {
    return token_major ? msa_tensor_3d(nullptr, MSA_INT32, num_queries, kv_heads, top_k)
                       : msa_tensor_3d(nullptr, MSA_INT32, kv_heads, num_queries, top_k);
  }
  msa_tensor lists(msa_dtype dtype) const {
    return msa_tensor_3d(nullptr, dtype, kv_heads, num_queries, top_k);
  }
  msa_tensor row_values(bool per_group) const {  // [Tq, Hq] or [Hkv, Tq]
    return per_group ? msa_tensor_2d(nullptr, MSA_FLOAT32, kv_heads, num_queries)
                     : msa_tensor_2d(nullptr, MSA_FLOAT32, num_queries, q_heads());
  }

  std::vector<int32_t> random_ids(ByteReader& bytes) const {
    std::vector<int32_t> ids;
    for (int64_t n = 0; n < std::min<int64_t>(64, num_queries * kv_heads * top_k); ++n) {
      ids.push_back(static_cast<int32_t>(bytes.in_range(-1, std::max<int64_t>(6, max_pages))));
    }
    return ids;
  }

  void add_sequences(Call& call, ByteReader& bytes, msa_sequences& sequences) const {
    const auto batch = static_cast<int64_t>(q_lens.size());
    const auto offsets = [](const std::vector<int64_t>& lengths) {
      std::vector<int32_t> sums = {0};
      for (const int64_t length : lengths) {
        sums.push_back(sums.back() + static_cast<int32_t>(length));
      }
      return sums;
    };
    sequences = {};
    sequences.cu_seqlens_q = msa_tensor_1d(nullptr, MSA_INT32, batch + 1);
    call.add(sequences.cu_seqlens_q, Content::kNumbers, offsets(q_lens));
    if (!paged) {
      sequences.cu_seqlens_k = msa_tensor_1d(nullptr, MSA_INT32, batch + 1);
      call.add(sequences.cu_seqlens_k, Content::kNumbers, offsets(k_lens));
      return;
    }
    sequences.page_table = msa_tensor_2d(nullptr, MSA_INT32, batch, max_pages);
    sequences.kv_lens = msa_tensor_1d(nullptr, MSA_INT32, batch);
    std::vector<int32_t> table;
    for (int64_t n = 0; n < batch * max_pages; ++n) {  // from the last page backwards
      table.push_back(
          static_cast<int32_t>(num_pages - 1 - (n + bytes.take<uint8_t>()) % num_pages));
    }
    call.add(sequences.page_table, Content::kNumbers, table);
    call.add(sequences.kv_lens, Content::kNumbers,
             std::vector<int32_t>(k_lens.begin(), k_lens.end()));
  }
};

}  // namespace msa::fuzz
