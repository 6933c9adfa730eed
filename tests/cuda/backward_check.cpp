#include "cuda/backward_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

#include "core/element.h"
#include "cuda/device_case.h"
#include "cuda/device_memory.h"
#include "cuda/host/config.h"
#include "cuda/id_lists.h"
#include "library/compare.h"

namespace msa::test {
namespace {

constexpr int64_t kGap = 8;  // guard elements behind every row of a gradient
constexpr const char* kNames[3] = {"dq", "dk", "dv"};

/// Puts the tuning and the switch back as they were.
class Switched {
 public:
  Switched() { cuda::untried_ops().attention_backward = true; }
  ~Switched() {
    cuda::untried_ops().attention_backward = false;
    cuda::backward_tuning() = {};
  }
  Switched(const Switched&) = delete;
  Switched& operator=(const Switched&) = delete;
};

/// What the forward and the loss hand to the backward, on the host, and the law's gradients.
struct Law {
  Buffer out, dout, gradients[3];
  std::vector<float> lse, dlse;
  int64_t shape[3][3] = {};  // of dq, dk, dv

  Law(const Context& reference, const Case& batch, const std::vector<int32_t>& ids,
      std::mt19937& random) {
    const CaseSpec& spec = batch.spec;
    const int64_t heads = spec.kv_heads * spec.group;
    const int64_t count = batch.num_rows * heads;
    std::normal_distribution<float> normal;
    out.allocate(spec.q_dtype, count * spec.head_dim);
    dout.allocate(spec.q_dtype, count * spec.head_dim);
    for (int64_t n = 0; n < count * spec.head_dim; ++n) dout.set(n, normal(random));
    lse.resize(static_cast<size_t>(count));
    for (int64_t n = 0; n < count; ++n) dlse.push_back(normal(random));
    AttentionForwardArgs forward;
    forward.q = batch.q;
    forward.k = batch.k;
    forward.v = batch.v;
    forward.sequences = batch.sequences;
    forward.block_size = spec.block_size;
    forward.block_ids = Tensor(
        ids.data(), DType::kInt32,
        {spec.kv_heads, batch.num_rows,
         batch.num_rows == 0 ? spec.top_k
                             : static_cast<int64_t>(ids.size()) / spec.kv_heads / batch.num_rows});
    forward.out =
        MutableTensor(out.bytes.data(), spec.q_dtype, {batch.num_rows, heads, spec.head_dim});
    forward.lse = MutableTensor(lse.data(), DType::kFloat32, {batch.num_rows, heads});
    attention_forward(reference, forward, {});
    AttentionBackwardArgs args;
    args.q = forward.q;
    args.k = forward.k;
    args.v = forward.v;
    args.sequences = forward.sequences;
    args.block_size = forward.block_size;
    args.block_ids = forward.block_ids;
    args.out = forward.out;
    args.lse = forward.lse;
    args.dout = Tensor(dout.bytes.data(), spec.q_dtype, {batch.num_rows, heads, spec.head_dim});
    args.dlse = Tensor(dlse.data(), DType::kFloat32, {batch.num_rows, heads});
    MutableTensor* to[3] = {&args.dq, &args.dk, &args.dv};
    for (int n = 0; n < 3; ++n) {
      shape[n][0] = n == 0 ? batch.num_rows : batch.k.shape[0];
      shape[n][1] = n == 0 ? heads : spec.kv_heads;
      shape[n][2] = spec.head_dim;
      gradients[n].allocate(spec.q_dtype, shape[n][0] * shape[n][1] * shape[n][2]);
      *to[n] = MutableTensor(gradients[n].bytes.data(), spec.q_dtype,
                             {shape[n][0], shape[n][1], shape[n][2]});
    }
    attention_backward(reference, args, {});
  }
};

std::vector<float> floats_of(const Buffer& buffer) {
  std::vector<float> values;
  const auto count = static_cast<int64_t>(buffer.bytes.size() / dtype_bytes(buffer.dtype));
  for (int64_t n = 0; n < count; ++n) values.push_back(buffer.get(n));
  return values;
}

/// A batch's backward on the device.
class DeviceBackward {
 public:
  DeviceBackward(const Context& context, const DeviceCase& device, const Case& batch,
                 const std::vector<int32_t>& ids, const Law& law)
      : context_(context), law_(law) {
    const CaseSpec& spec = batch.spec;
    const int64_t rows = batch.num_rows;
    const int64_t heads = spec.kv_heads * spec.group;
    device.fill(args_);
    args_.block_size = spec.block_size;
    args_.block_ids =
        Tensor(upload(ids.data(), ids.size() * 4), DType::kInt32,
               {spec.kv_heads, rows,
                rows == 0 ? spec.top_k : static_cast<int64_t>(ids.size()) / spec.kv_heads / rows});
    const auto rows_of = [&](const Buffer& buffer) {
      return Tensor(upload(buffer.bytes.data(), buffer.bytes.size()), spec.q_dtype,
                    {rows, heads, spec.head_dim});
    };
    args_.out = rows_of(law.out);
    args_.dout = rows_of(law.dout);
    args_.lse = Tensor(upload(law.lse.data(), law.lse.size() * 4), DType::kFloat32, {rows, heads});
    args_.dlse =
        Tensor(upload(law.dlse.data(), law.dlse.size() * 4), DType::kFloat32, {rows, heads});
    MutableTensor* to[3] = {&args_.dq, &args_.dk, &args_.dv};
    for (int n = 0; n < 3; ++n) {
      const int64_t row = law.shape[n][2] + kGap;
      const auto bytes = static_cast<size_t>(law.shape[n][0] * law.shape[n][1] * row) * 2;
      results_[n] = std::make_unique<DeviceMemory>(bytes, 0xAB);
      *to[n] = MutableTensor(results_[n]->data(), spec.q_dtype,
                             {law.shape[n][0], law.shape[n][1], law.shape[n][2]},
                             {law.shape[n][1] * row, row, 1});
    }
  }

  size_t workspace_bytes() const { return attention_backward_workspace_size(context_, args_); }
  void run(const DeviceMemory& workspace, cudaStream_t stream = nullptr) {
    attention_backward(context_, args_, {workspace.data(), workspace.bytes(), stream});
  }
  void poison() {
    for (const auto& result : results_) {
      cuda::check_cuda("test", cudaMemset(result->data(), 0xAB, result->bytes()));
    }
  }
  /// "" or how the gradients differ from the law.
  std::string problem() const {
    cuda::check_cuda("attention_backward", cudaDeviceSynchronize());
    for (int n = 0; n < 3; ++n) {
      const auto raw = results_[n]->download<uint16_t>(results_[n]->bytes() / 2);
      const int64_t width = law_.shape[n][2];
      std::vector<float> values;
      for (size_t at = 0; at < raw.size(); ++at) {
        if (static_cast<int64_t>(at) % (width + kGap) < width) {
          values.push_back(
              core::load_element(raw.data(), args_.dq.dtype, static_cast<int64_t>(at)));
        } else if (raw[at] != 0xABAB) {
          return fmt::format("{}: a guard element was overwritten", kNames[n]);
        }
      }
      // The contract asks for the norm of the whole; single elements may be off by its roundings.
      const Comparison result = compare(values, floats_of(law_.gradients[n]), {1e-1, 5e-2, 1e-2});
      if (!result.ok) return fmt::format("{}: {}", kNames[n], result.message);
    }
    return "";
  }

 private:
  const void* upload(const void* from, size_t bytes) {
    memory_.push_back(std::make_unique<DeviceMemory>(bytes));
    if (bytes > 0) memory_.back()->upload(from, bytes);
    return memory_.back()->data();
  }

  const Context& context_;
  const Law& law_;
  AttentionBackwardArgs args_;
  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  std::unique_ptr<DeviceMemory> results_[3];
};

/// Captured once, replayed twice into other contents.
std::string graph_problem(DeviceBackward& call, const DeviceMemory& workspace) {
  const auto check = [](cudaError_t error) { cuda::check_cuda("test", error); };
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  call.run(workspace, stream);
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  std::string problem;
  for (int n = 0; n < 2 && problem.empty(); ++n) {
    call.poison();
    check(cudaDeviceSynchronize());
    check(cudaGraphLaunch(executable, stream));
    check(cudaStreamSynchronize(stream));
    problem = call.problem();
  }
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
  check(cudaStreamDestroy(stream));
  return problem.empty() ? "" : "replayed graph: " + problem;
}

void check_batch(Report& report, const std::string& name, const Case& batch, std::mt19937& random) {
  std::string problem;
  try {
    const Context on_cuda({.backend = Backend::kCuda});
    const Context reference({.backend = Backend::kReference});
    const DeviceCase device(batch);
    const std::vector<int32_t> picks = neighbour_ids(batch, 0.5, random);
    for (const auto& ids : {picks, hostile_ids(batch, picks, random)}) {
      const Law law(reference, batch, ids, random);
      for (const int64_t most : {int64_t{4096}, int64_t{32}}) {  // one pass, and several plans
        cuda::backward_tuning().most_chunk_rows = most;
        cuda::backward_tuning().most_plan_chunks = most == 32 ? 2 : 1 << 20;
        DeviceBackward call(on_cuda, device, batch, ids, law);
        const DeviceMemory workspace(call.workspace_bytes());
        for (int again = 0; again < 2 && problem.empty(); ++again) {  // the workspace was used
          call.poison();
          call.run(workspace);
          problem = call.problem();
        }
        if (problem.empty()) problem = graph_problem(call, workspace);
        if (problem.empty()) continue;
        problem += fmt::format(" (passes of {} rows, {} ids)", most,
                               ids == picks ? "ordinary" : "hostile");
        break;
      }
      cuda::backward_tuning() = {};
      if (!problem.empty()) break;
    }
  } catch (const Error& error) {
    problem = error.what();
  }
  report.add(name, problem.empty(), problem.empty() ? "" : problem + " | " + batch.spec.describe());
}

CaseSpec spec_of(DType dtype, int64_t dim, int64_t block, int64_t group, bool small) {
  CaseSpec spec;
  spec.q_dtype = spec.kv_dtype = dtype;
  spec.kv_heads = 2;
  spec.group = group;
  spec.head_dim = dim;
  spec.index_dim = 64;
  spec.block_size = block;
  spec.top_k = 4;
  // The reference is what takes time here. 13 rows of the last have no position.
  spec.q_lens = {small ? 20 : 150, 1, 0, small ? 10 : 77, 33};
  spec.k_lens = {small ? 400 : 1000, 700, 0, small ? 10 : 77, 20};
  spec.padded_rows = 5;
  spec.stride_gap = 8;
  return spec;
}

}  // namespace

void check_backward(Report& report, const OpCheckOptions& options) {
  const Switched switched;
  std::mt19937 random(options.seed);
  // Smallest first: one tile of one block says most when something is wrong.
  for (const int64_t rows : {1, 4, 40, 300}) {
    if (options.small && rows == 300) continue;
    CaseSpec spec = spec_of(DType::kBFloat16, 128, 128, 16, options.small);
    spec.kv_heads = 1;
    spec.q_lens = spec.k_lens = {static_cast<int32_t>(rows)};
    spec.padded_rows = 0;
    check_batch(report, fmt::format("backward, {} rows alone", rows), Case(spec), random);
    if (report.failures() > 0) return;
  }
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    for (const int64_t dim : {128, 64}) {
      for (const int64_t block : {128, 64}) {
        for (const int64_t group : {16, 8, 4, 2, 1}) {
          if (options.small && group != 16 && group != 1) continue;
          const Case batch(spec_of(dtype, dim, block, group, options.small));
          check_batch(
              report,
              fmt::format("backward, {} D {} B {} G {}", dtype_name(dtype), dim, block, group),
              batch, random);
        }
      }
    }
  }
  for (int n = 0; n < options.random_cases; ++n) {
    CaseSpec spec = random_spec(random);
    spec.paged = false;
    spec.layout = Layout::kTokenMajor;
    spec.id_layout = BlockIdLayout::kHeadMajor;
    spec.share_pages = false;
    spec.q_dtype = spec.kv_dtype = n % 2 == 0 ? DType::kBFloat16 : DType::kFloat16;
    spec.kv_heads = 1 << n % 3;
    spec.group = 1 << n % 5;
    spec.head_dim = n % 4 < 2 ? 128 : 64;
    spec.block_size = n % 3 == 0 ? 64 : 128;
    spec.top_k = 1 + n % 16;
    spec.stride_gap = 8;
    spec.magnitude = 1;
    check_batch(report, fmt::format("backward, random batch {}", n), Case(spec), random);
  }
  // As wide as the model, and more passes than one.
  CaseSpec spec = spec_of(DType::kBFloat16, 128, 128, 16, options.small);
  spec.kv_heads = 4;
  spec.top_k = 16;
  spec.q_lens = {200};
  spec.k_lens = {3000};
  if (!options.small) check_batch(report, "backward, 64 heads", Case(spec), random);
}

}  // namespace msa::test
