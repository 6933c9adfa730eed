// One batch for all ops, with everything that can be asked of the layout: packed or paged caches,
// orders of axes, gaps in the strides, permuted and shared pages, mixed lengths, padded rows. All
// memory that no visible token occupies holds NaN.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "msa/msa.h"

namespace msa::test {

enum class Layout { kTokenMajor, kHeadMajor, kOneAllocation };  // NHD, HND, K beside V
inline constexpr int kNumLayouts = 3;

struct CaseSpec {
  DType q_dtype = DType::kFloat32;
  DType kv_dtype = DType::kFloat32;
  bool paged = false;
  Layout layout = Layout::kTokenMajor;
  BlockIdLayout id_layout = BlockIdLayout::kHeadMajor;
  int64_t kv_heads = 1;
  int64_t group = 1;
  int64_t head_dim = 16;
  int64_t index_dim = 16;
  int64_t block_size = 8;
  int64_t top_k = 2;
  std::vector<int32_t> q_lens;
  std::vector<int32_t> k_lens;
  int64_t padded_rows = 0;   // rows past the last request
  int64_t stride_gap = 0;    // elements between vectors; multiples of nothing in particular
  bool share_pages = false;  // the first pages of all requests are the same
  float magnitude = 1;       // of queries and keys
  uint32_t seed = 1;

  std::string describe() const;
};

/// Memory of a strided tensor.
struct Buffer {
  std::vector<uint8_t> bytes;
  DType dtype = DType::kFloat32;

  void allocate(DType type, int64_t elements);  // filled with NaN
  float get(int64_t offset) const;
  void set(int64_t offset, float value);
};

/// Floats in address space without memory: only what is written takes any.
class SparseFloats {
 public:
  explicit SparseFloats(int64_t count);
  ~SparseFloats();
  SparseFloats(const SparseFloats&) = delete;
  SparseFloats& operator=(const SparseFloats&) = delete;
  float* data() const { return data_; }

 private:
  float* data_;
  size_t bytes_;
};

/// The inputs of a batch. Views point into the buffers: not copyable.
class Case {
 public:
  explicit Case(const CaseSpec& spec);
  Case(const Case&) = delete;
  Case& operator=(const Case&) = delete;

  const CaseSpec spec;
  int64_t num_rows = 0;  // Tq
  int64_t max_blocks = 1;
  Tensor q, k, v, q_idx, k_idx;
  Sequences sequences;

  struct Row {
    int64_t request;
    int64_t position;  // below 0: empty
  };
  Row row(int64_t t) const;
  /// The vectors behind a row or a token, as floats.
  std::vector<float> query_vector(int64_t t, int64_t head) const;
  std::vector<float> index_query_vector(int64_t t, int64_t head) const;
  std::vector<float> key_vector(int64_t request, int64_t token, int64_t head) const;
  std::vector<float> index_key_vector(int64_t request, int64_t token) const;
  std::vector<float> value_vector(int64_t request, int64_t token, int64_t head) const;

  /// For hostile cases: overwrites one element of a key, a value or an index key.
  void set_key(int64_t request, int64_t token, int64_t head, int64_t dim, float value);
  void set_value(int64_t request, int64_t token, int64_t head, int64_t dim, float value);
  void set_index_key(int64_t request, int64_t token, int64_t dim, float value);
  void set_query(int64_t t, int64_t head, int64_t dim, float value);
  void set_index_query(int64_t t, int64_t head, int64_t dim, float value);
  /// Gives request `to` all the numbers of another case's request `from` of the same lengths.
  void copy_request(const Case& other, int64_t from, int64_t to);

 private:
  int64_t key_offset(const Tensor& keys, int64_t request, int64_t token, int64_t head) const;
  void make_queries(std::mt19937& random, int64_t heads, int64_t dim, Buffer& buffer, Tensor& view);
  void make_caches(std::mt19937& random);

  std::vector<int32_t> cu_q_, cu_k_, kv_lens_, page_table_;
  int64_t max_pages_ = 0;
  int64_t num_pages_ = 0;
  Buffer q_, k_, v_, q_idx_, k_idx_;  // with kOneAllocation v lies in k_
};

/// A random case; small enough for the reference.
CaseSpec random_spec(std::mt19937& random);

// ---- Runs: fresh outputs, poisoned beforehand; guard elements around every row are checked. ----

struct IndexResult {
  std::vector<int32_t> ids;   // [Hkv, Tq, K]
  std::vector<float> scores;  // [Hkv, Tq, max_blocks]
  std::vector<float> lse;     // [Hkv, Tq]
};
struct IndexOptions {
  bool ids = true;
  bool scores = true;
  bool lse = true;
  IndexLseScope scope = IndexLseScope::kSelected;
};
IndexResult run_index(const Context& context, const Case& batch, const IndexOptions& options = {});

struct AttentionResult {
  std::vector<float> out;  // [Tq, Hq, D], as floats
  std::vector<float> lse;  // [Tq, Hq]
};
/// Sparse with ids [Hkv, Tq, K'] in head-major order, dense without.
AttentionResult run_attention(const Context& context, const Case& batch,
                              const std::vector<int32_t>* ids);

}  // namespace msa::test
