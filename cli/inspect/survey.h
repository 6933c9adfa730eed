// What the index selected, counted as a model reads: for each sparse layer and group
//
//   heat      how many queries of a run of positions took a block of a run of blocks
//   overlap   of neighbouring queries: Jaccard of two, union of 4, 8 and 16
//   recalls   against dense attention on a sample of rows (msa/recall.h)
//
// Overlap, recalls and the share of the first block look at rows with more than K visible blocks:
// the others choose nothing. Neighbours are looked at within one chunk of the prefill.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "runner/runner.h"

namespace msa::cli {

/// Queries of one group whose lists are united.
inline constexpr std::array<int64_t, 3> kUnionSizes = {4, 8, 16};

/// A mean in the making.
struct Mean {
  double sum = 0;
  int64_t count = 0;
  void add(double value) {
    sum += value;
    ++count;
  }
  bool empty() const { return count == 0; }
  double value() const { return sum / static_cast<double>(count); }
};

/// The four recalls, in the order of msa::RecallViews.
inline constexpr size_t kNumRecalls = 4;

struct GroupSurvey {
  std::vector<uint32_t> heat;  ///< [bins of queries][bins of blocks]: queries that took a block
  Mean jaccard;
  std::array<Mean, kUnionSizes.size()> unions;  ///< distinct blocks
  Mean first_block;                             ///< 1 when block 0 was taken
  std::array<Mean, kNumRecalls> recalls;
};

struct SurveyOptions {
  int64_t num_tokens = 0;
  int64_t block_size = 0;
  int64_t top_k = 0;
  int64_t num_groups = 0;
  int64_t recall_rows = 0;  ///< at most; 0: none
  int64_t kept_rows = 0;    ///< the last so many rows' ids are kept whole
};

class Survey {
 public:
  /// `context` computes the recalls.
  Survey(const Context& context, const SurveyOptions& options);

  /// What a SelectionProbe gets.
  void see(const runner::SelectionView& view);

  /// Groups of each sparse layer.
  const std::map<int64_t, std::vector<GroupSurvey>>& layers() const { return layers_; }
  /// int32 [Hkv, kept rows, K] of each sparse layer.
  const std::map<int64_t, std::vector<int32_t>>& kept_ids() const { return kept_ids_; }

  const SurveyOptions& options() const { return options_; }
  int64_t num_blocks() const { return num_blocks_; }
  int64_t blocks_per_bin() const { return blocks_per_bin_; }
  int64_t num_bins() const { return num_bins_; }
  /// Queries of a bin; fewer in the last.
  int64_t queries_in_bin(int64_t bin) const;
  int64_t first_choosing_position() const { return options_.top_k * options_.block_size; }
  /// Rows a layer whose recalls are measured.
  int64_t num_recall_rows() const;

 private:
  void count_heat(const runner::SelectionView& view, int64_t group, GroupSurvey& survey) const;
  void count_overlap(const runner::SelectionView& view, int64_t group, GroupSurvey& survey);
  void measure_recalls(const runner::SelectionView& view, std::vector<GroupSurvey>& groups);
  void keep_ids(const runner::SelectionView& view);

  const Context& context_;
  SurveyOptions options_;
  int64_t num_blocks_;
  int64_t blocks_per_bin_;
  int64_t num_bins_;
  int64_t recall_step_ = 0;  // rows N - 1, N - 1 - step, ... are measured; 0: none
  std::map<int64_t, std::vector<GroupSurvey>> layers_;
  std::map<int64_t, std::vector<int32_t>> kept_ids_;
  std::vector<int64_t> stamps_;  // of each block: the last union it was counted in
  int64_t stamp_ = 0;
};

}  // namespace msa::cli
