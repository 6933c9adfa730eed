#include "cli/parts/table.h"

#include <algorithm>

#include "cli/parts/text.h"

namespace msa::cli {

void Table::add(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  for (size_t i = 0; i < cells.size(); ++i)
    cells[i] = shorten(printable(cells[i]), columns_[i].most);
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<std::string> titles;
  for (const Column& column : columns_) titles.push_back(column.title);
  std::vector<const std::vector<std::string>*> lines = {&titles};
  for (const auto& row : rows_) lines.push_back(&row);
  std::vector<size_t> widths(columns_.size(), 0);
  for (const auto* line : lines) {
    for (size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], width((*line)[i]));
  }
  std::string text;
  for (const auto* line : lines) {
    std::string shown;
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string space(widths[i] - width((*line)[i]), ' ');
      if (i > 0) shown += "  ";
      shown += columns_[i].align == Align::kRight ? space + (*line)[i] : (*line)[i] + space;
    }
    shown.erase(shown.find_last_not_of(' ') + 1);
    text += shown + "\n";
  }
  return text;
}

}  // namespace msa::cli
