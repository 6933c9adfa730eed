// A picture of what one token read: a row for each layer and group, the document from left to
// right.
//
//                   v
//   layer 0 group 0 |..o...#....o..|       .  no block read    o  one    #  several
//   layer 1 group 0 |.......@....o.|  read @  the fact's block was read    x  it was not
//
// With more blocks than columns a column stands for several blocks.
#pragma once

#include <cstdint>
#include <string>

#include "cli/model/language_model.h"

namespace msa::cli {

struct StripOptions {
  int64_t num_groups = 0;
  int64_t num_blocks = 0;  ///< of document and question
  int64_t planted_block = 0;
  int64_t columns = 74;  ///< cells in a row; a row is then 99 characters wide
  bool colour = false;
};

/// Rows, with the mark above and a legend below; each line ends in "\n".
std::string draw_strip(const BlockReads& reads, const StripOptions& options);

/// (layer, group) pairs that read `block`.
int64_t count_readers(const BlockReads& reads, int64_t block);

}  // namespace msa::cli
