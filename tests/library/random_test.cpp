// Thousands of random cases: the cpu backend against the reference, on every SIMD target that the
// machine has.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

#include "library/check_results.h"
#include "library/simd_targets.h"

namespace msa::test {
namespace {

struct Totals {
  int64_t cases = 0;
  int64_t beyond_k = 0;   // some row has more than K visible blocks
  int64_t unaligned = 0;  // some length or prefix is no multiple of B
  int64_t split = 0;      // long enough to be split along the keys
  CaseCounts rows;
  std::map<std::string, int64_t> pairs;  // (types, paged, layout)
};

bool unaligned(const CaseSpec& spec) {
  for (size_t r = 0; r < spec.q_lens.size(); ++r) {
    if (spec.k_lens[r] % spec.block_size != 0) return true;
    if ((spec.k_lens[r] - spec.q_lens[r]) % spec.block_size != 0) return true;
  }
  return false;
}

void add_case(const Context& cpu, const Context& reference, const CaseSpec& spec, Totals& totals) {
  const Case batch(spec);
  const CaseCounts counts = check_case(cpu, reference, batch);
  ++totals.cases;
  totals.beyond_k += counts.rows_beyond_k > 0 ? 1 : 0;
  totals.unaligned += unaligned(spec) ? 1 : 0;
  totals.split += spec.k_lens[0] > 1024 ? 1 : 0;
  totals.rows.rows += counts.rows;
  totals.rows.rows_beyond_k += counts.rows_beyond_k;
  totals.rows.rows_that_differ += counts.rows_that_differ;
  ++totals.pairs[fmt::format("{}/{} {} {}", dtype_name(spec.q_dtype), dtype_name(spec.kv_dtype),
                             spec.paged ? "paged" : "packed", static_cast<int>(spec.layout))];
}

TEST(RandomCases, CpuEqualsReferenceOnEveryTarget) {
  constexpr int kCasesOnBest = 1500;
  constexpr int kCasesOnOthers = 400;
  const Context cpu({.backend = Backend::kCpu, .num_threads = 1});
  const Context reference({.backend = Backend::kReference, .num_threads = 1});
  std::mt19937 random(20261123);
  Totals totals;
  bool best = true;
  for (const int64_t target : simd_targets()) {
    const ScopedSimdTarget only(target);
    for (int n = 0; n < (best ? kCasesOnBest : kCasesOnOthers); ++n) {
      add_case(cpu, reference, random_spec(random), totals);
      if (HasFailure()) FAIL() << "on " << simd_target_name(target) << ", case " << n;
    }
    fmt::print("  {:8} {} cases\n", simd_target_name(target), best ? kCasesOnBest : kCasesOnOthers);
    best = false;
  }
  fmt::print(
      "  {} cases: {} with more than K visible blocks, {} with lengths or prefixes that are no "
      "multiple of B, {} split along the keys\n"
      "  {} rows and groups, {} of them with more than K blocks, {} selections that differ from "
      "the "
      "reference within tolerance\n"
      "  {} combinations of (types, paged, layout), the rarest in {} cases\n",
      totals.cases, totals.beyond_k, totals.unaligned, totals.split, totals.rows.rows,
      totals.rows.rows_beyond_k, totals.rows.rows_that_differ, totals.pairs.size(),
      std::min_element(totals.pairs.begin(), totals.pairs.end(), [](const auto& a, const auto& b) {
        return a.second < b.second;
      })->second);
  EXPECT_GE(totals.cases, 2000);
  EXPECT_GE(2 * totals.beyond_k, totals.cases);
  EXPECT_GE(4 * totals.unaligned, totals.cases);
  EXPECT_EQ(totals.pairs.size(), size_t{3} * 3 * 2 * kNumLayouts);
}

}  // namespace
}  // namespace msa::test
