// Every rule of the pack on the reference and on the cpu backend's every SIMD target. A rule may be
// left out only by name of its op, so that nothing is skipped in silence.
#include <gtest/gtest.h>

#include <set>

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

/// Every rule passes but those of the ops that are named here.
void expect_all_pass(Backend backend, const std::set<std::string>& missing_ops) {
  ContextOptions options;
  options.backend = backend;
  const Verification result = verify(shipped_pack(), Context(options), all_rules());
  ASSERT_GE(result.count(RuleStatus::kPass), 100);
  for (const RuleOutcome& outcome : result.outcomes) {
    const bool missing = missing_ops.contains(outcome.rule->op);
    EXPECT_EQ(outcome.status, missing ? RuleStatus::kNotRun : RuleStatus::kPass)
        << outcome.rule->name << ": " << outcome.detail;
  }
}

TEST(Conformance, Reference) { expect_all_pass(Backend::kReference, {}); }

class CpuConformance : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Targets, CpuConformance, testing::ValuesIn(test::simd_targets()),
                         [](const auto& target) { return test::simd_target_name(target.param); });

TEST_P(CpuConformance, AllRules) {
  const test::ScopedSimdTarget only(GetParam());
  expect_all_pass(Backend::kCpu,
                  {"attention_backward", "dense_attention_backward", "kl_forward_backward"});
}

}  // namespace
}  // namespace msa::cli
