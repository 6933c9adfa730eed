#include "cuda/stage_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "core/element.h"
#include "cuda/device/layout.h"
#include "cuda/device_memory.h"
#include "cuda/host/config.h"
#include "cuda/host/ops.h"
#include "cuda/one_request.h"

namespace msa::test {
namespace {

constexpr int64_t kKeys = 1500;
constexpr int64_t kRows = 130;
constexpr int64_t kGroups = 4;
constexpr int64_t kDim = 128;
constexpr int64_t kBlock = 128;
constexpr int64_t kTopK = 8;

/// Host copies of the inputs, and the op's params on the device.
struct Batch {
  int64_t group_size;
  std::vector<uint16_t> q, k, v;
  std::vector<int32_t> ids;  // [kGroups, kRows, kTopK]
  OneRequest request{kRows, kKeys};
  DeviceMemory out, lse;
  std::unique_ptr<DeviceMemory> device_q, device_k, device_v, device_ids;
  core::AttentionForwardParams op;

  explicit Batch(int64_t group)
      : group_size(group),
        q(static_cast<size_t>(kRows * kGroups * group * kDim)),
        k(static_cast<size_t>(kKeys * kGroups * kDim)),
        v(k.size()),
        ids(static_cast<size_t>(kGroups * kRows * kTopK)),
        out(q.size() * 2),
        lse(static_cast<size_t>(kRows * kGroups * group * 4)) {
    std::mt19937 random(8);
    std::normal_distribution<float> normal(0, 1);
    for (auto* values : {&q, &k, &v}) {
      for (uint16_t& value : *values) value = core::float_to_bfloat16(normal(random));
    }
    for (int64_t g = 0; g < kGroups; ++g) {
      for (int64_t t = 0; t < kRows; ++t) {
        const int64_t local = (kKeys - kRows + t) / kBlock;
        for (int64_t n = 0; n < kTopK; ++n) {  // repeats and ids past the end on purpose
          ids[static_cast<size_t>((g * kRows + t) * kTopK + n)] =
              n == 3 ? static_cast<int32_t>(local)
                     : static_cast<int32_t>(random() % static_cast<uint64_t>(local + 2));
        }
      }
    }
    device_q = std::make_unique<DeviceMemory>(q);
    device_k = std::make_unique<DeviceMemory>(k);
    device_v = std::make_unique<DeviceMemory>(v);
    device_ids = std::make_unique<DeviceMemory>(ids);
    const int64_t heads = kGroups * group;
    op.q = device_q->data();
    op.q_dtype = DType::kBFloat16;
    op.q_token_stride = op.out_token_stride = heads * kDim;
    op.q_head_stride = op.out_head_stride = kDim;
    op.k = {device_k->data(), DType::kBFloat16, 0, kGroups * kDim, kDim, kKeys};
    op.v = {device_v->data(), DType::kBFloat16, 0, kGroups * kDim, kDim, kKeys};
    const Sequences sequences = request.sequences();
    op.sequences.cu_seqlens_q = static_cast<const int32_t*>(sequences.cu_seqlens_q.data);
    op.sequences.cu_seqlens_k = static_cast<const int32_t*>(sequences.cu_seqlens_k.data);
    op.sequences.batch = 1;
    op.sequences.num_query_tokens = kRows;
    op.num_q_heads = heads;
    op.num_kv_heads = kGroups;
    op.head_dim = kDim;
    op.block_size = kBlock;
    op.scale = 0.088f;
    op.block_ids = {static_cast<const int32_t*>(device_ids->data()), kRows * kTopK, kTopK, kTopK};
    op.out = out.data();
    op.lse = static_cast<float*>(lse.data());
    op.lse_token_stride = heads;
    op.lse_head_stride = 1;
  }
  const int32_t* list(int64_t group, int64_t row) const {
    return ids.data() + (group * kRows + row) * kTopK;
  }
};

/// Copies an array that lies in a workspace on the device.
template <typename T>
std::vector<T> fetch(const T* data, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  cuda::check_cuda(
      "test", cudaMemcpy(values.data(), data, values.size() * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

/// A visit's partial row and LSE in double; "" when the stored ones agree.
std::string partial_problem(const Batch& batch, int64_t row, int64_t head, int64_t block,
                            const uint16_t* stored, float stored_lse2) {
  const int64_t heads = kGroups * batch.group_size;
  const int64_t group = head / batch.group_size;
  const auto value = [](const std::vector<uint16_t>& from, int64_t at) {
    return static_cast<double>(core::bfloat16_to_float(from[static_cast<size_t>(at)]));
  };
  std::vector<double> logits(kBlock, -HUGE_VAL);  // tokens behind the row's position
  double largest = -1e300;
  const int64_t visible = std::min(kBlock, kKeys - kRows + row - block * kBlock + 1);
  for (int64_t j = 0; j < visible; ++j) {
    double dot = 0;
    for (int64_t d = 0; d < kDim; ++d) {
      dot += value(batch.q, (row * heads + head) * kDim + d) *
             value(batch.k, ((block * kBlock + j) * kGroups + group) * kDim + d);
    }
    logits[static_cast<size_t>(j)] = dot * static_cast<double>(batch.op.scale);
    largest = std::max(largest, logits[static_cast<size_t>(j)]);
  }
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - largest);
  const double lse2 = (largest + std::log(sum)) / std::log(2.0);
  if (!(std::abs(lse2 - static_cast<double>(stored_lse2)) < 1e-3)) {
    return fmt::format("row {} head {} block {}: lse2 {} for {}", row, head, block, stored_lse2,
                       lse2);
  }
  for (int64_t d = 0; d < kDim; ++d) {
    double out = 0;
    for (int64_t j = 0; j < visible; ++j) {
      out += std::exp(logits[static_cast<size_t>(j)] - largest) / sum *
             value(batch.v, ((block * kBlock + j) * kGroups + group) * kDim + d);
    }
    const auto got = static_cast<double>(
        core::bfloat16_to_float(stored[cuda::partial_place(static_cast<int>(d))]));
    if (!(std::abs(out - got) < 1e-2)) {
      return fmt::format("row {} head {} block {} column {}: {} for {}", row, head, block, d, got,
                         out);
    }
  }
  return "";
}

void check_group_size(Report& report, int64_t group_size) {
  Batch batch(group_size);
  cuda::AttentionKernelParams p;
  const size_t bytes = cuda::attention_kernel_params(batch.op, nullptr, &p);
  const DeviceMemory workspace(bytes);
  cuda::attention_kernel_params(batch.op, workspace.data(), &p);
  core::RunContext run;
  run.workspace = workspace.data();
  cuda::attention_forward(batch.op, run);
  cuda::check_cuda("attention_forward", cudaDeviceSynchronize());
  const std::string name = fmt::format("stages, {} heads a group: ", group_size);
  const int64_t passes = p.num_ranges;  // one chunk holds all rows

  // Plan: masks.
  const auto masks = fetch(p.masks, kRows * kGroups);
  std::string problem;
  int64_t expected_visits = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t group = 0; group < kGroups; ++group) {
      const uint64_t mask = cuda::classify(batch.list(group, row), kTopK,
                                           static_cast<int>((kKeys - kRows + row) / kBlock));
      if (masks[static_cast<size_t>(row * kGroups + group)] != mask && problem.empty()) {
        problem = fmt::format("row {} group {}: {:#x} for {:#x}", row, group,
                              masks[static_cast<size_t>(row * kGroups + group)], mask);
      }
      expected_visits += std::popcount(mask & 0xFFFFFFFFu);
    }
  }
  report.add(name + "masks", problem.empty(), problem);

  // Plan: every visit in exactly one item of its block. Gather: its partial row.
  const auto num_items = fetch(p.num_items, passes);
  const auto tickets = fetch(p.tickets, passes);
  std::set<std::vector<int64_t>> seen;
  std::string plan_problem;
  std::string gather_problem;
  std::string ticket_problem;
  for (int64_t pass = 0; pass < passes; ++pass) {
    const int64_t count = num_items[static_cast<size_t>(pass)];
    if (count < 0 || count > p.items_per_pass) {
      plan_problem = fmt::format("pass {} has {} items", pass, count);
      break;
    }
    if (tickets[static_cast<size_t>(pass)] < count) {
      ticket_problem = fmt::format("pass {}: {} of {} items taken", pass,
                                   tickets[static_cast<size_t>(pass)], count);
    }
    const auto items = fetch(p.items + pass * p.items_per_pass, count);
    const auto visits =
        fetch(p.visits + pass * p.visits_per_pass,
              p.list_shift > 0 ? p.bins_per_pass << p.list_shift : p.visits_per_pass);
    const auto bins = fetch(p.bins + pass * p.bins_per_pass, p.bins_per_pass);
    const int64_t partial_rows = (p.visits_per_pass << p.group_shift) * p.partial_buffers;
    const auto lse2 = fetch(p.partial_lse2, partial_rows);
    const auto partial = fetch(static_cast<const uint16_t*>(p.partial), partial_rows * kDim);
    for (const cuda::Item& item : items) {
      const int64_t in_range = cuda::item_group(item.packed);
      const int64_t tokens = std::min(kBlock, kKeys - item.begin);
      if (cuda::item_tokens(item.packed) != tokens) plan_problem = "an item has the wrong tokens";
      const int64_t group = pass * p.groups_per_pass + in_range;
      int item_count = cuda::item_visits(item.packed);
      if (p.list_shift > 0) {
        const auto first = static_cast<uint32_t>(item.first_visit);
        item_count =
            cuda::visits_in_list(item_count, first, p.list_shift, bins[first >> p.list_shift]);
      }
      for (int64_t n = 0; n < item_count && plan_problem.empty(); ++n) {
        const uint32_t visit = visits[static_cast<size_t>(item.first_visit + n)];
        const int64_t row = cuda::visit_row(visit);
        const int64_t place = cuda::visit_place(visit);
        if (row >= kRows || place >= kTopK || group >= kGroups ||
            batch.list(group, row)[place] * kBlock != item.begin) {
          plan_problem = fmt::format("token {} group {}: visit of row {} place {}", item.begin,
                                     group, row, place);
          break;
        }
        const int64_t position = kKeys - kRows + row;
        if (cuda::item_is_local(item.packed) != (position / kBlock * kBlock == item.begin) ||
            row + item.shift != position - item.begin) {
          plan_problem =
              fmt::format("token {}: row {} stands at {} in it", item.begin, row, row + item.shift);
          break;
        }
        if (!seen.insert({group, row, place}).second) plan_problem = "a visit comes twice";
        // Later passes overwrite the partial rows of earlier ones; the last two remain.
        if (pass + 2 < passes || !gather_problem.empty() || (row + place) % 5 != 0) continue;
        const int64_t head = row % group_size;
        const int64_t at = p.partial_row(static_cast<int>(pass), row, static_cast<int>(in_range),
                                         static_cast<int>(place), static_cast<int>(head));
        gather_problem = partial_problem(batch, row, group * group_size + head, item.begin / kBlock,
                                         partial.data() + at * kDim, lse2[static_cast<size_t>(at)]);
      }
    }
  }
  if (plan_problem.empty() && static_cast<int64_t>(seen.size()) != expected_visits) {
    plan_problem = fmt::format("{} visits for {}", seen.size(), expected_visits);
  }
  report.add(name + "reverse index", plan_problem.empty(), plan_problem);
  report.add(name + "tickets", ticket_problem.empty(), ticket_problem);
  report.add(name + "partial rows", gather_problem.empty(), gather_problem);
}

}  // namespace

void check_stages(Report& report) {
  const cuda::AttentionTuning before = cuda::attention_tuning();
  cuda::attention_tuning().query_tiles = false;  // every visit is to be gathered
  for (const int64_t group_size : {16, 8, 4, 2, 1}) check_group_size(report, group_size);
  cuda::attention_tuning() = before;
}

}  // namespace msa::test
