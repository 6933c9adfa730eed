#include "cli/inspect/survey.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <span>

namespace msa::cli {
namespace {

/// A heat map has at most this many bins a side: a pixel each at least.
constexpr int64_t kMostBins = 512;
/// Requests of one call of the recall op, which bounds its workspace.
constexpr int64_t kRecallBatch = 64;

/// The valid ids of a row.
std::span<const int32_t> list_of(const runner::SelectionView& view, int64_t group, int64_t row) {
  const auto* ids = static_cast<const int32_t*>(view.block_ids.data) +
                    group * view.block_ids.stride[0] + row * view.block_ids.stride[1];
  const auto* end = std::find(ids, ids + view.block_ids.shape[2], -1);
  return {ids, end};
}

double jaccard(std::span<const int32_t> a, std::span<const int32_t> b) {
  int64_t both = 0;
  for (const int32_t id : a) both += std::count(b.begin(), b.end(), id);
  return static_cast<double>(both) /
         static_cast<double>(static_cast<int64_t>(a.size() + b.size()) - both);
}

}  // namespace

Survey::Survey(const Context& context, const SurveyOptions& options)
    : context_(context),
      options_(options),
      num_blocks_((options.num_tokens + options.block_size - 1) / options.block_size),
      blocks_per_bin_((num_blocks_ + kMostBins - 1) / kMostBins),
      num_bins_((num_blocks_ + blocks_per_bin_ - 1) / blocks_per_bin_),
      stamps_(static_cast<size_t>(num_blocks_), 0) {
  const int64_t choosing = options.num_tokens - first_choosing_position();
  if (options.recall_rows > 0 && choosing > 0) {
    recall_step_ = (choosing + options.recall_rows - 1) / options.recall_rows;
  }
}

int64_t Survey::queries_in_bin(int64_t bin) const {
  const int64_t size = blocks_per_bin_ * options_.block_size;
  return std::min(size, options_.num_tokens - bin * size);
}

int64_t Survey::num_recall_rows() const {
  if (recall_step_ == 0) return 0;
  return (options_.num_tokens - first_choosing_position() + recall_step_ - 1) / recall_step_;
}

void Survey::see(const runner::SelectionView& view) {
  std::vector<GroupSurvey>& groups = layers_[view.layer];
  if (groups.empty()) {
    groups.resize(static_cast<size_t>(options_.num_groups));
    for (GroupSurvey& group : groups) {
      group.heat.assign(static_cast<size_t>(num_bins_ * num_bins_), 0);
    }
  }
  for (int64_t group = 0; group < options_.num_groups; ++group) {
    count_heat(view, group, groups[static_cast<size_t>(group)]);
    count_overlap(view, group, groups[static_cast<size_t>(group)]);
  }
  measure_recalls(view, groups);
  keep_ids(view);
}

void Survey::count_heat(const runner::SelectionView& view, int64_t group,
                        GroupSurvey& survey) const {
  for (int64_t row = 0; row < view.num_tokens; ++row) {
    const int64_t query_bin = (view.first_position + row) / (blocks_per_bin_ * options_.block_size);
    uint32_t* const heat = survey.heat.data() + query_bin * num_bins_;
    int64_t last_bin = -1;  // ids ascend: a bin counts once a query
    for (const int32_t id : list_of(view, group, row)) {
      const int64_t bin = id / blocks_per_bin_;
      if (bin != last_bin) ++heat[bin];
      last_bin = bin;
    }
  }
}

void Survey::count_overlap(const runner::SelectionView& view, int64_t group, GroupSurvey& survey) {
  const int64_t first = std::max<int64_t>(0, first_choosing_position() - view.first_position);
  for (int64_t row = first; row < view.num_tokens; ++row) {
    const std::span<const int32_t> list = list_of(view, group, row);
    survey.first_block.add(!list.empty() && list[0] == 0 ? 1 : 0);
    if (row > first) survey.jaccard.add(jaccard(list_of(view, group, row - 1), list));
  }
  for (size_t n = 0; n < kUnionSizes.size(); ++n) {
    const int64_t size = kUnionSizes[n];
    // Runs of positions that are multiples of their size.
    const int64_t begin = (view.first_position + first + size - 1) / size * size;
    for (int64_t position = begin; position + size <= view.first_position + view.num_tokens;
         position += size) {
      ++stamp_;
      int64_t distinct = 0;
      for (int64_t row = position; row < position + size; ++row) {
        for (const int32_t id : list_of(view, group, row - view.first_position)) {
          int64_t& stamp = stamps_[static_cast<size_t>(id)];
          distinct += stamp == stamp_ ? 0 : 1;
          stamp = stamp_;
        }
      }
      survey.unions[n].add(static_cast<double>(distinct));
    }
  }
}

void Survey::measure_recalls(const runner::SelectionView& view, std::vector<GroupSurvey>& groups) {
  if (recall_step_ == 0) return;
  const int64_t least = std::max(view.first_position, first_choosing_position());
  const int64_t behind = options_.num_tokens - 1 - least;
  const int64_t end = view.first_position + view.num_tokens;
  // The measured positions of this chunk, one step apart.
  int64_t position = options_.num_tokens - 1 - behind / recall_step_ * recall_step_;
  while (position < end) {
    const int64_t left = (end - position + recall_step_ - 1) / recall_step_;
    const int64_t count = std::min(left, kRecallBatch);
    const int64_t row = position - view.first_position;
    std::vector<int32_t> queries;
    std::vector<int32_t> lengths;
    for (int32_t n = 0; n <= count; ++n) queries.push_back(n);
    for (int64_t n = 0; n < count; ++n) {
      lengths.push_back(static_cast<int32_t>(position + n * recall_step_ + 1));
    }
    const auto& q = view.q;
    const auto& ids = view.block_ids;
    const int64_t num_groups = options_.num_groups;
    std::array<std::vector<float>, kNumRecalls> rows;
    for (auto& values : rows) values.resize(static_cast<size_t>(num_groups * count));
    const auto output = [&](size_t kind) {
      return MutableTensor(rows[kind].data(), DType::kFloat32, {num_groups, count});
    };
    RecallArgs args;
    args.q = {static_cast<const float*>(q.data) + row * q.stride[0],
              DType::kFloat32,
              {count, q.shape[1], q.shape[2]},
              {q.stride[0] * recall_step_, q.stride[1], 1}};
    args.k = view.k;
    args.sequences = {.cu_seqlens_q = {queries.data(), DType::kInt32, {count + 1}},
                      .cu_seqlens_k = {},
                      .page_table = {view.page_table.data,
                                     DType::kInt32,
                                     {count, view.page_table.shape[1]},
                                     {0, 1}},
                      .kv_lens = {lengths.data(), DType::kInt32, {count}}};
    args.block_size = options_.block_size;
    args.block_ids = {static_cast<const int32_t*>(ids.data) + row * ids.stride[1],
                      DType::kInt32,
                      {num_groups, count, ids.shape[2]},
                      {ids.stride[0], ids.stride[1] * recall_step_, 1}};
    args.rows = {output(0), output(1), output(2), output(3)};
    const size_t bytes = recall_workspace_size(context_, args);
    std::vector<std::byte> memory(bytes + 64);
    void* aligned = memory.data();
    size_t room = memory.size();
    std::align(64, bytes, aligned, room);
    recall(context_, args, {.data = aligned, .bytes = bytes, .stream = nullptr});
    for (size_t kind = 0; kind < kNumRecalls; ++kind) {
      for (int64_t n = 0; n < num_groups * count; ++n) {
        const float value = rows[kind][static_cast<size_t>(n)];
        if (std::isnan(value)) continue;
        groups[static_cast<size_t>(n / count)].recalls[kind].add(static_cast<double>(value));
      }
    }
    position += count * recall_step_;
  }
}

void Survey::keep_ids(const runner::SelectionView& view) {
  if (options_.kept_rows == 0) return;
  const auto top_k = static_cast<size_t>(options_.top_k);
  std::vector<int32_t>& kept = kept_ids_[view.layer];
  kept.resize(static_cast<size_t>(options_.num_groups * options_.kept_rows) * top_k, -1);
  const int64_t first_kept = options_.num_tokens - options_.kept_rows;
  for (int64_t row = std::max<int64_t>(0, first_kept - view.first_position); row < view.num_tokens;
       ++row) {
    const int64_t place = view.first_position + row - first_kept;
    for (int64_t group = 0; group < options_.num_groups; ++group) {
      const std::span<const int32_t> list = list_of(view, group, row);
      std::copy(list.begin(), list.end(),
                kept.begin() + (group * options_.kept_rows + place) * options_.top_k);
    }
  }
}

}  // namespace msa::cli
