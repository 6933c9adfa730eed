// Plain tables for terminals of 100 columns.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace msa::cli {

enum class Align { kLeft, kRight };

struct Column {
  std::string title;
  Align align = Align::kLeft;
  size_t most = 40;  ///< characters; longer cells end in "..."
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  /// One cell for each column.
  void add(std::vector<std::string> cells);
  /// Title line, rows; two spaces between columns, none at line ends.
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace msa::cli
