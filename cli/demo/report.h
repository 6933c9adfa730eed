// A demo's result for people (tables and strips of at most 100 columns) and for programs (JSON).
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/demo/demo.h"

namespace msa::cli {

struct ReportOptions {
  bool colour = false;
  /// Facts whose strip is drawn, by their place in the quiz.
  std::vector<size_t> strips;
};

/// The fact whose strip tells most: the first that was missed, else the one nearest the middle.
size_t telling_fact(const DemoResult& result);

std::string demo_text(const DemoResult& result, const ModelShape& shape,
                      const ReportOptions& options);
nlohmann::json demo_json(const DemoResult& result, const ModelShape& shape);

}  // namespace msa::cli
