// One line for every check, and all of them as JSON at the end. No test framework: the program is
// carried to machines where nothing can be installed.
#pragma once

#include <string>
#include <vector>

namespace msa::test {

class Report {
 public:
  /// Prints "ok" or "FAILED" with the name and the message.
  void add(const std::string& name, bool ok, const std::string& message);
  /// Prints a line that is neither: a figure, a heading.
  void note(const std::string& text) const;
  int failures() const { return failures_; }
  /// Writes everything as one JSON array; false when the file cannot be written.
  bool write(const std::string& path) const;

 private:
  struct Entry {
    std::string name;
    bool ok;
    std::string message;
  };
  std::vector<Entry> entries_;
  int failures_ = 0;
};

}  // namespace msa::test
