#include "cuda/id_lists.h"

#include <algorithm>
#include <limits>

namespace msa::test {

std::vector<int32_t> hostile_ids(const Case& batch, const std::vector<int32_t>& ids,
                                 std::mt19937& random) {
  std::vector<int32_t> result = ids;
  const auto top_k = static_cast<size_t>(batch.spec.top_k);
  for (size_t list = 0; list * top_k < result.size(); ++list) {
    int32_t* row = result.data() + list * top_k;
    std::shuffle(row, row + top_k, random);
    const size_t at = random() % top_k;
    switch (random() % 6) {
      case 0:
        row[at] = row[0];
        break;  // a repeat
      case 1:
        row[at] = static_cast<int32_t>(random() % 1000000);
        break;
      case 2:
        row[at] = -2;
        break;  // neither an id nor the end
      case 3:
        row[at] = -1;
        break;  // ends early
      case 4:
        row[at] = std::numeric_limits<int32_t>::max();
        break;
      default:
        break;
    }
  }
  return result;
}

std::vector<int32_t> neighbour_ids(const Case& batch, double keep, std::mt19937& random) {
  const CaseSpec& spec = batch.spec;
  const auto top_k = static_cast<size_t>(spec.top_k);
  std::uniform_real_distribution<double> unit(0, 1);
  std::vector<int32_t> ids;
  for (int64_t h = 0; h < spec.kv_heads; ++h) {
    std::vector<int32_t> picks;
    for (int64_t t = 0; t < batch.num_rows; ++t) {
      const int64_t position = batch.row(t).position;
      const auto local = static_cast<int32_t>(position < 0 ? -1 : position / spec.block_size);
      std::erase_if(picks, [&](int32_t id) { return id >= local || unit(random) >= keep; });
      while (picks.size() + 1 < top_k && static_cast<int32_t>(picks.size()) < local) {
        const auto id = static_cast<int32_t>(random() % static_cast<uint32_t>(local));
        if (std::find(picks.begin(), picks.end(), id) == picks.end()) picks.push_back(id);
      }
      std::vector<int32_t> list = picks;
      if (local >= 0) list.push_back(local);
      std::sort(list.begin(), list.end());
      list.resize(top_k, -1);
      ids.insert(ids.end(), list.begin(), list.end());
    }
  }
  return ids;
}

}  // namespace msa::test
