// A survey as a table for people and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cli/inspect/survey.h"

namespace msa::cli {

/// Which (layer, group) pairs took a block for the last token of the prompt.
struct Readers {
  int64_t count = 0;
  int64_t of = 0;
};
Readers readers_of(const Survey& survey, int64_t block);

/// A row for each layer and group, their mean, and what the columns mean.
std::string survey_text(const Survey& survey);

/// Null where no row counts.
nlohmann::json survey_json(const Survey& survey);

}  // namespace msa::cli
