#include "cuda/stream_check.h"

#include <algorithm>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/one_request.h"
#include "cuda/random_fill.h"
#include "msa/msa.h"

namespace msa::test {
namespace {

constexpr int64_t kRows = 300;
constexpr int64_t kKeys = 5000;  // of the tensors; requests may be shorter
constexpr int64_t kHeads = 32;
constexpr int64_t kGroups = 2;
constexpr int64_t kDim = 128;
constexpr int64_t kTopK = 8;

/// Index and attention of one request, with outputs and workspace of their own.
class Call {
 public:
  explicit Call(uint64_t seed)
      : q_(bytes(kRows * kHeads * kDim)),
        k_(bytes(kKeys * kGroups * kDim)),
        v_(bytes(kKeys * kGroups * kDim)),
        q_idx_(bytes(kRows * kGroups * kDim)),
        k_idx_(bytes(kKeys * kDim)),
        request_(kRows, kKeys),
        ids_(kGroups * kRows * kTopK * 4),
        out_(bytes(kRows * kHeads * kDim)),
        lse_(kRows * kHeads * 4) {
    fill(q_, seed);
    fill(k_, seed + 1);
    fill(v_, seed + 2);
    fill(q_idx_, seed + 3);
    fill(k_idx_, seed + 4);
    const auto type = DType::kBFloat16;
    index_.sequences = request_.sequences();
    index_.q_idx = Tensor(q_idx_.data(), type, {kRows, kGroups, kDim});
    index_.k_idx = Tensor(k_idx_.data(), type, {kKeys, kDim});
    index_.block_ids = MutableTensor(ids_.data(), DType::kInt32, {kGroups, kRows, kTopK});
    attend_.sequences = index_.sequences;
    attend_.q = Tensor(q_.data(), type, {kRows, kHeads, kDim});
    attend_.k = Tensor(k_.data(), type, {kKeys, kGroups, kDim});
    attend_.v = Tensor(v_.data(), type, {kKeys, kGroups, kDim});
    attend_.block_ids = index_.block_ids;
    attend_.out = MutableTensor(out_.data(), type, {kRows, kHeads, kDim});
    attend_.lse = MutableTensor(lse_.data(), DType::kFloat32, {kRows, kHeads});
  }

  void set_lengths(int64_t rows, int64_t keys) { request_.set_lengths(rows, keys); }
  size_t workspace_bytes(const Context& context) const {
    return std::max(index_forward_workspace_size(context, index_),
                    attention_forward_workspace_size(context, attend_));
  }
  void run(const Context& context, const DeviceMemory& workspace, cudaStream_t stream) const {
    const Workspace space = {workspace.data(), workspace.bytes(), stream};
    index_forward(context, index_, space);
    attention_forward(context, attend_, space);
  }
  /// Ids, out and lse as bytes.
  std::vector<uint8_t> results() const {
    std::vector<uint8_t> all;
    for (const DeviceMemory* part : {&ids_, &out_, &lse_}) {
      const auto values = part->download<uint8_t>(part->bytes());
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

 private:
  static size_t bytes(int64_t elements) { return static_cast<size_t>(elements) * 2; }
  static void fill(const DeviceMemory& memory, uint64_t seed) {
    fill_normal(memory.data(), DType::kBFloat16, static_cast<int64_t>(memory.bytes() / 2), seed);
  }

  DeviceMemory q_, k_, v_, q_idx_, k_idx_;
  OneRequest request_;
  DeviceMemory ids_, out_, lse_;
  IndexForwardArgs index_;
  AttentionForwardArgs attend_;
};

void check(cudaError_t error) { cuda::check_cuda("streams", error); }

}  // namespace

void check_streams(Report& report) {
  const Context context({.backend = Backend::kCuda});
  Call call(1);
  const DeviceMemory workspace(call.workspace_bytes(context));
  cudaStream_t first = nullptr;
  cudaStream_t second = nullptr;
  check(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
  check(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));

  // Captured with one set of lengths, replayed with another: the same bits as a call made with it.
  call.run(context, workspace, first);
  check(cudaStreamSynchronize(first));
  const auto whole = call.results();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
  call.run(context, workspace, first);
  check(cudaStreamEndCapture(first, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  call.set_lengths(211, 3333);
  call.run(context, workspace, first);
  check(cudaStreamSynchronize(first));
  const auto shorter = call.results();
  call.set_lengths(kRows, kKeys);
  check(cudaGraphLaunch(executable, first));
  check(cudaStreamSynchronize(first));
  report.add("a replayed graph gives the same bits", call.results() == whole, "");
  call.set_lengths(211, 3333);
  check(cudaGraphLaunch(executable, first));
  check(cudaStreamSynchronize(first));
  report.add("a graph replayed with other lengths", call.results() == shorter, "");
  report.add("other lengths give other results", shorter != whole, "");
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));

  // Two calls in flight, each with its own workspace.
  Call other(77);
  const DeviceMemory other_workspace(other.workspace_bytes(context));
  other.run(context, other_workspace, second);
  check(cudaStreamSynchronize(second));
  const auto other_alone = other.results();
  for (int n = 0; n < 5; ++n) {
    call.run(context, workspace, first);
    other.run(context, other_workspace, second);
  }
  check(cudaDeviceSynchronize());
  report.add("two streams at once", call.results() == shorter && other.results() == other_alone,
             "");
  check(cudaStreamDestroy(first));
  check(cudaStreamDestroy(second));
}

}  // namespace msa::test
