#include "cuda/decode_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "cuda/device_case.h"
#include "cuda/host/decode.h"
#include "cuda/id_lists.h"
#include "cuda/random_fill.h"
#include "library/check_results.h"
#include "library/compare.h"

namespace msa::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Backends {
  Context cuda{{.backend = Backend::kCuda}};
  Context reference{{.backend = Backend::kReference}};
};

/// Sets the tuning as long as it lives.
class Decode {
 public:
  explicit Decode(bool on, int stages = 0) : before_(cuda::decode_tuning()) {
    cuda::decode_tuning() = {.index = on, .attention = on, .dense = on, .attention_stages = stages};
  }
  ~Decode() { cuda::decode_tuning() = before_; }
  Decode(const Decode&) = delete;
  Decode& operator=(const Decode&) = delete;

 private:
  cuda::DecodeTuning before_;
};

bool same_bits(const AttentionResult& a, const AttentionResult& b) {
  return a.out.size() == b.out.size() && a.lse.size() == b.lse.size() &&
         std::memcmp(a.out.data(), b.out.data(), a.out.size() * 4) == 0 &&
         std::memcmp(a.lse.data(), b.lse.data(), a.lse.size() * 4) == 0;
}

/// "" or how a result differs from the law.
std::string difference(const Case& batch, const AttentionResult& got, const AttentionResult& law) {
  const std::vector<double> rows =
      batch.spec.magnitude > 2 ? logit_allowance(batch) : std::vector<double>(law.lse.size(), 1.0);
  std::vector<double> elements;
  for (const double row : rows) {
    elements.insert(elements.end(), static_cast<size_t>(batch.spec.head_dim), row);
  }
  const Comparison lse = compare(got.lse, law.lse, {2e-3, 0}, rows);
  if (!lse.ok) return "lse: " + lse.message;
  const Comparison out = compare(got.out, law.out, {2e-2, 1e-2, 5e-3}, elements);
  return out.ok ? "" : "out: " + out.message;
}

/// Whether rows of `whole` that belong to the request `alone` have the bits of `own`.
bool same_rows(const DeviceCase& alone, const AttentionResult& own, const AttentionResult& whole) {
  const size_t width = own.out.size() / static_cast<size_t>(alone.num_rows);
  const size_t heads = own.lse.size() / static_cast<size_t>(alone.num_rows);
  const auto first = static_cast<size_t>(alone.first_row);
  return std::memcmp(own.out.data(), whole.out.data() + first * width, own.out.size() * 4) == 0 &&
         std::memcmp(own.lse.data(), whole.lse.data() + first * heads, own.lse.size() * 4) == 0;
}

std::string dense_problem(const Backends& on, const Case& batch, const DeviceCase& device,
                          int64_t longest) {
  const Decode decode(true);
  const AttentionResult got = device.run_dense(on.cuda);
  if (!same_bits(got, device.run_dense(on.cuda))) return "dense: a rerun differs in bits";
  const std::string problem = difference(batch, got, run_attention(on.reference, batch, nullptr));
  if (!problem.empty()) return "dense: " + problem;
  const size_t requests = batch.spec.q_lens.size();
  for (size_t r = 0; requests > 1 && r < requests; ++r) {
    DeviceCase alone(batch, static_cast<int64_t>(r));
    if (alone.num_rows == 0) continue;
    alone.max_query_length = longest;
    if (!same_rows(alone, alone.run_dense(on.cuda), got)) {
      return fmt::format("dense: request {} alone differs", r);
    }
  }
  return "";
}

std::string attention_problem(const Backends& on, const Case& batch, const DeviceCase& device,
                              const std::vector<int32_t>& ids, int64_t longest) {
  const AttentionResult law = run_attention(on.reference, batch, &ids);
  AttentionResult got;
  {
    const Decode decode(true);
    got = device.run_attention(on.cuda, ids);
    if (!same_bits(got, device.run_attention(on.cuda, ids))) return "a rerun differs in bits";
  }
  for (const int stages : {1, 2, 4}) {
    const Decode decode(true, stages);
    if (!same_bits(got, device.run_attention(on.cuda, ids))) {
      return fmt::format("{} blocks at once differ in bits", stages);
    }
  }
  const std::string problem = difference(batch, got, law);
  if (!problem.empty()) return problem;
  const size_t requests = batch.spec.q_lens.size();
  for (size_t r = 0; requests > 1 && r < requests; ++r) {
    DeviceCase alone(batch, static_cast<int64_t>(r));
    if (alone.num_rows == 0) continue;
    alone.max_query_length = longest;
    std::vector<int32_t> lists;
    const auto top_k = static_cast<int64_t>(ids.size()) / (batch.spec.kv_heads * batch.num_rows);
    for (int64_t h = 0; h < batch.spec.kv_heads; ++h) {
      const auto from = ids.begin() + (h * batch.num_rows + alone.first_row) * top_k;
      lists.insert(lists.end(), from, from + alone.num_rows * top_k);
    }
    const Decode decode(true);
    if (!same_rows(alone, alone.run_attention(on.cuda, lists), got)) {
      return fmt::format("request {} alone differs", r);
    }
  }
  return "";
}

void check_batch(Report& report, const Backends& on, const std::string& name, const Case& batch,
                 std::mt19937& random) {
  std::string problem;
  try {
    DeviceCase device(batch);
    const int64_t longest =
        std::max(1, *std::max_element(batch.spec.q_lens.begin(), batch.spec.q_lens.end()));
    const IndexResult law = device.run_index(on.cuda, {.lse = false});
    device.max_query_length = longest;
    {
      const Decode decode(true);
      const IndexOptions ids_alone = {.scores = false, .lse = false};
      const IndexResult got = device.run_index(on.cuda, ids_alone);
      for (size_t n = 0; problem.empty() && n < got.ids.size(); ++n) {
        if (got.ids[n] == law.ids[n]) continue;
        const auto k = static_cast<size_t>(batch.spec.top_k);
        problem = fmt::format("ids: list {} place {}: got {}, expected {}", n / k, n % k,
                              got.ids[n], law.ids[n]);
      }
      if (problem.empty() && device.run_index(on.cuda, ids_alone).ids != got.ids) {
        problem = "ids of a rerun differ";
      }
    }
    if (problem.empty()) problem = attention_problem(on, batch, device, law.ids, longest);
    if (problem.empty()) {
      problem = attention_problem(on, batch, device, hostile_ids(batch, law.ids, random), longest);
      if (!problem.empty()) problem = "hostile ids: " + problem;
    }
    if (problem.empty()) problem = dense_problem(on, batch, device, longest);
  } catch (const Error& error) {
    problem = error.what();
  }
  report.add("decode: " + name, problem.empty(),
             problem.empty() ? "" : problem + " | " + batch.spec.describe());
}

template <typename T>
T pick(std::mt19937& random, std::initializer_list<T> choices) {
  return *(choices.begin() + random() % choices.size());
}

CaseSpec random_decode_spec(std::mt19937& random) {
  CaseSpec spec;
  spec.seed = static_cast<uint32_t>(random());
  spec.q_dtype = spec.kv_dtype = pick(random, {DType::kBFloat16, DType::kFloat16});
  spec.paged = random() % 4 != 0;
  spec.layout = static_cast<Layout>(random() % kNumLayouts);
  spec.id_layout = static_cast<BlockIdLayout>(random() % 2);
  spec.kv_heads = pick<int64_t>(random, {1, 2, 4, 4, 8});
  spec.group = pick<int64_t>(random, {1, 2, 4, 8, 16, 16});
  spec.head_dim = pick<int64_t>(random, {64, 128});
  spec.index_dim = pick<int64_t>(random, {64, 128});
  spec.block_size = pick<int64_t>(random, {64, 128});
  spec.top_k = pick<int64_t>(random, {4, 4, 8, 16, 32, 1, 5, 17});
  spec.padded_rows = random() % 4 == 0 ? static_cast<int64_t>(random() % 9) : 0;
  spec.stride_gap = pick<int64_t>(random, {0, 0, 8, 24});
  spec.share_pages = random() % 4 == 0;
  spec.magnitude = pick(random, {0.5f, 1.0f, 1.5f});
  const size_t requests = 1 + random() % 5;
  const int most = pick(random, {1, 1, 2, 8, 16});
  for (size_t r = 0; r < requests; ++r) {
    const int q_len = most == 1 ? 1 : static_cast<int>(random() % static_cast<unsigned>(most + 1));
    int k_len = static_cast<int>(random() % 1500);
    if (random() % 4 == 0) k_len = static_cast<int>(2000 + random() % 4500);
    if (random() % 4 == 0) k_len = k_len / 128 * 128;
    if (random() % 8 != 0) k_len = std::max(k_len, q_len);
    spec.q_lens.push_back(q_len);
    spec.k_lens.push_back(k_len);
  }
  return spec;
}

CaseSpec base_spec() {
  CaseSpec spec;
  spec.q_dtype = spec.kv_dtype = DType::kBFloat16;
  spec.kv_heads = 4;
  spec.group = 16;
  spec.head_dim = spec.index_dim = 128;
  spec.block_size = 128;
  spec.top_k = 16;
  spec.paged = true;
  return spec;
}

// ---- Long caches ----

constexpr int64_t kHeads = 64;
constexpr int64_t kGroups = 4;
constexpr int64_t kDim = 128;
constexpr int64_t kBlock = 128;
constexpr int64_t kTopK = 16;

/// Requests of the same number of queries on pages in random order, with all that a step reads and
/// writes.
struct LongBatch {
  int64_t batch, queries, longest;
  int64_t rows, pages_each, pages;
  DeviceMemory q, k, v, q_idx, k_idx, cu_q, lens, table, ids, out, lse, workspace;
  IndexForwardArgs index;
  AttentionForwardArgs attend;
  DenseAttentionForwardArgs dense;

  LongBatch(int64_t num_requests, int64_t num_queries, int64_t keys)
      : batch(num_requests),
        queries(num_queries),
        longest(keys),
        rows(num_requests * num_queries),
        pages_each((keys + kBlock - 1) / kBlock),
        pages(pages_each * num_requests),
        q(bytes(rows * kHeads * kDim)),
        k(bytes(pages * kBlock * kGroups * kDim)),
        v(bytes(pages * kBlock * kGroups * kDim)),
        q_idx(bytes(rows * kGroups * kDim)),
        k_idx(bytes(pages * kBlock * kDim)),
        cu_q(static_cast<size_t>(batch + 1) * 4),
        lens(static_cast<size_t>(batch) * 4),
        table(static_cast<size_t>(pages) * 4),
        ids(static_cast<size_t>(kGroups * rows * kTopK) * 4),
        out(bytes(rows * kHeads * kDim)),
        lse(static_cast<size_t>(rows * kHeads) * 4),
        workspace(size_t{256} << 20) {
    uint64_t seed = 1;
    for (const DeviceMemory* part : {&q, &k, &v, &q_idx, &k_idx}) {
      fill_normal(part->data(), DType::kBFloat16, static_cast<int64_t>(part->bytes() / 2), seed++);
    }
    set_sequences(5, queries, 777);
    const auto type = DType::kBFloat16;
    index.sequences.cu_seqlens_q = Tensor(cu_q.data(), DType::kInt32, {batch + 1});
    index.sequences.page_table = Tensor(table.data(), DType::kInt32, {batch, pages_each});
    index.sequences.kv_lens = Tensor(lens.data(), DType::kInt32, {batch});
    index.max_query_length = queries;
    index.q_idx = Tensor(q_idx.data(), type, {rows, kGroups, kDim});
    index.k_idx = Tensor(k_idx.data(), type, {pages, kBlock, kDim});
    index.block_ids = MutableTensor(ids.data(), DType::kInt32, {kGroups, rows, kTopK});
    attend.sequences = dense.sequences = index.sequences;
    attend.max_query_length = dense.max_query_length = queries;
    attend.q = dense.q = Tensor(q.data(), type, {rows, kHeads, kDim});
    attend.k = dense.k = Tensor(k.data(), type, {pages, kBlock, kGroups, kDim});
    attend.v = dense.v = Tensor(v.data(), type, {pages, kBlock, kGroups, kDim});
    attend.block_ids = index.block_ids;
    attend.out = dense.out = MutableTensor(out.data(), type, {rows, kHeads, kDim});
    attend.lse = dense.lse = MutableTensor(lse.data(), DType::kFloat32, {rows, kHeads});
  }
  static size_t bytes(int64_t elements) { return static_cast<size_t>(elements) * 2; }

  /// Pages in another order, `each` rows a request (the others are padding), and lengths that fall
  /// by `step` from request to request.
  void set_sequences(unsigned seed, int64_t each, int64_t step) {
    std::vector<int32_t> ends = {0};
    std::vector<int32_t> lengths;
    std::vector<int32_t> numbers(static_cast<size_t>(pages));
    for (int64_t n = 0; n < pages; ++n) numbers[static_cast<size_t>(n)] = static_cast<int32_t>(n);
    std::mt19937 random(seed);
    std::shuffle(numbers.begin(), numbers.end(), random);
    for (int64_t r = 0; r < batch; ++r) {
      ends.push_back(static_cast<int32_t>((r + 1) * each));
      lengths.push_back(static_cast<int32_t>(std::max<int64_t>(longest - r * step, 0)));
    }
    cu_q.upload(ends.data(), ends.size() * 4);
    lens.upload(lengths.data(), lengths.size() * 4);
    table.upload(numbers.data(), numbers.size() * 4);
  }

  Workspace space(cudaStream_t stream = nullptr) const {
    return {workspace.data(), workspace.bytes(), stream};
  }
  /// Everything that the last ops wrote, as bytes.
  std::vector<uint8_t> results() const {
    std::vector<uint8_t> all;
    for (const DeviceMemory* part : {&ids, &out, &lse}) {
      const auto values = part->download<uint8_t>(part->bytes());
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

  struct Result {
    std::vector<int32_t> ids;
    std::vector<uint16_t> out, dense_out;
    std::vector<float> lse, dense_lse;
  };
  /// Attention reads `given` if there are any, else the ids that the index has chosen.
  Result run(const Context& context, const std::vector<int32_t>& given) {
    const auto values = static_cast<size_t>(rows * kHeads * kDim);
    const auto heads = static_cast<size_t>(rows * kHeads);
    Result result;
    index_forward(context, index, space());
    cuda::check_cuda("index_forward", cudaDeviceSynchronize());
    result.ids = ids.download<int32_t>(ids.bytes() / 4);
    if (!given.empty()) ids.upload(given.data(), given.size() * 4);
    {  // as large as the prefill kernels want it
      const DeviceMemory own(attention_forward_workspace_size(context, attend));
      attention_forward(context, attend, {own.data(), own.bytes()});
      cuda::check_cuda("attention_forward", cudaDeviceSynchronize());
    }
    result.out = out.download<uint16_t>(values);
    result.lse = lse.download<float>(heads);
    dense_attention_forward(context, dense, space());
    cuda::check_cuda("dense_attention_forward", cudaDeviceSynchronize());
    result.dense_out = out.download<uint16_t>(values);
    result.dense_lse = lse.download<float>(heads);
    return result;
  }
};

/// A graph captured with one set of lengths and tables and replayed with others gives what a call
/// with those gives.
void check_graph(Report& report, const Context& context, bool dense) {
  const Decode decode(true);
  LongBatch step(6, 3, 30000);
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  const auto check = [](cudaError_t error) { cuda::check_cuda("graph", error); };
  const auto enqueue = [&] {
    index_forward(context, step.index, step.space(stream));
    if (dense) {
      dense_attention_forward(context, step.dense, step.space(stream));
    } else {
      attention_forward(context, step.attend, step.space(stream));
    }
  };
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  enqueue();
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  std::string problem;
  unsigned seed = 11;
  for (const auto& [each, fall] : {std::pair<int64_t, int64_t>{3, 1000}, {1, 5999}, {2, 29}}) {
    step.set_sequences(seed++, each, fall);
    check(cudaGraphLaunch(executable, stream));
    check(cudaStreamSynchronize(stream));
    const std::vector<uint8_t> replayed = step.results();
    enqueue();
    check(cudaStreamSynchronize(stream));
    if (problem.empty() && step.results() != replayed) {
      problem = fmt::format("{} rows a request, lengths falling by {}: differs", each, fall);
    }
  }
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
  check(cudaStreamDestroy(stream));
  report.add(dense ? "decode: graph replays, dense" : "decode: graph replays", problem.empty(),
             problem);
}

std::vector<float> floats_of(const std::vector<uint16_t>& bits) {
  std::vector<float> values;
  for (const uint16_t x : bits) {
    const uint32_t word = static_cast<uint32_t>(x) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    values.push_back(value);
  }
  return values;
}

}  // namespace

void check_decode(Report& report, const OpCheckOptions& options) {
  const Backends on;
  std::mt19937 random(options.seed);
  CaseSpec spec = base_spec();
  spec.q_lens = {1};
  spec.k_lens = {40};
  check_batch(report, on, "one short request", Case(spec), random);
  spec.k_lens = {3000};
  check_batch(report, on, "one request", Case(spec), random);
  spec.top_k = 4;
  spec.q_lens = {3, 0, 1, 16, 1};
  spec.k_lens = {700, 0, 0, 515, 2};
  spec.padded_rows = 3;
  check_batch(report, on, "empty requests and padded rows", Case(spec), random);
  {
    Case batch(spec);  // values behind the position: infinite, NaN; and one that all see
    batch.set_value(3, 514, 1, 5, kNaN);
    batch.set_value(3, 510, 2, 127, kInfinity);
    batch.set_value(3, 20, 0, 0, 3.0e4f);
    for (int64_t j = 128; j < 256; ++j) batch.set_index_key(0, j, 3, kNaN);
    batch.set_index_key(0, 300, 0, kNaN);
    check_batch(report, on, "NaN and infinity", batch, random);
  }
  if (options.small) return;
  for (const bool dense : {false, true}) check_graph(report, on.cuda, dense);
  spec.magnitude = 30;  // logits to +-1e4
  check_batch(report, on, "logits in the thousands", Case(spec), random);
  for (int n = 0; n < options.random_cases; ++n) {
    check_batch(report, on, fmt::format("random {}", n), Case(random_decode_spec(random)), random);
    if (report.failures() > 12) {
      report.note("too many failures: the rest of the random cases is left out");
      return;
    }
  }
}

void check_long_decode(Report& report, bool small) {
  const Context context({.backend = Backend::kCuda});
  struct Shape {
    int64_t batch, queries, keys;
  };
  for (const Shape& shape : {Shape{1, 1, 8192}, Shape{4, 8, 30000}, Shape{1, 1, 131072},
                             Shape{17, 3, 70000}, Shape{1, 16, 1 << 20}}) {
    if (small && shape.keys > 8192) break;
    std::string problem;
    try {
      LongBatch batch(shape.batch, shape.queries, shape.keys);
      const LongBatch::Result law = batch.run(context, {});
      const Decode decode(true);
      const LongBatch::Result got = batch.run(context, law.ids);
      if (got.ids != law.ids) {
        size_t n = 0;
        while (got.ids[n] == law.ids[n]) ++n;
        problem = fmt::format("ids differ from {} on: {} for {}", n, got.ids[n], law.ids[n]);
      }
      const Comparison out = compare(floats_of(got.out), floats_of(law.out), {2e-2, 1e-2, 5e-3});
      const Comparison lse = compare(got.lse, law.lse, {2e-3, 0});
      if (problem.empty() && !out.ok) problem = "out: " + out.message;
      if (problem.empty() && !lse.ok) problem = "lse: " + lse.message;
      const Comparison dense =
          compare(floats_of(got.dense_out), floats_of(law.dense_out), {2e-2, 1e-2, 5e-3});
      const Comparison dense_lse = compare(got.dense_lse, law.dense_lse, {2e-3, 0});
      if (problem.empty() && !dense.ok) problem = "dense out: " + dense.message;
      if (problem.empty() && !dense_lse.ok) problem = "dense lse: " + dense_lse.message;
    } catch (const Error& error) {
      problem = error.what();
    }
    report.add(fmt::format("long decode: {} requests, {} queries, {} keys", shape.batch,
                           shape.queries, shape.keys),
               problem.empty(), problem);
  }
}

}  // namespace msa::test
