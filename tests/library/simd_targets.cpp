#include "library/simd_targets.h"

#include <algorithm>

#include "cpu/targets.h"
#include "hwy/highway.h"

namespace msa::test {

std::vector<int64_t> simd_targets() {
  std::vector<int64_t> targets = hwy::SupportedAndGeneratedTargets();
  std::sort(targets.begin(), targets.end());  // better targets are lower bits
  return targets;
}

std::string simd_target_name(int64_t target) { return hwy::TargetName(target); }

ScopedSimdTarget::ScopedSimdTarget(int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

ScopedSimdTarget::~ScopedSimdTarget() {
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace msa::test
