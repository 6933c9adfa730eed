#include "host/recall.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace msa::host {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double quotient(double part, double whole) { return whole == 0 ? 1.0 : part / whole; }

bool is_chosen(const int32_t* ids, int64_t top_k, int32_t block) {
  for (int64_t n = 0; n < top_k && ids[n] != -1; ++n) {
    if (ids[n] == block) return true;
  }
  return false;
}

/// Blocks and masses of a set.
struct Sum {
  double blocks = 0;
  double mass = 0;
  void add(double block_mass) {
    blocks += 1;
    mass += block_mass;
  }
};

}  // namespace

void find_recalls(const core::RecallParams& p, const RecallRow& row, const double* mass,
                  int32_t* order, double* recalls) {
  const core::BlockIdParams<const int32_t*>& list = p.attention.block_ids;
  const int32_t* ids = list.data + row.group * list.head_stride + row.t * list.token_stride;
  const auto local = static_cast<int32_t>(row.local_block(p.attention));
  std::iota(order, order + local + 1, 0);
  // A NaN ranks last, so that the order stays an order.
  const auto rank = [mass](int32_t block) { return mass[block] >= 0 ? mass[block] : -1.0; };
  std::partial_sort(order, order + list.top_k, order + local + 1, [&rank](int32_t a, int32_t b) {
    return rank(a) > rank(b) || (rank(a) == rank(b) && a < b);
  });
  Sum best;
  Sum found;
  Sum best_others;
  Sum found_others;
  for (int64_t n = 0; n < list.top_k; ++n) {
    const int32_t block = order[n];
    const bool chosen = is_chosen(ids, list.top_k, block);
    best.add(mass[block]);
    if (chosen) found.add(mass[block]);
    if (block == local) continue;
    best_others.add(mass[block]);
    if (chosen) found_others.add(mass[block]);
  }
  recalls[0] = quotient(found.blocks, best.blocks);
  recalls[1] = quotient(found.mass, best.mass);
  recalls[2] = quotient(found_others.blocks, best_others.blocks);
  recalls[3] = quotient(found_others.mass, best_others.mass);
}

void write_uncounted(double* recalls) {
  std::fill_n(recalls, core::RecallParams::kNumRecalls, kNaN);
}

void write_recalls(const core::RecallParams& p, const double* recalls) {
  constexpr int kNumRecalls = core::RecallParams::kNumRecalls;
  const int64_t num_rows = p.attention.sequences.num_query_tokens;
  for (int kind = 0; kind < kNumRecalls; ++kind) {
    double sum = 0;
    int64_t count = 0;
    for (int64_t g = 0; g < p.attention.num_kv_heads; ++g) {
      for (int64_t t = 0; t < num_rows; ++t) {
        const double value = recalls[(g * num_rows + t) * kNumRecalls + kind];
        const core::RowsParams<float*>& rows = p.rows[kind];
        if (rows.data != nullptr) rows.data[rows.offset(t, g)] = static_cast<float>(value);
        if (std::isnan(value)) continue;
        sum += value;
        ++count;
      }
    }
    if (p.means[kind] != nullptr) {
      *p.means[kind] = static_cast<float>(count == 0 ? kNaN : sum / static_cast<double>(count));
    }
  }
}

}  // namespace msa::host
