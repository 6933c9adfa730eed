#include "cuda/picks.h"

#include <algorithm>

namespace msa::bench {

void append_picks(const PickSpec& spec, std::mt19937_64& random,
                  std::vector<std::vector<int32_t>>& per_group) {
  const auto top_k = static_cast<size_t>(spec.top_k);
  std::uniform_real_distribution<double> unit(0, 1);
  for (std::vector<int32_t>& lists : per_group) {
    std::vector<int32_t> others;  // without the local block
    for (int64_t t = 0; t < spec.q_len; ++t) {
      const auto local = static_cast<int32_t>((spec.k_len - spec.q_len + t) / spec.block_size);
      const size_t wanted = std::min(top_k - 1, static_cast<size_t>(local));
      std::erase_if(others, [&](int32_t id) { return id >= local || unit(random) >= spec.keep; });
      const auto add = [&](int32_t id) {
        if (std::find(others.begin(), others.end(), id) == others.end()) others.push_back(id);
      };
      if (spec.sink && local > 0) add(0);
      if (wanted == static_cast<size_t>(local)) {
        for (int32_t id = 0; id < local; ++id) add(id);
      }
      while (others.size() < wanted) {
        add(static_cast<int32_t>(random() % static_cast<uint64_t>(local)));
      }
      std::sort(others.begin(), others.end());
      lists.insert(lists.end(), others.begin(), others.end());
      lists.push_back(local);
      lists.insert(lists.end(), top_k - 1 - others.size(), -1);
    }
  }
}

}  // namespace msa::bench
