// Block recall and score recall as the definitions stand, in double; see msa/recall.h.
//
//   P_b = (1/G) sum over h in g, visible j in block b of softmax_j(scale q[i,h].k[j,g])
//
// A task is a row and a group.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "host/recall.h"
#include "reference/ops.h"
#include "reference/visible.h"

namespace msa::reference {
namespace {

std::vector<double> block_masses(const core::AttentionForwardParams& p, const Row& row, int64_t t,
                                 int64_t g) {
  const int64_t group = p.group_size();
  std::vector<double> mass(static_cast<size_t>(row.position / p.block_size) + 1, 0.0);
  std::vector<double> logits(static_cast<size_t>(row.position) + 1);
  for (int64_t h = g * group; h < (g + 1) * group; ++h) {
    double largest = -std::numeric_limits<double>::infinity();
    for (size_t j = 0; j < logits.size(); ++j) {
      logits[j] = logit(p, row.request, t, h, static_cast<int64_t>(j));
      largest = std::max(largest, logits[j]);
    }
    double sum = 0;
    for (const double value : logits) sum += std::exp(value - largest);
    for (size_t j = 0; j < logits.size(); ++j) {
      mass[j / static_cast<size_t>(p.block_size)] +=
          std::exp(logits[j] - largest) / sum / static_cast<double>(group);
    }
  }
  return mass;
}

}  // namespace

void recall(const core::RecallParams& p, const core::RunContext& run) {
  const core::SequenceParams& s = p.attention.sequences;
  const int64_t num_groups = p.attention.num_kv_heads;
  const int64_t num_rows = s.num_query_tokens * num_groups;
  std::vector<double> recalls(static_cast<size_t>(num_rows * core::RecallParams::kNumRecalls));
  (*run.parallel_for)(num_rows, [&](int64_t task, int) {
    const int64_t g = task / s.num_query_tokens;
    const int64_t t = task % s.num_query_tokens;
    const Row row = find_row(s, t);
    const host::RecallRow place = {t, g, row.empty() ? -1 : row.position};
    double* const out = recalls.data() + task * core::RecallParams::kNumRecalls;
    if (place.local_block(p.attention) < 0) {
      host::write_uncounted(out);
      return;
    }
    const std::vector<double> mass = block_masses(p.attention, row, t, g);
    std::vector<int32_t> order(mass.size());
    host::find_recalls(p, place, mass.data(), order.data(), out);
  });
  host::write_recalls(p, recalls.data());
}

}  // namespace msa::reference
