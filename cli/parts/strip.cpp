#include "cli/parts/strip.h"

#include <fmt/format.h>

#include <algorithm>

namespace msa::cli {
namespace {

constexpr std::string_view kGreen = "\x1b[1;32m";
constexpr std::string_view kRed = "\x1b[1;31m";
constexpr std::string_view kPlain = "\x1b[0m";

bool holds(const std::vector<int32_t>& blocks, int64_t block) {
  return std::find(blocks.begin(), blocks.end(), block) != blocks.end();
}

}  // namespace

int64_t count_readers(const BlockReads& reads, int64_t block) {
  return std::count_if(reads.begin(), reads.end(),
                       [&](const auto& blocks) { return holds(blocks, block); });
}

std::string draw_strip(const BlockReads& reads, const StripOptions& options) {
  const int64_t cells = std::max<int64_t>(1, std::min(options.columns, options.num_blocks));
  const auto cell_of = [&](int64_t block) {
    return static_cast<size_t>(
        std::clamp<int64_t>(block * cells / options.num_blocks, 0, cells - 1));
  };
  const size_t mark = cell_of(options.planted_block);
  const auto label = [](int64_t layer, int64_t group) {
    return fmt::format("layer {:<2} group {:<2}", layer, group);
  };
  std::string text = std::string(label(0, 0).size() + 1 + mark, ' ') + "v\n";
  for (size_t row = 0; row < reads.size(); ++row) {
    std::vector<int> counts(static_cast<size_t>(cells), 0);
    for (const int32_t block : reads[row]) ++counts[cell_of(block)];
    const bool read = holds(reads[row], options.planted_block);
    const auto index = static_cast<int64_t>(row);
    text += label(index / options.num_groups, index % options.num_groups) + "|";
    for (size_t cell = 0; cell < counts.size(); ++cell) {
      if (cell == mark) {
        if (options.colour) text += read ? kGreen : kRed;
        text += read ? '@' : 'x';
        if (options.colour) text += kPlain;
      } else {
        text += counts[cell] == 0 ? '.' : counts[cell] == 1 ? 'o' : '#';
      }
    }
    text += read ? "| read\n" : "|\n";
  }
  text += ".  no block read   o  one   #  several   @  the fact's block was read   x  it was not\n";
  return text;
}

}  // namespace msa::cli
