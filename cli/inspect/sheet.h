// The picture of a survey: a panel for each layer and group, queries downward, blocks to the right.
//
//   dark     many queries of that run took the block: the diagonal is the local block, which is
//            always taken; a vertical stripe is a block that many queries come back to
//   sand     seen by the queries and taken by none; above the diagonal nothing is visible
//   orange   the block of the planted fact, when there is one
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/inspect/survey.h"
#include "cli/picture/canvas.h"

namespace msa::cli {

struct SheetOptions {
  std::string title;
  std::vector<std::string> lines;       ///< below the title
  std::vector<int64_t> layers;          ///< to draw
  std::optional<int64_t> marked_block;  ///< of the fact
};

Canvas draw_sheet(const Survey& survey, const SheetOptions& options);

}  // namespace msa::cli
