#include "cli/quiz/score.h"

#include <algorithm>

#include "cli/parts/text.h"

namespace msa::cli {

bool is_right(std::string_view answer, const std::vector<std::string>& expected) {
  answer = trim(answer);
  if (expected.size() == 1) return answer == trim(expected[0]);
  std::vector<std::string> got;
  while (true) {
    const size_t comma = std::min(answer.find(", "), answer.size());
    got.emplace_back(trim(answer.substr(0, comma)));
    if (comma == answer.size()) break;
    answer.remove_prefix(comma + 2);
  }
  std::vector<std::string> wanted;
  for (const std::string& value : expected) wanted.emplace_back(trim(value));
  std::sort(got.begin(), got.end());
  std::sort(wanted.begin(), wanted.end());
  return got == wanted;
}

}  // namespace msa::cli
