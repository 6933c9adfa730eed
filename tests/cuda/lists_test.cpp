// The candidate lists of the index kernel, the same code as on the GPU, against a sort.
#include "cuda/device/lists.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <random>
#include <vector>

namespace msa::cuda {
namespace {

constexpr int kRows = 3;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Ids of the best `num_kept` scores, lower id first on ties, ascending.
std::vector<int> best_ids(const std::vector<float>& scores, int num_kept) {
  std::vector<int> ids(scores.size());
  for (size_t n = 0; n < ids.size(); ++n) ids[n] = static_cast<int>(n);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  ids.resize(std::min(ids.size(), static_cast<size_t>(num_kept)));
  std::sort(ids.begin(), ids.end());
  return ids;
}

/// Memory of kRows lists, and what the kernel does with a block.
struct Lists {
  explicit Lists(int num_kept)
      : words(static_cast<size_t>(3 * kRows * list_slots(num_kept)) / 4 + 1), lists{} {
    uint32_t* first = words.data()->words;
    const auto size = static_cast<ptrdiff_t>(kRows) * list_slots(num_kept);
    lists = {first, first + size, first + 2 * size, list_slots(num_kept), num_kept};
    for (FourWords& four : words) std::fill_n(four.words, 4, 0xDEADBEEFu);
    for (int row = 0; row < kRows; ++row) states[row] = clear_list(lists, row);
  }
  void offer(int row, float score, int id) {
    const uint32_t key = ordered_score(std::bit_cast<uint32_t>(score));
    ListState& list = states[row];
    if (key <= list.threshold) return;
    const auto lse_bits = static_cast<uint32_t>(id * 7);
    if (list.threshold == kNoCandidate) {
      append_entry(lists, row, list, key, id, lse_bits);
    } else {
      replace_worst(lists, row, list, key, id, lse_bits);
    }
  }
  /// The ids in the order of their slots; checks that scores and LSEs moved along.
  std::vector<int> ids(int row, const std::vector<float>& scores) const {
    std::vector<int> result;
    const int count = list_count(lists, states[row]);
    for (int n = 0; n < lists.num_kept; ++n) {
      const auto place = static_cast<size_t>(lists.place(lists.first_slot() + n, row));
      if (n >= count) {
        EXPECT_EQ(lists.keys[place], kNoCandidate);
        continue;
      }
      const auto id = static_cast<int>(lists.ids[place]);
      result.push_back(id);
      EXPECT_EQ(lists.keys[place],
                ordered_score(std::bit_cast<uint32_t>(scores[static_cast<size_t>(id)])));
      EXPECT_EQ(lists.lses[place], static_cast<uint32_t>(id * 7));
    }
    for (int slot = 0; slot < lists.first_slot(); ++slot) {
      EXPECT_EQ(lists.keys[lists.place(slot, row)], kNeverReplaced);
    }
    return result;
  }

  std::vector<FourWords> words;
  CandidateLists<kRows> lists;
  ListState states[kRows] = {};
};

void check(int num_kept, const std::vector<float> (&scores)[kRows]) {
  Lists lists(num_kept);
  for (size_t block = 0; block < scores[0].size(); ++block) {
    for (int row = 0; row < kRows; ++row) {
      lists.offer(row, scores[row][block], static_cast<int>(block));
    }
  }
  for (int row = 0; row < kRows; ++row) {
    EXPECT_EQ(lists.ids(row, scores[row]), best_ids(scores[row], num_kept))
        << num_kept << " of " << scores[row].size() << ", row " << row;
  }
}

TEST(Lists, KeepTheBestInOrderOfId) {
  std::mt19937 random(5);
  for (int num_kept = 0; num_kept <= 32; ++num_kept) {
    for (const int count : {0, 1, 3, 7, 14, 15, 16, 17, 31, 32, 33, 100, 700}) {
      std::vector<float> scores[kRows];
      for (int n = 0; n < count; ++n) {
        scores[0].push_back(std::normal_distribution<float>(0, 1)(random));
        // Many ties, both zeros, both infinities.
        const int draw = std::uniform_int_distribution<int>(-4, 4)(random);
        scores[1].push_back(draw == 4    ? kInfinity
                            : draw == -4 ? -kInfinity
                            : draw == 0  ? (random() % 2 == 0 ? 0.0f : -0.0f)
                                         : static_cast<float>(draw));
        scores[2].push_back(-kInfinity);
      }
      check(num_kept, scores);
    }
  }
}

TEST(Lists, RisingAndFallingScores) {
  for (const int num_kept : {3, 7, 15, 31}) {
    std::vector<float> scores[kRows];
    for (int n = 0; n < 300; ++n) {
      scores[0].push_back(static_cast<float>(n));
      scores[1].push_back(static_cast<float>(-n));
      const int step = n / 40;
      scores[2].push_back(static_cast<float>(step));
    }
    check(num_kept, scores);
  }
}

}  // namespace
}  // namespace msa::cuda
