#include "cli/verify/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>

#include "cli/verify/compare.h"
#include "cli/verify/run_case.h"

namespace msa::cli {
namespace {

constexpr const char* kRestart[] = {"again", "1 thread", "2 threads", "5 threads"};
constexpr int kThreads[] = {0, 1, 2, 5};  // 0: as many as the context has

bool same_bits(double a, double b) {
  return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
}

Numbers load(const Pack& pack, const std::string& name) {
  return from_pack([&] {
    const runner::StoredTensor& stored = pack.tensor(name);
    return Numbers{stored.shape, to_doubles(name, stored)};
  });
}

std::vector<double> load_factor(const Pack& pack, const PackResult& result) {
  if (result.factor.empty()) return {};
  return load(pack, result.factor).values;
}

/// "" when every output of `part` has the bits that it has in `whole`.
std::string compare_bits(const CaseResults& part, const CaseResults& whole) {
  for (const auto& [name, numbers] : part) {
    const Numbers& other = whole.at(name);
    for (size_t n = 0; n < numbers.values.size(); ++n) {
      if (same_bits(numbers.values[n], other.values[n])) continue;
      return fmt::format("{}: got {:.9g}, expected the bits of {:.9g}",
                         place(name, numbers.shape, n), numbers.values[n], other.values[n]);
    }
  }
  return "";
}

std::string check_results(const Pack& pack, const PackCase& item, const CaseResults& results) {
  for (const auto& [name, result] : item.expect) {
    const auto found = results.find(name);
    if (found == results.end()) return fmt::format("{}: the op has no such output", name);
    if (result.how == "selection") {
      const auto scores = item.expect.find("block_scores");
      if (scores == item.expect.end()) return "a selection without exact scores in the pack";
      const std::string wrong =
          compare_selection(found->second, results.at("block_scores"),
                            load(pack, scores->second.tensor), load_factor(pack, scores->second));
      if (!wrong.empty()) return wrong;
      continue;
    }
    const std::string wrong =
        compare(name, found->second, load(pack, result.tensor), load_factor(pack, result), result);
    if (!wrong.empty()) return wrong;
  }
  return "";
}

std::vector<std::string> expected_names(const PackCase& item) {
  std::vector<std::string> names;
  for (const auto& [name, result] : item.expect) names.push_back(name);
  return names;
}

/// "" when right. Errors of the op other than "not supported" are wrong answers.
std::string check_case(const Pack& pack, const PackRule& rule, const PackCase& item,
                       const Context& context, CaseResults& results) {
  if (item.refused) {
    try {
      run_case(pack, rule, item, context, {});
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kInvalidArgument) throw;
      return "";
    } catch (const CaseError& error) {
      return error.what();
    }
    return "got an answer, expected a refusal";
  }
  try {
    results = run_case(pack, rule, item, context, expected_names(item));
    std::string wrong = check_results(pack, item, results);
    for (const auto& outputs : smaller_outputs(rule, item)) {
      if (!wrong.empty()) return wrong;
      wrong = compare_bits(run_case(pack, rule, item, context, outputs), results);
      if (!wrong.empty()) wrong += fmt::format(" (asked for {} alone)", outputs.front());
    }
    return wrong;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kUnsupported) throw;
    return fmt::format("refused: {}", error.what());
  } catch (const CaseError& error) {
    return error.what();
  }
}

std::string check_reruns(const Pack& pack, const PackRule& rule, const PackCase& item,
                         const Context& context, const CaseResults& results) {
  for (size_t n = 0; n < std::size(kThreads); ++n) {
    ContextOptions options;
    options.backend = context.backend();
    options.num_threads = kThreads[n] == 0 ? context.num_threads() : kThreads[n];
    const std::string wrong =
        compare_bits(run_case(pack, rule, item, Context(options), expected_names(item)), results);
    if (!wrong.empty()) return fmt::format("{} ({})", wrong, kRestart[n]);
  }
  return "";
}

/// Rows are axis 0, but axis 1 of what the index branch gives for each group.
size_t row_axis(const PackCase& item, const std::string& output) {
  if (output != "block_ids" && output != "block_scores" && output != "lse_idx") return 0;
  const bool token_major =
      output == "block_ids" && item.arguments.value("id_layout", "") == "token_major";
  return token_major ? 0 : 1;
}

/// Element (outer, row, inner) of numbers whose rows lie on `axis`; -inf past the last block.
double at(const Numbers& numbers, size_t axis, int64_t outer, int64_t row, int64_t inner) {
  int64_t inner_count = 1;
  for (size_t n = axis + 1; n < numbers.shape.size(); ++n) inner_count *= numbers.shape[n];
  if (inner >= inner_count) return -std::numeric_limits<double>::infinity();
  const int64_t element = (outer * numbers.shape[axis] + row) * inner_count + inner;
  return numbers.values.at(static_cast<size_t>(element));
}

std::string compare_rows(const PackCase& item, const EqualRows& rows, const CaseResults& a,
                         const CaseResults& b) {
  for (const auto& [name, numbers] : a) {
    const size_t axis = row_axis(item, name);
    const Numbers& other = b.at(name);
    const int64_t outer_count = axis == 0 ? 1 : numbers.shape[0];
    int64_t inner_count = 1;
    int64_t other_inner = 1;
    for (size_t n = axis + 1; n < numbers.shape.size(); ++n) {
      inner_count *= numbers.shape[n];
      other_inner *= other.shape.at(n);
    }
    for (int64_t outer = 0; outer < outer_count; ++outer) {
      for (int64_t row = 0; row < rows.count; ++row) {
        for (int64_t inner = 0; inner < std::max(inner_count, other_inner); ++inner) {
          const double have = at(numbers, axis, outer, rows.row_a + row, inner);
          const double want = at(other, axis, outer, rows.row_b + row, inner);
          if (same_bits(have, want)) continue;
          return fmt::format("{}: row {} of case {} has {:.9g}, row {} of case {} has {:.9g}", name,
                             rows.row_a + row, rows.case_a, have, rows.row_b + row, rows.case_b,
                             want);
        }
      }
    }
  }
  return "";
}

std::string check_bitwise(const Pack& pack, const PackRule& rule, const Context& context,
                          const std::map<std::string, CaseResults>& results) {
  for (const PackCase& item : rule.cases) {
    const std::string wrong = check_reruns(pack, rule, item, context, results.at(item.name));
    if (!wrong.empty()) return fmt::format("case {}: {}", item.name, wrong);
  }
  for (const EqualRows& rows : rule.bitwise) {
    const std::string wrong =
        compare_rows(rule.cases.front(), rows, results.at(rows.case_a), results.at(rows.case_b));
    if (!wrong.empty()) return wrong;
  }
  return "";
}

RuleOutcome verify_rule(const Pack& pack, const PackRule& rule, const Context& context) {
  RuleOutcome outcome{.rule = &rule, .status = RuleStatus::kNotRun, .detail = ""};
  if (!has_op(rule.op)) {
    outcome.detail = fmt::format("op missing: {}", rule.op);
    return outcome;
  }
  std::map<std::string, CaseResults> results;
  std::string reason;
  size_t ran = 0;
  for (const PackCase& item : rule.cases) {
    try {
      const std::string wrong = check_case(pack, rule, item, context, results[item.name]);
      if (!wrong.empty()) {
        outcome.status = RuleStatus::kFail;
        outcome.detail = fmt::format("case {}: {}", item.name, wrong);
        return outcome;
      }
      ++ran;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupported) throw;
      if (reason.empty()) reason = error.what();
    }
  }
  if (ran == rule.cases.size()) {
    if (!rule.bitwise.empty()) outcome.detail = check_bitwise(pack, rule, context, results);
    outcome.status = outcome.detail.empty() ? RuleStatus::kPass : RuleStatus::kFail;
    return outcome;
  }
  outcome.status = ran == 0 ? RuleStatus::kNotRun : RuleStatus::kPartly;
  outcome.detail =
      ran == 0 ? reason
               : fmt::format("{} of {} cases pass; the others: {}", ran, rule.cases.size(), reason);
  return outcome;
}

}  // namespace

const char* status_name(RuleStatus status) {
  switch (status) {
    case RuleStatus::kPass:
      return "pass";
    case RuleStatus::kFail:
      return "FAIL";
    case RuleStatus::kPartly:
      return "partly";
    case RuleStatus::kNotRun:
      return "not run";
  }
  return "unknown";
}

int64_t Verification::count(RuleStatus status) const {
  return std::count_if(outcomes.begin(), outcomes.end(),
                       [status](const RuleOutcome& outcome) { return outcome.status == status; });
}

Verification verify(const Pack& pack, const Context& context,
                    const std::vector<const PackRule*>& rules) {
  Verification verification;
  for (const PackRule* rule : rules) {
    verification.outcomes.push_back(verify_rule(pack, *rule, context));
  }
  return verification;
}

}  // namespace msa::cli
