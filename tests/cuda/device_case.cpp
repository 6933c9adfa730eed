#include "cuda/device_case.h"

#include "core/element.h"

namespace msa::test {
namespace {

int32_t host_int(const Tensor& view, int64_t index) {
  return static_cast<const int32_t*>(view.data)[index];
}

/// Rows [begin, begin + count) of the first axis.
Tensor rows_of(Tensor view, int64_t begin, int64_t count) {
  view.data = static_cast<const uint8_t*>(view.data) +
              begin * view.stride[0] * static_cast<int64_t>(dtype_bytes(view.dtype));
  view.shape[0] = count;
  return view;
}

/// An output on the device with a guard gap behind every row of its last axis.
struct DeviceOutput {
  int64_t gap;
  int64_t rows;
  int64_t width;
  DType dtype;
  DeviceMemory memory;
  MutableTensor view;

  DeviceOutput(DType type, int64_t a, int64_t b, int64_t c, bool swapped = false)
      : gap(type == DType::kFloat32 || type == DType::kInt32 ? 3 : 6),
        rows(a * b),
        width(c),
        dtype(type),
        memory(static_cast<size_t>(a * b * (c + gap)) * dtype_bytes(type), 0xAB) {
    const int64_t row = c + gap;
    view = swapped ? MutableTensor(memory.data(), type, {b, a, c}, {row, b * row, 1})
                   : MutableTensor(memory.data(), type, {a, b, c}, {b * row, row, 1});
  }
  /// The rows in [a, b] order, as raw elements; false when a guard was written.
  bool fetch(std::vector<uint8_t>* bytes) const {
    const auto size = static_cast<int64_t>(dtype_bytes(dtype));
    const auto raw = memory.download<uint8_t>(static_cast<size_t>(rows * (width + gap) * size));
    bool intact = true;
    for (int64_t row = 0; row < rows; ++row) {
      const auto* from = raw.data() + row * (width + gap) * size;
      bytes->insert(bytes->end(), from, from + width * size);
      for (int64_t n = width * size; n < (width + gap) * size; ++n)
        intact = intact && from[n] == 0xAB;
    }
    return intact;
  }
  std::vector<float> floats() const {
    std::vector<uint8_t> bytes;
    if (!fetch(&bytes)) throw Error(ErrorCode::kInternal, "[test] a guard element was overwritten");
    std::vector<float> values;
    for (int64_t n = 0; n < rows * width; ++n) {
      values.push_back(core::load_element(bytes.data(), dtype, n));
    }
    return values;
  }
  std::vector<int32_t> ints() const {
    std::vector<uint8_t> bytes;
    if (!fetch(&bytes)) throw Error(ErrorCode::kInternal, "[test] a guard element was overwritten");
    std::vector<int32_t> values(static_cast<size_t>(rows * width));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<uint8_t*>(values.data()));
    return values;
  }
};

}  // namespace

Tensor DeviceCase::upload(const Tensor& view) {
  int64_t elements = 1;
  for (int axis = 0; axis < view.rank; ++axis) {
    const auto a = static_cast<size_t>(axis);
    if (view.shape[a] == 0) elements = 0;
    if (elements > 0) elements += (view.shape[a] - 1) * view.stride[a];
  }
  const size_t bytes = static_cast<size_t>(elements) * dtype_bytes(view.dtype);
  memory_.push_back(std::make_unique<DeviceMemory>(bytes));
  if (bytes > 0) memory_.back()->upload(view.data, bytes);
  Tensor result = view;
  result.data = memory_.back()->data();
  return result;
}

DeviceCase::DeviceCase(const Case& batch, int64_t only) : batch_(batch) {
  num_rows = batch.num_rows;
  Tensor q = batch.q;
  Tensor q_idx = batch.q_idx;
  Tensor k = batch.k;
  Tensor v = batch.v;
  Tensor k_idx = batch.k_idx;
  Sequences sequences = batch.sequences;
  std::vector<int32_t> cu_q, cu_k;
  if (only >= 0) {
    first_row = host_int(sequences.cu_seqlens_q, only);
    num_rows = host_int(sequences.cu_seqlens_q, only + 1) - first_row;
    q = rows_of(q, first_row, num_rows);
    q_idx = rows_of(q_idx, first_row, num_rows);
    cu_q = {0, static_cast<int32_t>(num_rows)};
    sequences.cu_seqlens_q = Tensor(cu_q.data(), DType::kInt32, {2});
    if (batch.spec.paged) {
      sequences.page_table = rows_of(sequences.page_table, only, 1);
      sequences.kv_lens = rows_of(sequences.kv_lens, only, 1);
    } else {
      const int64_t begin = host_int(sequences.cu_seqlens_k, only);
      const int64_t count = host_int(sequences.cu_seqlens_k, only + 1) - begin;
      k = rows_of(k, begin, count);
      v = rows_of(v, begin, count);
      k_idx = rows_of(k_idx, begin, count);
      cu_k = {0, static_cast<int32_t>(count)};
      sequences.cu_seqlens_k = Tensor(cu_k.data(), DType::kInt32, {2});
    }
  }
  q_ = upload(q);
  k_ = upload(k);
  v_ = upload(v);
  q_idx_ = upload(q_idx);
  k_idx_ = upload(k_idx);
  sequences_.cu_seqlens_q = upload(sequences.cu_seqlens_q);
  if (batch.spec.paged) {
    sequences_.page_table = upload(sequences.page_table);
    sequences_.kv_lens = upload(sequences.kv_lens);
  } else {
    sequences_.cu_seqlens_k = upload(sequences.cu_seqlens_k);
  }
}

IndexResult DeviceCase::run_index(const Context& context, const IndexOptions& options) const {
  const CaseSpec& spec = batch_.spec;
  const bool token_major = spec.id_layout == BlockIdLayout::kTokenMajor;
  const DeviceOutput ids(DType::kInt32, spec.kv_heads, num_rows, spec.top_k, token_major);
  const DeviceOutput scores(DType::kFloat32, spec.kv_heads, num_rows, batch_.max_blocks);
  const DeviceOutput lse(DType::kFloat32, 1, spec.kv_heads, num_rows);
  IndexForwardArgs args;
  args.q_idx = q_idx_;
  args.k_idx = k_idx_;
  args.sequences = sequences_;
  args.block_size = spec.block_size;
  args.block_id_layout = spec.id_layout;
  if (options.ids) args.block_ids = ids.view;
  if (options.scores) args.block_scores = scores.view;
  if (options.lse) {
    args.lse_idx = MutableTensor(lse.view.data, DType::kFloat32, {spec.kv_heads, num_rows},
                                 {lse.view.stride[1], 1});
  }
  args.lse_scope = options.scope;
  args.max_query_length = max_query_length;
  const size_t bytes = index_forward_workspace_size(context, args);
  const DeviceMemory workspace(bytes);
  index_forward(context, args, {workspace.data(), bytes});
  cuda::check_cuda("index_forward", cudaDeviceSynchronize());
  IndexResult result;
  if (options.ids) result.ids = ids.ints();
  if (options.scores) result.scores = scores.floats();
  if (options.lse) result.lse = lse.floats();
  return result;
}

AttentionResult DeviceCase::run_attention(const Context& context,
                                          const std::vector<int32_t>& ids) const {
  const CaseSpec& spec = batch_.spec;
  const int64_t q_heads = spec.kv_heads * spec.group;
  const int64_t width =  // of each list, also when there is no row
      num_rows == 0 ? spec.top_k : static_cast<int64_t>(ids.size()) / (spec.kv_heads * num_rows);
  const bool token_major = spec.id_layout == BlockIdLayout::kTokenMajor;
  std::vector<int32_t> stored = ids;  // [heads, rows, width] or [rows, heads, width]
  if (token_major) {
    for (int64_t list = 0; list < spec.kv_heads * num_rows; ++list) {
      const int64_t to = list % num_rows * spec.kv_heads + list / num_rows;
      std::copy_n(ids.begin() + list * width, width, stored.begin() + to * width);
    }
  }
  DeviceMemory id_memory(ids.size() * sizeof(int32_t));
  if (!ids.empty()) id_memory.upload(stored.data(), ids.size() * sizeof(int32_t));
  const DeviceOutput out(spec.q_dtype, num_rows, q_heads, spec.head_dim);
  const DeviceOutput lse(DType::kFloat32, 1, num_rows, q_heads);
  AttentionForwardArgs args;
  args.q = q_;
  args.k = k_;
  args.v = v_;
  args.sequences = sequences_;
  args.block_size = spec.block_size;
  args.block_id_layout = spec.id_layout;
  args.block_ids = token_major
                       ? Tensor(id_memory.data(), DType::kInt32, {num_rows, spec.kv_heads, width})
                       : Tensor(id_memory.data(), DType::kInt32, {spec.kv_heads, num_rows, width});
  args.out = out.view;
  args.lse =
      MutableTensor(lse.view.data, DType::kFloat32, {num_rows, q_heads}, {lse.view.stride[1], 1});
  args.max_query_length = max_query_length;
  const size_t bytes = attention_forward_workspace_size(context, args);
  const DeviceMemory workspace(bytes);
  attention_forward(context, args, {workspace.data(), bytes});
  cuda::check_cuda("attention_forward", cudaDeviceSynchronize());
  return {out.floats(), lse.floats()};
}

void DeviceCase::fill(AttentionBackwardArgs& args) const {
  args.q = q_;
  args.k = k_;
  args.v = v_;
  args.sequences = sequences_;
}

AttentionResult DeviceCase::run_dense(const Context& context) const {
  const CaseSpec& spec = batch_.spec;
  const int64_t q_heads = spec.kv_heads * spec.group;
  const DeviceOutput out(spec.q_dtype, num_rows, q_heads, spec.head_dim);
  const DeviceOutput lse(DType::kFloat32, 1, num_rows, q_heads);
  DenseAttentionForwardArgs args;
  args.q = q_;
  args.k = k_;
  args.v = v_;
  args.sequences = sequences_;
  args.out = out.view;
  args.lse =
      MutableTensor(lse.view.data, DType::kFloat32, {num_rows, q_heads}, {lse.view.stride[1], 1});
  args.max_query_length = max_query_length;
  const size_t bytes = dense_attention_forward_workspace_size(context, args);
  const DeviceMemory workspace(bytes);
  dense_attention_forward(context, args, {workspace.data(), bytes});
  cuda::check_cuda("dense_attention_forward", cudaDeviceSynchronize());
  return {out.floats(), lse.floats()};
}

}  // namespace msa::test
