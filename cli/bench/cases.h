// What is measured: batches of requests, each with a name, from flags or from a suite.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "bench/plan.h"

namespace msa::cli {

enum class Phase {
  kPrefill,  ///< a whole context, read in chunks
  kExtend,   ///< more than 16 tokens after a context
  kDecode,   ///< 1 to 16 tokens a request after a context
};
const char* phase_name(Phase phase);

struct BenchCase {
  std::string name;
  Phase phase = Phase::kPrefill;
  int64_t context = 0;  ///< nominal keys of a request
  std::vector<bench::Request> requests;
  double weight = 1;  ///< how often a suite's service sees it
};

/// A suite is one of two kinds, told apart by its title line (bench/suites/README.md):
///   batch,query_tokens,max_kv_len,weight    prefill: query tokens are split evenly, key lengths
///                                           fall linearly from the longest to half of it
///   batch,nominal_kv_len,weight             decode: request r brings 1 + r mod 8 tokens; lengths
///                                           rise evenly from 3/4 to 5/4 of the nominal one
struct Suite {
  bool is_decode = false;
  std::vector<BenchCase> cases;
};

/// Throws UsageError naming file and line.
Suite read_suite(const std::filesystem::path& file);

/// `queries` last tokens of each of `batch` contexts, or all tokens when it is 0.
BenchCase context_case(int64_t context, int64_t queries, int64_t batch);

}  // namespace msa::cli
