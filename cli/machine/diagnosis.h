// The judgement behind `msa doctor`: each finding says what was found, whether the demo can run
// with it, and what to do when something is missing.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace msa::cli {

enum class Level {
  kGood,
  kNote,     ///< the demo runs, but something more is to be had
  kProblem,  ///< the demo cannot run
};

/// "ok", "note" or "PROBLEM".
const char* level_name(Level level);

struct Finding {
  std::string subject;
  Level level = Level::kGood;
  std::string found;
  std::string advice;  ///< empty when there is nothing to do
};

struct Diagnosis {
  std::vector<Finding> findings;
  bool ready() const;
};

/// `model` is the folder of --model, or empty for the shipped model.
Diagnosis diagnose(const std::string& model);

/// A line for each finding, its advice below it, and the verdict.
std::string diagnosis_text(const Diagnosis& diagnosis);
nlohmann::json diagnosis_json(const Diagnosis& diagnosis);

}  // namespace msa::cli
