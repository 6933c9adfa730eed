// What the trials of an evaluation come to, as numbers, tables and JSON.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/eval/evaluate.h"
#include "cli/parts/numbers.h"

namespace msa::cli {

struct Count {
  int64_t right = 0;
  int64_t total = 0;
  void add(bool is_right) { right += is_right, ++total; }
  double share() const {
    return total == 0 ? 0 : static_cast<double>(right) / static_cast<double>(total);
  }
};

inline constexpr size_t kDepthBins = 10;

/// The trials of one length and variant.
struct Summary {
  int64_t length = 0;
  size_t variant = 0;
  Count all;
  std::array<Count, kDepthBins> by_depth;
  std::map<std::string, Count> by_kind;
  std::vector<double> layer_read;  ///< mean of Trial::blocks_read
};

/// Trials of the same facts under sparse and under dense attention.
struct Paired {
  int64_t length = 0;
  int64_t both = 0;
  int64_t only_sparse = 0;
  int64_t only_dense = 0;
  int64_t neither = 0;
};

/// In the order of lengths and variants.
std::vector<Summary> summarise(const EvalResult& result, const EvalOptions& options);
/// One for each length; empty unless both were asked without a control.
std::vector<Paired> pair_up(const EvalResult& result, const EvalOptions& options);

std::string summary_text(const EvalResult& result, const EvalOptions& options);
nlohmann::json summary_json(const EvalResult& result, const EvalOptions& options);

}  // namespace msa::cli
