// Two partial attentions into one, in double: lse = log(exp(lse_a) + exp(lse_b)), and the outputs
// weighted by exp(lse_a - lse) and exp(lse_b - lse). An empty part is not read.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "reference/ops.h"
#include "reference/visible.h"

namespace msa::reference {
namespace {

void merge_row(const core::MergeStatesParams& p, int64_t t, int64_t h) {
  constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
  double lses[2];
  for (int part = 0; part < 2; ++part) {
    lses[part] = static_cast<double>(p.lse[part].data[p.lse[part].offset(t, h)]);
  }
  std::vector<double> out(static_cast<size_t>(p.head_dim), 0.0);
  const double largest = std::max(lses[0], lses[1]);
  double sum = 0;
  for (int part = 0; part < 2; ++part) {
    if (lses[part] == kMinusInfinity) continue;
    const double weight = std::exp(lses[part] - largest);
    const core::RowsParams<const void*>& from = p.out[part];
    sum += weight;
    for (size_t d = 0; d < out.size(); ++d) {
      out[d] +=
          weight * element(from.data, from.dtype, from.offset(t, h) + static_cast<int64_t>(d));
    }
  }
  const bool empty = lses[0] == kMinusInfinity && lses[1] == kMinusInfinity;
  for (double& value : out) value = empty ? 0.0 : value / sum;
  store_row(out, p.merged_out, t, h);
  if (p.merged_lse.data != nullptr) {
    p.merged_lse.data[p.merged_lse.offset(t, h)] =
        static_cast<float>(empty ? kMinusInfinity : largest + std::log(sum));
  }
}

}  // namespace

void merge_states(const core::MergeStatesParams& p, const core::RunContext& run) {
  (*run.parallel_for)(p.num_query_tokens* p.num_q_heads, [&p](int64_t task, int) {
    merge_row(p, task / p.num_q_heads, task % p.num_q_heads);
  });
}

}  // namespace msa::reference
