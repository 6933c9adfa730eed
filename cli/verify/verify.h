// A backend against a conformance pack, rule by rule.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cli/verify/pack.h"

namespace msa::cli {

enum class RuleStatus {
  kPass,    ///< every case ran and is right
  kFail,    ///< a case is wrong
  kPartly,  ///< cases that ran are right, others have no op or type here: not a pass
  kNotRun,  ///< no case ran
};

/// "pass", "FAIL", "partly", "not run"
const char* status_name(RuleStatus status);

struct RuleOutcome {
  const PackRule* rule = nullptr;
  RuleStatus status = RuleStatus::kNotRun;
  std::string detail;  // the first wrong element, or why cases did not run
};

struct Verification {
  std::vector<RuleOutcome> outcomes;
  int64_t count(RuleStatus status) const;
};

/// Runs the rules whose names are in `rules`; an empty list means all.
Verification verify(const Pack& pack, const Context& context,
                    const std::vector<const PackRule*>& rules);

}  // namespace msa::cli
