// One long request made on the device: all ids by their own properties, sampled rows of index and
// attention against the reference. A sampled row is a request of one query and i + 1 keys.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "cuda/device_memory.h"
#include "cuda/host/config.h"
#include "cuda/one_request.h"
#include "cuda/op_checks.h"
#include "cuda/random_fill.h"
#include "library/check_results.h"
#include "library/compare.h"
#include "msa/msa.h"

namespace msa::test {
namespace {

constexpr int64_t kHeads = 64;
constexpr int64_t kGroups = 4;
constexpr int64_t kDim = 128;
constexpr int64_t kBlock = 128;
constexpr int64_t kTopK = 16;

struct Long {
  int64_t num_keys;
  int64_t num_queries;
  DeviceMemory q, k, v, q_idx, k_idx, ids, out, lse;
  OneRequest request;

  Long(int64_t keys, int64_t queries)
      : num_keys(keys),
        num_queries(queries),
        q(static_cast<size_t>(queries * kHeads * kDim * 2)),
        k(static_cast<size_t>(keys * kGroups * kDim * 2)),
        v(static_cast<size_t>(keys * kGroups * kDim * 2)),
        q_idx(static_cast<size_t>(queries * kGroups * kDim * 2)),
        k_idx(static_cast<size_t>(keys * kDim * 2)),
        ids(static_cast<size_t>(queries * kGroups * kTopK * 4)),
        out(static_cast<size_t>(queries * kHeads * kDim * 2)),
        lse(static_cast<size_t>(queries * kHeads * 4)),
        request(queries, keys) {
    fill_normal(q.data(), DType::kBFloat16, queries * kHeads * kDim, 1);
    fill_normal(k.data(), DType::kBFloat16, keys * kGroups * kDim, 2);
    fill_normal(v.data(), DType::kBFloat16, keys * kGroups * kDim, 3);
    fill_normal(q_idx.data(), DType::kBFloat16, queries * kGroups * kDim, 4);
    fill_normal(k_idx.data(), DType::kBFloat16, keys * kDim, 5);
  }
};

void run_index(const Context& context, Long& batch) {
  const auto type = DType::kBFloat16;
  IndexForwardArgs index;
  index.q_idx = Tensor(batch.q_idx.data(), type, {batch.num_queries, kGroups, kDim});
  index.k_idx = Tensor(batch.k_idx.data(), type, {batch.num_keys, kDim});
  index.sequences = batch.request.sequences();
  index.block_ids =
      MutableTensor(batch.ids.data(), DType::kInt32, {kGroups, batch.num_queries, kTopK});
  const size_t index_bytes = index_forward_workspace_size(context, index);
  const DeviceMemory index_workspace(index_bytes);
  index_forward(context, index, {index_workspace.data(), index_bytes});
  cuda::check_cuda("test", cudaDeviceSynchronize());
}

void run_attention(const Context& context, Long& batch) {
  const auto type = DType::kBFloat16;
  AttentionForwardArgs attention;
  attention.q = Tensor(batch.q.data(), type, {batch.num_queries, kHeads, kDim});
  attention.k = Tensor(batch.k.data(), type, {batch.num_keys, kGroups, kDim});
  attention.v = Tensor(batch.v.data(), type, {batch.num_keys, kGroups, kDim});
  attention.sequences = batch.request.sequences();
  attention.block_ids =
      Tensor(batch.ids.data(), DType::kInt32, {kGroups, batch.num_queries, kTopK});
  attention.out = MutableTensor(batch.out.data(), type, {batch.num_queries, kHeads, kDim});
  attention.lse = MutableTensor(batch.lse.data(), DType::kFloat32, {batch.num_queries, kHeads});
  const size_t bytes = attention_forward_workspace_size(context, attention);
  const DeviceMemory workspace(bytes);
  attention_forward(context, attention, {workspace.data(), bytes});
  cuda::check_cuda("test", cudaDeviceSynchronize());
}

/// Four neighbours with the lists of the first of them, so that tiles of them pay.
std::vector<int32_t> shared_lists(const Long& batch, const std::vector<int32_t>& ids) {
  std::vector<int32_t> result = ids;
  for (int64_t list = 0; list < batch.num_queries * kGroups; ++list) {
    const int64_t row = list % batch.num_queries;
    const int64_t position = batch.num_keys - batch.num_queries + row;
    const int64_t back = std::min(row, position % 4);  // the same local block: 4 divides 128
    std::copy_n(ids.begin() + (list - back) * kTopK, kTopK, result.begin() + list * kTopK);
  }
  return result;
}

struct HostCopies {
  std::vector<uint16_t> q, k, v, q_idx, k_idx;
  explicit HostCopies(const Long& batch)
      : q(all(batch.q)),
        k(all(batch.k)),
        v(all(batch.v)),
        q_idx(all(batch.q_idx)),
        k_idx(all(batch.k_idx)) {}
  static std::vector<uint16_t> all(const DeviceMemory& memory) {
    return memory.download<uint16_t>(memory.bytes() / 2);
  }
};

/// The request of one query that a sampled row is.
struct OneRow {
  int64_t row, keys;
  int32_t q_ends[2] = {0, 1};
  int32_t k_ends[2];
  OneRow(const Long& batch, int64_t sampled)
      : row(sampled),
        keys(batch.num_keys - batch.num_queries + sampled + 1),
        k_ends{0, static_cast<int32_t>(keys)} {}
  Sequences sequences() const {
    Sequences one;
    one.cu_seqlens_q = Tensor(q_ends, DType::kInt32, {2});
    one.cu_seqlens_k = Tensor(k_ends, DType::kInt32, {2});
    return one;
  }
};

/// "" or which block of the row's lists is on the wrong side; counts lists that differ from the
/// reference at all.
std::string selection_problem(const Context& reference, const Long& batch, const HostCopies& host,
                              const std::vector<int32_t>& ids, const OneRow& one, int* other) {
  const int64_t blocks = (one.keys + kBlock - 1) / kBlock;
  std::vector<float> scores(static_cast<size_t>(kGroups * blocks));
  IndexForwardArgs index;
  index.q_idx =
      Tensor(host.q_idx.data() + one.row * kGroups * kDim, DType::kBFloat16, {1, kGroups, kDim});
  index.k_idx = Tensor(host.k_idx.data(), DType::kBFloat16, {one.keys, kDim});
  index.sequences = one.sequences();
  index.block_scores = MutableTensor(scores.data(), DType::kFloat32, {kGroups, 1, blocks});
  index_forward(reference, index, {});
  for (int64_t g = 0; g < kGroups; ++g) {
    const int32_t* row = ids.data() + (g * batch.num_queries + one.row) * kTopK;
    const float* m = scores.data() + g * blocks;
    const auto law = select_by_rule({m, m + blocks}, kTopK);
    if (!std::equal(law.begin(), law.end(), row)) ++*other;
    float cut = INFINITY;
    for (const int32_t id : law) {
      if (id >= 0 && id != blocks - 1) cut = std::min(cut, m[id]);
    }
    const float tol = 1e-5f * 20;  // norms near sqrt(128), scale 1 / sqrt(128)
    for (int64_t i = 0; i < kTopK; ++i) {
      if (row[i] >= 0 && row[i] != blocks - 1 && m[row[i]] < cut - tol) {
        return fmt::format("row {} group {}: block {} is below the cut", one.row, g, row[i]);
      }
    }
  }
  return "";
}

/// Runs attention with these lists; the sampled rows against the reference.
void check_sampled_attention(Report& report, const std::string& name, const Context& on_cuda,
                             const Context& reference, Long& batch, const HostCopies& host,
                             const std::vector<int32_t>& ids,
                             const std::vector<int64_t>& sampled_rows) {
  batch.ids.upload(ids.data(), ids.size() * 4);
  run_attention(on_cuda, batch);
  const auto out =
      batch.out.download<uint16_t>(static_cast<size_t>(batch.num_queries * kHeads * kDim));
  const auto lse = batch.lse.download<float>(static_cast<size_t>(batch.num_queries * kHeads));
  std::vector<float> got_out, law_out, got_lse, law_lse;
  for (const int64_t t : sampled_rows) {
    const OneRow one(batch, t);
    std::vector<int32_t> own;
    for (int64_t g = 0; g < kGroups; ++g) {
      const int32_t* row = ids.data() + (g * batch.num_queries + t) * kTopK;
      own.insert(own.end(), row, row + kTopK);
    }
    std::vector<uint16_t> row_out(static_cast<size_t>(kHeads * kDim));
    std::vector<float> row_lse(kHeads);
    AttentionForwardArgs attention;
    attention.q = Tensor(host.q.data() + t * kHeads * kDim, DType::kBFloat16, {1, kHeads, kDim});
    attention.k = Tensor(host.k.data(), DType::kBFloat16, {one.keys, kGroups, kDim});
    attention.v = Tensor(host.v.data(), DType::kBFloat16, {one.keys, kGroups, kDim});
    attention.sequences = one.sequences();
    attention.block_ids = Tensor(own.data(), DType::kInt32, {kGroups, 1, kTopK});
    attention.out = MutableTensor(row_out.data(), DType::kBFloat16, {1, kHeads, kDim});
    attention.lse = MutableTensor(row_lse.data(), DType::kFloat32, {1, kHeads});
    attention_forward(reference, attention, {});
    for (int64_t i = 0; i < kHeads * kDim; ++i) {
      const auto as_float = [](uint16_t bits) {
        return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
      };
      got_out.push_back(as_float(out[static_cast<size_t>(t * kHeads * kDim + i)]));
      law_out.push_back(as_float(row_out[static_cast<size_t>(i)]));
    }
    for (int64_t h = 0; h < kHeads; ++h) {
      got_lse.push_back(lse[static_cast<size_t>(t * kHeads + h)]);
      law_lse.push_back(row_lse[static_cast<size_t>(h)]);
    }
  }
  const Comparison out_ok = compare(got_out, law_out, {2e-2, 1e-2, 5e-3});
  report.add(name + "sampled out", out_ok.ok, out_ok.message);
  const Comparison lse_ok = compare(got_lse, law_lse, {2e-3, 0});
  report.add(name + "sampled lse", lse_ok.ok, lse_ok.message);
}

}  // namespace

void check_long(Report& report, long num_keys, long num_queries, int samples) {
  const std::string name = fmt::format("{} queries on {} keys: ", num_queries, num_keys);
  const Context on_cuda({.backend = Backend::kCuda});
  const Context reference({.backend = Backend::kReference});
  Long batch(num_keys, num_queries);
  run_index(on_cuda, batch);
  const auto ids = batch.ids.download<int32_t>(static_cast<size_t>(num_queries * kGroups * kTopK));
  const HostCopies host(batch);

  size_t wrong_lists = 0;
  for (int64_t list = 0; list < num_queries * kGroups; ++list) {
    const int64_t position = num_keys - num_queries + list % num_queries;
    const int32_t local = static_cast<int32_t>(position / kBlock);
    const int32_t* row = ids.data() + list * kTopK;
    const int64_t count = std::min<int64_t>(kTopK, local + 1);
    bool right = row[count - 1] == local;
    for (int64_t n = 0; n < kTopK; ++n) {
      right =
          right && (n < count ? row[n] >= 0 && row[n] <= local && (n == 0 || row[n] > row[n - 1])
                              : row[n] == -1);
    }
    wrong_lists += right ? 0 : 1;
  }
  report.add(name + "ids ascend, end with the local block", wrong_lists == 0,
             fmt::format("{} of {} lists wrong", wrong_lists, num_queries * kGroups));

  std::mt19937 random(7);
  std::vector<int64_t> rows;
  int other = 0;
  std::string problem;
  for (int n = 0; n < samples && problem.empty(); ++n) {
    rows.push_back(static_cast<int64_t>(random() % static_cast<unsigned long>(num_queries)));
    problem = selection_problem(reference, batch, host, ids, OneRow(batch, rows.back()), &other);
  }
  report.add(name + "sampled selections", problem.empty(),
             problem.empty()
                 ? fmt::format("{} of {} differ within tolerance", other, samples * kGroups)
                 : problem);

  cuda::AttentionTuning& tuning = cuda::attention_tuning();
  const cuda::AttentionTuning before = tuning;
  tuning.query_tiles = true;
  check_sampled_attention(report, name, on_cuda, reference, batch, host, ids, rows);
  check_sampled_attention(report, name + "lists shared by four, ", on_cuda, reference, batch, host,
                          shared_lists(batch, ids), rows);
  tuning = before;
}

}  // namespace msa::test
