#include "cuda/layer.h"

#include <algorithm>
#include <numeric>

#include "cuda/host/device.h"
#include "cuda/random_fill.h"

namespace msa::bench {
namespace {

constexpr int64_t kHeads = 64;
constexpr int64_t kGroups = 4;
constexpr int64_t kDim = 128;
constexpr int64_t kBlock = 128;
constexpr int64_t kTopK = 16;
constexpr size_t kFlushBytes = size_t{256} << 20;  // several times the L2

void check(cudaError_t error) { cuda::check_cuda("bench", error); }

std::vector<int32_t> ends(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> result = {0};
  for (const int32_t length : lengths) result.push_back(result.back() + length);
  return result;
}

/// sum over rows of f(position + 1)
template <typename Function>
double over_rows(const Shape& shape, const Function& f) {
  double sum = 0;
  for (size_t r = 0; r < shape.q_lens.size(); ++r) {
    for (int32_t t = 0; t < shape.q_lens[r]; ++t) {
      sum += f(static_cast<double>(shape.k_lens[r] - shape.q_lens[r] + t + 1));
    }
  }
  return sum;
}

}  // namespace

double Shape::index_flop() const {
  return over_rows(*this, [](double keys) { return 2.0 * kGroups * kDim * keys; });
}
double Shape::attend_flop() const {
  return over_rows(*this, [](double keys) {
    return 4.0 * kHeads * kDim * std::min(keys, static_cast<double>(kTopK * kBlock));
  });
}
double Shape::backward_flop() const { return attend_flop() * 10 / 4; }
double Shape::bytes() const {
  const double rows = std::accumulate(q_lens.begin(), q_lens.end(), 0.0);
  const double keys = std::accumulate(k_lens.begin(), k_lens.end(), 0.0);
  return rows * (2 * kHeads * kDim * 2 + kGroups * kDim * 2 + kHeads * 4 + kGroups * kTopK * 4) +
         keys * (2 * kGroups * kDim * 2 + kDim * 2);
}

void* Layer::allocate(size_t bytes) {
  void* data = nullptr;
  check(cudaMalloc(&data, std::max<size_t>(bytes, 256)));
  memory_.push_back(data);
  return data;
}

Layer::Layer(const Context& context, const Shape& shape) : context_(context), shape_(shape) {
  const auto type = DType::kBFloat16;
  const std::vector<int32_t> q_ends = ends(shape.q_lens);
  const std::vector<int32_t> k_ends = ends(shape.k_lens);
  const int64_t rows = q_ends.back();
  const int64_t keys = k_ends.back();
  uint64_t seed = 1;
  const auto normal = [&](int64_t count) {
    void* data = allocate(static_cast<size_t>(count) * 2);
    test::fill_normal(data, type, count, seed++);
    return data;
  };
  const auto ints = [&](const std::vector<int32_t>& values) {
    void* data = allocate(values.size() * 4);
    check(cudaMemcpy(data, values.data(), values.size() * 4, cudaMemcpyHostToDevice));
    return Tensor(data, DType::kInt32, {static_cast<int64_t>(values.size())});
  };
  index_.sequences.cu_seqlens_q = ints(q_ends);
  index_.sequences.cu_seqlens_k = ints(k_ends);
  index_.q_idx = Tensor(normal(rows * kGroups * kDim), type, {rows, kGroups, kDim});
  index_.k_idx = Tensor(normal(keys * kDim), type, {keys, kDim});
  const auto id_count = static_cast<size_t>(rows * kGroups * kTopK);
  index_.block_ids = MutableTensor(allocate(id_count * 4), DType::kInt32, {kGroups, rows, kTopK});
  attend_.sequences = index_.sequences;
  attend_.q = Tensor(normal(rows * kHeads * kDim), type, {rows, kHeads, kDim});
  attend_.k = Tensor(normal(keys * kGroups * kDim), type, {keys, kGroups, kDim});
  attend_.v = Tensor(normal(keys * kGroups * kDim), type, {keys, kGroups, kDim});
  attend_.block_ids = Tensor(allocate(id_count * 4), DType::kInt32, {kGroups, rows, kTopK});
  attend_.out = MutableTensor(allocate(static_cast<size_t>(rows * kHeads * kDim) * 2), type,
                              {rows, kHeads, kDim});
  attend_.lse = MutableTensor(allocate(static_cast<size_t>(rows * kHeads) * 4), DType::kFloat32,
                              {rows, kHeads});
  workspace_.bytes = workspace_bytes();
  workspace_.data = allocate(workspace_.bytes);
  flush_ = allocate(kFlushBytes);
}

Layer::~Layer() {
  for (void* data : memory_) cudaFree(data);
}

size_t Layer::workspace_bytes() const {
  return std::max(index_forward_workspace_size(context_, index_),
                  attention_forward_workspace_size(context_, attend_));
}

void Layer::set_picks(double keep, bool sink, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::vector<int32_t>> groups(kGroups);
  for (size_t r = 0; r < shape_.q_lens.size(); ++r) {
    PickSpec spec;
    spec.q_len = shape_.q_lens[r];
    spec.k_len = shape_.k_lens[r];
    spec.keep = keep;
    spec.sink = sink;
    append_picks(spec, random, groups);
  }
  auto* to = static_cast<int32_t*>(const_cast<void*>(attend_.block_ids.data));
  for (const std::vector<int32_t>& lists : groups) {
    check(cudaMemcpy(to, lists.data(), lists.size() * 4, cudaMemcpyHostToDevice));
    to += lists.size();
  }
}

template <typename Body>
double Layer::median_ms(int repeats, const Body& body) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int n = 0; n <= repeats; ++n) {  // the first is the warm-up
    check(cudaMemsetAsync(flush_, n, kFlushBytes, nullptr));
    check(cudaEventRecord(begin, nullptr));
    body();
    check(cudaEventRecord(end, nullptr));
    check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end));
    if (n > 0) times.push_back(ms);
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]);
}

double Layer::index_ms(int repeats) {
  return median_ms(repeats, [&] { index_forward(context_, index_, workspace_); });
}
double Layer::attend_ms(int repeats) {
  return median_ms(repeats, [&] { attention_forward(context_, attend_, workspace_); });
}

double Layer::dense_ms(int repeats) {
  DenseAttentionForwardArgs args;
  args.q = attend_.q;
  args.k = attend_.k;
  args.v = attend_.v;
  args.sequences = attend_.sequences;
  args.out = attend_.out;
  args.lse = attend_.lse;
  Workspace workspace;
  workspace.bytes = dense_attention_forward_workspace_size(context_, args);
  workspace.data = allocate(workspace.bytes);
  return median_ms(repeats, [&] { dense_attention_forward(context_, args, workspace); });
}

double Layer::backward_ms(int repeats) {
  AttentionBackwardArgs args;
  args.q = attend_.q;
  args.k = attend_.k;
  args.v = attend_.v;
  args.sequences = attend_.sequences;
  args.block_ids = attend_.block_ids;
  args.out = attend_.out;
  args.lse = attend_.lse;
  const auto like = [&](const Tensor& tensor) {
    const int64_t count = tensor.shape[0] * tensor.shape[1] * tensor.shape[2];
    void* data = allocate(static_cast<size_t>(count) * 2);
    test::fill_normal(data, tensor.dtype, count, 99);
    return MutableTensor(data, tensor.dtype, {tensor.shape[0], tensor.shape[1], tensor.shape[2]});
  };
  args.dout = like(attend_.q);
  args.dq = like(attend_.q);
  args.dk = like(attend_.k);
  args.dv = like(attend_.v);
  attention_forward(context_, attend_, workspace_);
  Workspace workspace;
  workspace.bytes = attention_backward_workspace_size(context_, args);
  workspace.data = allocate(workspace.bytes);
  backward_workspace_bytes_ = workspace.bytes;
  return median_ms(repeats, [&] { attention_backward(context_, args, workspace); });
}

}  // namespace msa::bench
