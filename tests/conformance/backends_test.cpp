// Every rule of the pack on the reference and on the cpu backend's every SIMD target. None may be
// left out.
#include <gtest/gtest.h>

#include "cli/verify/verify.h"
#include "library/simd_targets.h"

namespace msa::cli {
namespace {

const Pack& shipped_pack() {
  static const Pack pack = Pack::open(MSA_PACK);
  return pack;
}

std::vector<const PackRule*> all_rules() {
  std::vector<const PackRule*> rules;
  for (const PackRule& rule : shipped_pack().rules()) rules.push_back(&rule);
  return rules;
}

void expect_all_pass(Backend backend) {
  ContextOptions options;
  options.backend = backend;
  const Verification result = verify(shipped_pack(), Context(options), all_rules());
  ASSERT_GE(result.count(RuleStatus::kPass), 100);
  for (const RuleOutcome& outcome : result.outcomes) {
    EXPECT_EQ(outcome.status, RuleStatus::kPass) << outcome.rule->name << ": " << outcome.detail;
  }
}

TEST(Conformance, Reference) { expect_all_pass(Backend::kReference); }

class CpuConformance : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Targets, CpuConformance, testing::ValuesIn(test::simd_targets()),
                         [](const auto& target) { return test::simd_target_name(target.param); });

TEST_P(CpuConformance, AllRules) {
  const test::ScopedSimdTarget only(GetParam());
  expect_all_pass(Backend::kCpu);
}

}  // namespace
}  // namespace msa::cli
