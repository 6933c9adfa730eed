#include "library/cases.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <sys/mman.h>

#include <algorithm>
#include <limits>
#include <new>
#include <numeric>

#include "core/element.h"
#include "library/guarded.h"
#include "library/scratch.h"

namespace msa::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

int64_t pick(std::mt19937& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}
template <typename T>
T pick_of(std::mt19937& random, std::initializer_list<T> choices) {
  return *(choices.begin() + pick(random, 0, static_cast<int64_t>(choices.size()) - 1));
}

}  // namespace

std::string CaseSpec::describe() const {
  return fmt::format(
      "q {} kv {} {} layout {} ids {} Hkv {} G {} D {} Di {} B {} K {} q_lens [{}] k_lens [{}] "
      "padded {} gap {} shared {} magnitude {} seed {}",
      dtype_name(q_dtype), dtype_name(kv_dtype), paged ? "paged" : "packed",
      static_cast<int>(layout), static_cast<int>(id_layout), kv_heads, group, head_dim, index_dim,
      block_size, top_k, fmt::join(q_lens, ","), fmt::join(k_lens, ","), padded_rows, stride_gap,
      share_pages, magnitude, seed);
}

void Buffer::allocate(DType type, int64_t elements) {
  dtype = type;
  bytes.resize(static_cast<size_t>(elements) * dtype_bytes(type));
  for (int64_t n = 0; n < elements; ++n) set(n, kNaN);
}
float Buffer::get(int64_t offset) const { return core::load_element(bytes.data(), dtype, offset); }
void Buffer::set(int64_t offset, float value) {
  core::store_element(bytes.data(), dtype, offset, value);
}

Case::Case(const CaseSpec& spec_in) : spec(spec_in) {
  std::mt19937 random(spec.seed);
  cu_q_ = {0};
  cu_k_ = {0};
  for (size_t r = 0; r < spec.q_lens.size(); ++r) {
    cu_q_.push_back(cu_q_.back() + spec.q_lens[r]);
    cu_k_.push_back(cu_k_.back() + spec.k_lens[r]);
    kv_lens_.push_back(spec.k_lens[r]);
    max_blocks = std::max(max_blocks, (spec.k_lens[r] + spec.block_size - 1) / spec.block_size);
  }
  num_rows = cu_q_.back() + spec.padded_rows;
  make_queries(random, spec.kv_heads * spec.group, spec.head_dim, q_, q);
  make_queries(random, spec.kv_heads, spec.index_dim, q_idx_, q_idx);
  make_caches(random);
  const auto batch = static_cast<int64_t>(spec.q_lens.size());
  sequences.cu_seqlens_q = Tensor(cu_q_.data(), DType::kInt32, {batch + 1});
  if (spec.paged) {
    sequences.page_table = Tensor(page_table_.data(), DType::kInt32, {batch, max_pages_});
    sequences.kv_lens = Tensor(kv_lens_.data(), DType::kInt32, {batch});
  } else {
    sequences.cu_seqlens_k = Tensor(cu_k_.data(), DType::kInt32, {batch + 1});
  }
}

void Case::make_queries(std::mt19937& random, int64_t heads, int64_t dim, Buffer& buffer,
                        Tensor& view) {
  std::normal_distribution<float> normal(0, spec.magnitude);
  const int64_t head_stride = dim + spec.stride_gap;
  const int64_t token_stride = heads * head_stride + spec.stride_gap;
  buffer.allocate(spec.q_dtype, num_rows * token_stride + 1);
  for (int64_t t = 0; t < cu_q_.back(); ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t d = 0; d < dim; ++d) {
        buffer.set(t * token_stride + h * head_stride + d, normal(random));
      }
    }
  }
  view = Tensor(buffer.bytes.data(), spec.q_dtype, {num_rows, heads, dim},
                {token_stride, head_stride, 1});
}

void Case::make_caches(std::mt19937& random) {
  std::normal_distribution<float> normal(0, spec.magnitude);
  const int64_t heads = spec.kv_heads;
  const int64_t dim = spec.head_dim;
  const int64_t gap = spec.stride_gap;
  const auto batch = static_cast<int64_t>(spec.q_lens.size());
  // Outer axis: pages of B tokens, or all packed tokens as one page.
  num_pages_ = 1;
  int64_t page_tokens = cu_k_.back();
  if (spec.paged) {
    page_tokens = spec.block_size;
    max_pages_ = max_blocks + pick(random, 0, 2);
    num_pages_ = batch * max_pages_ + 1;
    std::vector<int32_t> order(static_cast<size_t>(num_pages_));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    page_table_.assign(static_cast<size_t>(batch * max_pages_), -77);  // unused: never read
    for (int64_t r = 0; r < batch; ++r) {
      const int64_t used =
          (spec.k_lens[static_cast<size_t>(r)] + spec.block_size - 1) / spec.block_size;
      for (int64_t slot = 0; slot < used; ++slot) {
        const bool shared = spec.share_pages && slot < used / 2;
        page_table_[static_cast<size_t>(r * max_pages_ + slot)] =
            order[static_cast<size_t>((shared ? 0 : r * max_pages_) + slot)];
      }
    }
  }
  const bool one = spec.layout == Layout::kOneAllocation;
  const int64_t vector = dim + gap;
  const bool head_major = spec.layout == Layout::kHeadMajor;
  const int64_t token_stride = head_major ? vector : heads * vector * (one && !spec.paged ? 2 : 1);
  const int64_t head_stride = head_major ? page_tokens * vector : vector;
  const int64_t page_elements = page_tokens * heads * vector + gap;
  const int64_t page_stride = page_elements * (one ? 2 : 1);
  const int64_t v_shift = !one ? 0 : (spec.paged ? page_elements : heads * vector);
  k_.allocate(spec.kv_dtype, num_pages_ * page_stride * (one ? 2 : 1) + 1);
  if (!one) v_.allocate(spec.kv_dtype, num_pages_ * page_stride + 1);
  const Buffer& v_home = one ? k_ : v_;
  const auto size = static_cast<int64_t>(dtype_bytes(spec.kv_dtype));
  const void* v_data = v_home.bytes.data() + v_shift * size;
  const int64_t index_token_stride = spec.index_dim + gap;
  const int64_t index_page_stride = page_tokens * index_token_stride + gap;
  k_idx_.allocate(spec.kv_dtype, num_pages_ * index_page_stride + 1);
  if (spec.paged) {
    k = Tensor(k_.bytes.data(), spec.kv_dtype, {num_pages_, page_tokens, heads, dim},
               {page_stride, token_stride, head_stride, 1});
    v = Tensor(v_data, spec.kv_dtype, {num_pages_, page_tokens, heads, dim},
               {page_stride, token_stride, head_stride, 1});
    k_idx = Tensor(k_idx_.bytes.data(), spec.kv_dtype, {num_pages_, page_tokens, spec.index_dim},
                   {index_page_stride, index_token_stride, 1});
  } else {
    k = Tensor(k_.bytes.data(), spec.kv_dtype, {page_tokens, heads, dim},
               {token_stride, head_stride, 1});
    v = Tensor(v_data, spec.kv_dtype, {page_tokens, heads, dim}, {token_stride, head_stride, 1});
    k_idx = Tensor(k_idx_.bytes.data(), spec.kv_dtype, {page_tokens, spec.index_dim},
                   {index_token_stride, 1});
  }
  for (int64_t r = 0; r < batch; ++r) {
    for (int64_t j = 0; j < spec.k_lens[static_cast<size_t>(r)]; ++j) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t d = 0; d < dim; ++d) {
          set_key(r, j, h, d, normal(random));
          set_value(r, j, h, d, normal(random) / spec.magnitude);
        }
      }
      for (int64_t d = 0; d < spec.index_dim; ++d) set_index_key(r, j, d, normal(random));
    }
  }
}

Case::Row Case::row(int64_t t) const {
  for (size_t r = 0; r < spec.q_lens.size(); ++r) {
    if (t >= cu_q_[r] && t < cu_q_[r + 1]) {
      return {static_cast<int64_t>(r), spec.k_lens[r] - spec.q_lens[r] + (t - cu_q_[r])};
    }
  }
  return {-1, -1};
}

int64_t Case::key_offset(const Tensor& keys, int64_t request, int64_t token, int64_t head) const {
  const auto axis = static_cast<size_t>(spec.paged ? 1 : 0);
  const int64_t head_stride = keys.rank == (spec.paged ? 4 : 3) ? keys.stride[axis + 1] : 0;
  if (!spec.paged) {
    return (cu_k_[static_cast<size_t>(request)] + token) * keys.stride[0] + head * head_stride;
  }
  const int64_t page =
      page_table_[static_cast<size_t>(request * max_pages_ + token / spec.block_size)];
  return page * keys.stride[0] + token % spec.block_size * keys.stride[1] + head * head_stride;
}

namespace {
std::vector<float> read_vector(const Tensor& tensor, int64_t offset, int64_t dim) {
  std::vector<float> values;
  for (int64_t d = 0; d < dim; ++d) {
    values.push_back(core::load_element(tensor.data, tensor.dtype, offset + d));
  }
  return values;
}
}  // namespace

std::vector<float> Case::query_vector(int64_t t, int64_t head) const {
  return read_vector(q, t * q.stride[0] + head * q.stride[1], spec.head_dim);
}
std::vector<float> Case::index_query_vector(int64_t t, int64_t head) const {
  return read_vector(q_idx, t * q_idx.stride[0] + head * q_idx.stride[1], spec.index_dim);
}
std::vector<float> Case::key_vector(int64_t request, int64_t token, int64_t head) const {
  return read_vector(k, key_offset(k, request, token, head), spec.head_dim);
}
std::vector<float> Case::index_key_vector(int64_t request, int64_t token) const {
  return read_vector(k_idx, key_offset(k_idx, request, token, 0), spec.index_dim);
}

std::vector<float> Case::value_vector(int64_t request, int64_t token, int64_t head) const {
  return read_vector(v, key_offset(v, request, token, head), spec.head_dim);
}

void Case::set_key(int64_t request, int64_t token, int64_t head, int64_t dim, float value) {
  k_.set(key_offset(k, request, token, head) + dim, value);
}
void Case::set_value(int64_t request, int64_t token, int64_t head, int64_t dim, float value) {
  // The strides of v are those of k; with one allocation only the start differs.
  Buffer& home = spec.layout == Layout::kOneAllocation ? k_ : v_;
  const int64_t shift = (static_cast<const uint8_t*>(v.data) - home.bytes.data()) /
                        static_cast<int64_t>(dtype_bytes(spec.kv_dtype));
  home.set(shift + key_offset(v, request, token, head) + dim, value);
}
void Case::set_index_key(int64_t request, int64_t token, int64_t dim, float value) {
  k_idx_.set(key_offset(k_idx, request, token, 0) + dim, value);
}

void Case::set_query(int64_t t, int64_t head, int64_t dim, float value) {
  q_.set(t * q.stride[0] + head * q.stride[1] + dim, value);
}
void Case::set_index_query(int64_t t, int64_t head, int64_t dim, float value) {
  q_idx_.set(t * q_idx.stride[0] + head * q_idx.stride[1] + dim, value);
}

void Case::copy_request(const Case& other, int64_t from, int64_t to) {
  const int64_t first_from = other.cu_q_[static_cast<size_t>(from)];
  const int64_t first_to = cu_q_[static_cast<size_t>(to)];
  for (int64_t t = 0; t < spec.q_lens[static_cast<size_t>(to)]; ++t) {
    for (int64_t h = 0; h < spec.kv_heads * spec.group; ++h) {
      const std::vector<float> vector = other.query_vector(first_from + t, h);
      for (int64_t d = 0; d < spec.head_dim; ++d) {
        set_query(first_to + t, h, d, vector[static_cast<size_t>(d)]);
      }
    }
    for (int64_t h = 0; h < spec.kv_heads; ++h) {
      const std::vector<float> vector = other.index_query_vector(first_from + t, h);
      for (int64_t d = 0; d < spec.index_dim; ++d) {
        set_index_query(first_to + t, h, d, vector[static_cast<size_t>(d)]);
      }
    }
  }
  for (int64_t j = 0; j < spec.k_lens[static_cast<size_t>(to)]; ++j) {
    for (int64_t h = 0; h < spec.kv_heads; ++h) {
      const std::vector<float> key = other.key_vector(from, j, h);
      const std::vector<float> value = other.value_vector(from, j, h);
      for (int64_t d = 0; d < spec.head_dim; ++d) {
        set_key(to, j, h, d, key[static_cast<size_t>(d)]);
        set_value(to, j, h, d, value[static_cast<size_t>(d)]);
      }
    }
    const std::vector<float> key = other.index_key_vector(from, j);
    for (int64_t d = 0; d < spec.index_dim; ++d) {
      set_index_key(to, j, d, key[static_cast<size_t>(d)]);
    }
  }
}

SparseFloats::SparseFloats(int64_t count) : bytes_(static_cast<size_t>(count) * sizeof(float)) {
  void* const memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<float*>(memory);
}
SparseFloats::~SparseFloats() { munmap(data_, bytes_); }

CaseSpec random_spec(std::mt19937& random) {
  constexpr int64_t kMostMultiplications = 400'000;  // of a request
  CaseSpec spec;
  spec.seed = static_cast<uint32_t>(random());
  const auto float_types = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
  spec.q_dtype = pick_of(random, float_types);
  spec.kv_dtype = pick_of(random, float_types);
  spec.paged = pick(random, 0, 1) == 1;
  spec.layout = static_cast<Layout>(pick(random, 0, kNumLayouts - 1));
  spec.id_layout = static_cast<BlockIdLayout>(pick(random, 0, 1));
  spec.kv_heads = pick_of<int64_t>(random, {1, 1, 2, 3, 4});
  spec.group = pick_of<int64_t>(random, {1, 2, 3, 4, 8, 16});
  spec.head_dim = pick_of<int64_t>(random, {8, 16, 24, 40, 64, 72, 128});
  spec.index_dim = pick_of<int64_t>(random, {8, 16, 32, 56, 64, 128});
  spec.block_size = pick_of<int64_t>(random, {1, 2, 3, 5, 8, 16, 17, 31, 32, 48, 64});
  spec.top_k = pick_of<int64_t>(random, {1, 2, 3, 4, 5, 7, 8, 16});
  spec.padded_rows = pick(random, 0, 3) == 0 ? pick(random, 1, 5) : 0;
  spec.stride_gap = pick(random, 0, 2) == 0 ? 0 : pick(random, 1, 9);
  spec.share_pages = pick(random, 0, 3) == 0;
  spec.magnitude = pick_of<float>(random, {0.5f, 1.0f, 1.5f});
  const bool many_blocks = pick(random, 0, 9) < 6;  // more visible blocks than K for some row
  const bool aligned = pick(random, 0, 3) == 0;
  const bool long_decode = pick(random, 0, 19) == 0;  // long enough to be split
  if (long_decode) {
    spec.group = std::min<int64_t>(spec.group, 4);
    spec.kv_heads = std::min<int64_t>(spec.kv_heads, 2);
    spec.head_dim = std::min<int64_t>(spec.head_dim, 64);
  }
  const int64_t requests = long_decode ? 1 : pick(random, 1, 4);
  for (int64_t r = 0; r < requests; ++r) {
    int64_t q_len = pick_of<int64_t>(random, {0, 1, 1, 2, 5, 16, 17, 23, 33});
    int64_t k_len = many_blocks ? spec.block_size * (spec.top_k + 1) + pick(random, 1, 60)
                                : pick(random, 0, spec.block_size * spec.top_k);
    k_len = std::min<int64_t>(k_len, 330 + pick(random, 0, 40));
    if (long_decode) {
      q_len = pick(random, 1, 3);
      k_len = pick(random, 1025, 4000);
    }
    if (aligned) k_len = k_len / spec.block_size * spec.block_size;
    // The reference multiplies two vectors for each row, head and key: keep that in bounds.
    const int64_t row_cost =
        std::max<int64_t>(1, k_len) * spec.kv_heads * spec.group * spec.head_dim;
    q_len = std::min(q_len, std::max<int64_t>(1, kMostMultiplications / row_cost));
    if (pick(random, 0, 7) != 0) k_len = std::max(k_len, q_len);  // else rows before position 0
    spec.q_lens.push_back(static_cast<int32_t>(q_len));
    spec.k_lens.push_back(static_cast<int32_t>(k_len));
  }
  return spec;
}

IndexResult run_index(const Context& context, const Case& batch, const IndexOptions& options) {
  const CaseSpec& spec = batch.spec;
  const bool head_major = spec.id_layout == BlockIdLayout::kHeadMajor;
  const int64_t heads = spec.kv_heads;
  Guarded ids(DType::kInt32, head_major ? heads : batch.num_rows,
              head_major ? batch.num_rows : heads, spec.top_k);
  Guarded scores(DType::kFloat32, heads, batch.num_rows, batch.max_blocks);
  std::vector<float> lse(static_cast<size_t>(heads * batch.num_rows), 77.0f);
  IndexForwardArgs args;
  args.q_idx = batch.q_idx;
  args.k_idx = batch.k_idx;
  args.sequences = batch.sequences;
  args.block_size = spec.block_size;
  args.block_id_layout = spec.id_layout;
  if (options.ids) args.block_ids = ids.view;
  if (options.scores) args.block_scores = scores.view;
  if (options.lse)
    args.lse_idx = MutableTensor(lse.data(), DType::kFloat32, {heads, batch.num_rows});
  args.lse_scope = options.scope;
  const Scratch workspace(index_forward_workspace_size(context, args));
  index_forward(context, args, workspace.view());
  EXPECT_TRUE(ids.guards_intact() && scores.guards_intact()) << spec.describe();

  IndexResult result;
  for (int64_t h = 0; options.ids && h < heads; ++h) {
    for (int64_t t = 0; t < batch.num_rows; ++t) {
      const int64_t row = head_major ? h * batch.num_rows + t : t * heads + h;
      const auto* from = reinterpret_cast<const int32_t*>(ids.buffer.bytes.data()) +
                         row * (spec.top_k + Guarded::kGap);
      result.ids.insert(result.ids.end(), from, from + spec.top_k);
    }
  }
  if (options.scores) result.scores = scores.floats();
  if (options.lse) result.lse = lse;
  return result;
}

AttentionResult run_attention(const Context& context, const Case& batch,
                              const std::vector<int32_t>* ids) {
  const CaseSpec& spec = batch.spec;
  const int64_t heads = spec.kv_heads * spec.group;
  Guarded out(spec.q_dtype, batch.num_rows, heads, spec.head_dim);
  AttentionResult result;
  result.lse.assign(static_cast<size_t>(batch.num_rows * heads), 77.0f);
  const MutableTensor lse(result.lse.data(), DType::kFloat32, {batch.num_rows, heads});
  if (ids == nullptr) {
    DenseAttentionForwardArgs args;
    args.q = batch.q;
    args.k = batch.k;
    args.v = batch.v;
    args.sequences = batch.sequences;
    args.out = out.view;
    args.lse = lse;
    const Scratch workspace(dense_attention_forward_workspace_size(context, args));
    dense_attention_forward(context, args, workspace.view());
  } else {
    const auto count = static_cast<int64_t>(ids->size());
    const int64_t lists = spec.kv_heads * batch.num_rows;
    const int64_t width = lists == 0 ? 0 : count / lists;
    std::vector<int32_t> ordered = *ids;
    const bool head_major = spec.id_layout == BlockIdLayout::kHeadMajor;
    if (!head_major) {
      for (int64_t h = 0; h < spec.kv_heads; ++h) {
        for (int64_t t = 0; t < batch.num_rows; ++t) {
          std::copy_n(ids->begin() + (h * batch.num_rows + t) * width, width,
                      ordered.begin() + (t * spec.kv_heads + h) * width);
        }
      }
    }
    AttentionForwardArgs args;
    args.q = batch.q;
    args.k = batch.k;
    args.v = batch.v;
    args.sequences = batch.sequences;
    args.block_size = spec.block_size;
    args.block_ids = Tensor(ordered.data(), DType::kInt32,
                            {head_major ? spec.kv_heads : batch.num_rows,
                             head_major ? batch.num_rows : spec.kv_heads, width});
    args.block_id_layout = spec.id_layout;
    args.out = out.view;
    args.lse = lse;
    const Scratch workspace(attention_forward_workspace_size(context, args));
    attention_forward(context, args, workspace.view());
  }
  EXPECT_TRUE(out.guards_intact()) << spec.describe();
  result.out = out.floats();
  return result;
}

}  // namespace msa::test
