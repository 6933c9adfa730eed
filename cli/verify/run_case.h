// Runs one case of the pack through the public API.
//
// Outputs are fresh, filled with a pattern beforehand, and stand between guard bytes, as does the
// workspace, which is exactly as large as the op asked for.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "cli/verify/compare.h"
#include "cli/verify/pack.h"

namespace msa::cli {

/// Output name -> numbers.
using CaseResults = std::map<std::string, Numbers>;

/// The case itself is wrong (a tensor that the pack lacks), or the op wrote where it may not. It is
/// never mistaken for an op that refuses its arguments.
class CaseError : public std::runtime_error {
 public:
  explicit CaseError(const std::string& message) : std::runtime_error(message) {}
};

/// True when this program knows how to call the op.
bool has_op(const std::string& op);

/// What `read` gives; errors of the pack become CaseErrors.
template <typename Read>
auto from_pack(const Read& read) {
  try {
    return read();
  } catch (const Error& error) {
    throw CaseError(error.what());
  }
}

/// Outputs that are named in `outputs` alone are asked for. Throws msa::Error as the op does, and
/// CaseError.
CaseResults run_case(const Pack& pack, const PackRule& rule, const PackCase& item,
                     const Context& context, const std::vector<std::string>& outputs);

/// Sets of outputs to ask for besides all: what is computed may not depend on what else is.
std::vector<std::vector<std::string>> smaller_outputs(const PackRule& rule, const PackCase& item);

}  // namespace msa::cli
