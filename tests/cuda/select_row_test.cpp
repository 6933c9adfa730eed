// select_row.cuh on the host: a warp's selection against a plain sort, for scores that are easy and
// scores that are not, in one chunk and in several.
#include "cuda/emulation/emulation.h"
// The stand-ins come first.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "cuda/device/select_row.cuh"

namespace msa::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Row {
  std::vector<float> scores;
  int kept = 0;
  int chunk = 0;  // a multiple of 128
};

std::vector<int32_t> expected_ids(const Row& row, int local, int top_k) {
  std::vector<int32_t> order;
  for (size_t n = 0; n < row.scores.size(); ++n) order.push_back(static_cast<int32_t>(n));
  const auto value = [&](int32_t id) {
    const float score = row.scores[static_cast<size_t>(id)];
    return score != score ? -kInfinity : score;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return value(a) > value(b); });
  if (order.size() > static_cast<size_t>(row.kept)) order.resize(static_cast<size_t>(row.kept));
  std::sort(order.begin(), order.end());
  if (local >= 0) order.push_back(local);
  order.resize(static_cast<size_t>(top_k), -1);
  return order;
}

template <int kSets>
std::vector<int32_t> selected_ids(const Row& row, int local, int top_k) {
  std::vector<int32_t> ids(static_cast<size_t>(top_k), 77);
  alignas(16) static float stage[8192];
  static uint64_t room[kCandidatePlaces];
  emulation::run_grid(dim3(1), 32, [&] {
    const auto columns = static_cast<int>(row.scores.size());
    int held = 0;
    for (int first = 0; first < columns; first += row.chunk) {
      const int count = std::min(row.chunk, columns - first);
      __syncwarp();
      for (int n = emulation::lane(); n < (count + 127) / 128 * 128; n += 32) {
        stage[n] = n < count ? row.scores[static_cast<size_t>(first + n)] : select_lowest();
      }
      __syncwarp();
      held = select_columns<kSets>(stage, count, first, row.kept, room, held);
    }
    __syncwarp();
    write_selection(room, held, local, ids.data(), top_k);
  });
  return ids;
}

std::vector<int32_t> selected(const Row& row, int local, int top_k) {
  switch (select_sets(row.kept)) {
    case 1:
      return selected_ids<1>(row, local, top_k);
    case 2:
      return selected_ids<2>(row, local, top_k);
    default:
      return selected_ids<4>(row, local, top_k);
  }
}

float score_of(int kind, int column, std::mt19937& random) {
  std::normal_distribution<float> normal;
  const float special[] = {-0.0f, 0.0f, kInfinity, -kInfinity, std::nanf(""), 1.0f, -1.0f};
  switch (kind) {
    case 0:
      return normal(random);
    case 1:
      return 0.25f;
    case 2:
      return static_cast<float>(column);
    case 3:
      return -static_cast<float>(column);
    case 4:
      return static_cast<float>(random() % 5);
    case 5:
      return special[random() % std::size(special)];
    case 6:
      return -kInfinity;
    default:
      return column % 128 < 4 ? 100.0f + normal(random) : normal(random);
  }
}

TEST(SelectRow, EqualsASort) {
  emulation::set_seed(3);
  std::mt19937 random(11);
  for (int kind = 0; kind < 8; ++kind) {
    for (const int columns : {1, 5, 127, 128, 129, 400, 1024, 2500}) {
      for (const int top_k : {1, 4, 16, 17, 32, 40, 64}) {
        Row row;
        row.chunk = random() % 2 == 0 ? 1024 : 4096;
        for (int n = 0; n < columns; ++n) row.scores.push_back(score_of(kind, n, random));
        row.kept = top_k;
        ASSERT_EQ(selected(row, -1, top_k), expected_ids(row, -1, top_k))
            << "kind " << kind << ", " << columns << " columns, K " << top_k;
        if (top_k == 1) continue;
        row.kept = top_k - 1;
        ASSERT_EQ(selected(row, columns, top_k), expected_ids(row, columns, top_k))
            << "with a local block, kind " << kind << ", " << columns << " columns, K " << top_k;
      }
    }
  }
}

}  // namespace
}  // namespace msa::cuda
