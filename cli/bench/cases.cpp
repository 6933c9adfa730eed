#include "cli/bench/cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "cli/parts/arguments.h"
#include "cli/parts/numbers.h"
#include "cli/parts/text.h"
#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

constexpr int64_t kMostDecodeQueries = 16;
constexpr int64_t kMostBatch = 4096;
constexpr int64_t kMostWeight = 1'000'000'000;

Phase phase_of(int64_t context, int64_t queries) {
  if (queries == context) return Phase::kPrefill;
  return queries <= kMostDecodeQueries ? Phase::kDecode : Phase::kExtend;
}

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> cells;
  std::stringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) cells.emplace_back(trim(cell));
  return cells;
}

BenchCase prefill_case(int64_t batch, int64_t queries, int64_t longest, int64_t weight) {
  BenchCase result;
  result.name = fmt::format("{} queries of {} to {}", queries, batch, longest);
  result.context = longest;
  result.weight = static_cast<double>(weight);
  for (int64_t r = 0; r < batch; ++r) {
    const int64_t q_len = queries / batch + (r < queries % batch ? 1 : 0);
    const int64_t k_len = batch > 1 ? longest - longest * r / (2 * (batch - 1)) : longest;
    result.requests.push_back({q_len, std::max(q_len, k_len)});
  }
  result.phase = phase_of(result.requests[0].k_len, result.requests[0].q_len);
  return result;
}

BenchCase decode_case(int64_t batch, int64_t nominal, int64_t weight) {
  constexpr int64_t kMostQueries = 8;
  BenchCase result;
  result.name = fmt::format("decode of {} at {}", batch, nominal);
  result.phase = Phase::kDecode;
  result.context = nominal;
  result.weight = static_cast<double>(weight);
  for (int64_t r = 0; r < batch; ++r) {
    const int64_t q_len = 1 + r % kMostQueries;
    // The middles of `batch` equal parts of [3/4, 5/4]: their mean is 1.
    const int64_t k_len = nominal * 3 / 4 + nominal * (2 * r + 1) / (4 * batch);
    result.requests.push_back({q_len, std::max(q_len, k_len)});
  }
  return result;
}

}  // namespace

const char* phase_name(Phase phase) {
  switch (phase) {
    case Phase::kPrefill:
      return "prefill";
    case Phase::kExtend:
      return "extend";
    case Phase::kDecode:
      return "decode";
  }
  return "unknown phase";
}

Suite read_suite(const std::filesystem::path& file) {
  const std::string name = file.string();
  std::stringstream text(read_text_file(name));
  Suite suite;
  std::vector<std::string> titles;
  int number = 0;
  for (std::string line; std::getline(text, line);) {
    ++number;
    if (trim(line).empty()) continue;
    const std::vector<std::string> cells = split(line);
    if (titles.empty()) {
      titles = cells;
      suite.is_decode = fmt::format("{}", line).rfind("batch,nominal_kv_len,weight", 0) == 0;
      if (suite.is_decode || line.rfind("batch,query_tokens,max_kv_len,weight", 0) == 0) continue;
      throw UsageError(fmt::format(
          "{}: got the title line '{}', allowed batch,query_tokens,max_kv_len,weight or "
          "batch,nominal_kv_len,weight",
          name, line));
    }
    if (cells.size() != titles.size()) {
      throw UsageError(fmt::format("{}:{}: got {} numbers, allowed {}", name, number, cells.size(),
                                   titles.size()));
    }
    std::vector<int64_t> values;
    for (size_t n = 0; n < cells.size(); ++n) {
      const int64_t most = n == 0 ? kMostBatch : n + 1 == cells.size() ? kMostWeight : kMostTokens;
      values.push_back(
          parse_count(fmt::format("{}:{}: {}", name, number, titles[n]), cells[n], 1, most));
    }
    if (suite.is_decode) {
      suite.cases.push_back(decode_case(values[0], values[1], values[2]));
    } else {
      if (values[1] < values[0]) {
        throw UsageError(
            fmt::format("{}:{}: got {} query tokens, allowed at least one for each of "
                        "{} requests",
                        name, number, values[1], values[0]));
      }
      suite.cases.push_back(prefill_case(values[0], values[1], values[2], values[3]));
    }
  }
  if (suite.cases.empty()) throw UsageError(fmt::format("{}: got no shapes, allowed some", name));
  return suite;
}

BenchCase context_case(int64_t context, int64_t queries, int64_t batch) {
  if (queries == 0) queries = context;
  BenchCase result;
  result.phase = phase_of(context, queries);
  result.context = context;
  result.requests.assign(static_cast<size_t>(batch), {queries, context});
  const std::string at = short_count(context);
  switch (result.phase) {
    case Phase::kPrefill:
      result.name = fmt::format("prefill {}", at);
      break;
    case Phase::kExtend:
      result.name = fmt::format("{} more at {}", queries, at);
      break;
    case Phase::kDecode:
      result.name = fmt::format("decode {} at {}", queries, at);
      break;
  }
  if (batch > 1) result.name += fmt::format(", batch {}", batch);
  return result;
}

}  // namespace msa::cli
