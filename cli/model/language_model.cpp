#include "cli/model/language_model.h"

#include <algorithm>

#include "cli/parts/random.h"

namespace msa::cli {

std::vector<int32_t> question_tokens(const LanguageModel& model, std::string_view question) {
  const SpecialTokens special = model.special();
  std::vector<int32_t> tokens = {special.user};
  const std::vector<int32_t> text = model.encode(question);
  tokens.insert(tokens.end(), text.begin(), text.end());
  tokens.push_back(special.assistant);
  return tokens;
}

void random_block_ids(uint64_t seed, int64_t layer, int64_t group, int64_t position,
                      int64_t block_size, std::span<int32_t> ids) {
  const int64_t local = position / block_size;
  const int64_t keep = std::min(static_cast<int64_t>(ids.size()), local + 1);
  Random random(seed ^ static_cast<uint64_t>(layer * 64 + group), static_cast<uint64_t>(position));
  // Floyd's sampling: keep - 1 distinct numbers of [0, local) in keep - 1 steps.
  std::vector<int32_t> chosen = {static_cast<int32_t>(local)};
  for (int64_t last = local - (keep - 1); last < local; ++last) {
    const auto pick = static_cast<int32_t>(random.below(last + 1));
    const bool taken = std::find(chosen.begin(), chosen.end(), pick) != chosen.end();
    chosen.push_back(taken ? static_cast<int32_t>(last) : pick);
  }
  std::sort(chosen.begin(), chosen.end());
  std::fill(std::copy(chosen.begin(), chosen.end(), ids.begin()), ids.end(), -1);
}

}  // namespace msa::cli
