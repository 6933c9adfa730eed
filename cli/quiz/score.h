// Right or wrong: the answer's values, compared as a set with those expected. Spaces at both ends
// do not count (training/README.md: answers may start with the space of their first token).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace msa::cli {

/// One expected value: the answer is it. Several: the answer, split at ", ", has each of them once
/// and nothing else, in any order.
bool is_right(std::string_view answer, const std::vector<std::string>& expected);

}  // namespace msa::cli
