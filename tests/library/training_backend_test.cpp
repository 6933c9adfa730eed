// The training ops of the cpu backend: against the reference on random and hostile cases and every
// SIMD target, and bit for bit over reruns, threads and batches.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "library/compare.h"
#include "library/simd_targets.h"
#include "library/training_run.h"

namespace msa::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

using Floats = std::vector<float>;
struct NamedGradient {
  const char* name;
  const Floats* values;
};
std::vector<NamedGradient> outputs_of(const TrainingResult& result) {
  return {{"dq", &result.dq},         {"dk", &result.dk},         {"dv", &result.dv},
          {"dq_idx", &result.dq_idx}, {"dk_idx", &result.dk_idx}, {"loss", &result.loss}};
}

bool is_float32(const CaseSpec& spec) {
  return spec.q_dtype == DType::kFloat32 && spec.kv_dtype == DType::kFloat32;
}

/// Masks of NaN and infinity, then the contract's Frobenius bound, then every element within ten
/// times that bound of the largest. `allowance` is the contract's L. What is nothing but rounding
/// (r - p where a row sees one token) has no relative error: `noise` may differ in every element.
void expect_gradients(const TrainingResult& got, const TrainingResult& expected,
                      const CaseSpec& spec, double allowance = 1) {
  const double bound = (is_float32(spec) ? 1e-4 : 1e-2) * allowance;
  const double noise = 3e-6 * allowance * static_cast<double>(spec.magnitude);
  const std::vector<NamedGradient> want = outputs_of(expected);
  const std::vector<NamedGradient> have = outputs_of(got);
  for (size_t n = 0; n < want.size(); ++n) {
    double largest = 0;
    double square = 0;
    for (const float value : *want[n].values) {
      if (!std::isfinite(value)) continue;
      largest = std::max(largest, std::abs(static_cast<double>(value)));
      square += static_cast<double>(value) * static_cast<double>(value);
    }
    const double floor =
        noise * std::sqrt(static_cast<double>(want[n].values->size()) / std::max(square, 1e-300));
    const Comparison same = compare(*have[n].values, *want[n].values,
                                    {10 * bound * largest + 10 * noise, 0, bound + floor});
    EXPECT_TRUE(same.ok) << want[n].name << ": " << same.message << "\n" << spec.describe();
  }
}

TEST(TrainingCases, CpuEqualsReferenceOnEveryTarget) {
  constexpr int kCasesOnBest = 400;
  constexpr int kCasesOnOthers = 100;
  const Context cpu({.backend = Backend::kCpu, .num_threads = 1});
  const Context reference({.backend = Backend::kReference, .num_threads = 1});
  std::mt19937 random(20261124);
  int64_t float32 = 0;
  int64_t poisoned = 0;
  bool best = true;
  for (const int64_t target : simd_targets()) {
    const ScopedSimdTarget only(target);
    for (int n = 0; n < (best ? kCasesOnBest : kCasesOnOthers); ++n) {
      CaseSpec spec = random_spec(random);
      spec.paged = false;
      if (n % 3 == 0) spec.q_dtype = spec.kv_dtype = DType::kFloat32;
      Case batch(spec);
      const bool poison = n % 4 == 0 && spec.k_lens[0] > 0;
      if (poison) {  // the last token of the first request: nothing before it may change
        const int32_t token = spec.k_lens[0] - 1;
        batch.set_key(0, token, 0, 3, kNaN);
        batch.set_value(0, token, spec.kv_heads - 1, 0, kNaN);
        batch.set_index_key(0, token, 1, std::numeric_limits<float>::infinity());
      }
      for (const bool dense : {false, true}) {
        TrainingInputs inputs = training_inputs(reference, batch, dense);
        if (poison && batch.num_rows > 1) inputs.dout.set(spec.head_dim + 2, kNaN);
        expect_gradients(run_training(cpu, batch, inputs), run_training(reference, batch, inputs),
                         spec);
      }
      float32 += is_float32(spec) ? 1 : 0;
      poisoned += poison ? 1 : 0;
      if (HasFailure()) FAIL() << "on " << simd_target_name(target) << ", case " << n;
    }
    fmt::print("  {:8} {} cases, sparse and dense\n", simd_target_name(target),
               best ? kCasesOnBest : kCasesOnOthers);
    best = false;
  }
  fmt::print("  {} in float32 alone, {} with NaN and infinities\n", float32, poisoned);
  EXPECT_GE(float32, 100);
  EXPECT_GE(poisoned, 80);
}

/// Several tiles and parts, rows before position 0, an empty request, rows of no request.
CaseSpec mixed_spec() {
  CaseSpec spec;
  spec.kv_dtype = DType::kBFloat16;
  spec.kv_heads = 2;
  spec.group = 2;
  spec.head_dim = 24;
  spec.index_dim = 16;
  spec.block_size = 16;
  spec.top_k = 4;
  spec.q_lens = {1300, 3, 9, 0, 40};
  spec.k_lens = {1420, 500, 5, 40, 40};
  spec.padded_rows = 2;
  return spec;
}

TEST(TrainingCases, LongRequestsInManyParts) {
  const Case batch(mixed_spec());
  const Context cpu({.backend = Backend::kCpu, .num_threads = 2});
  const Context reference({.backend = Backend::kReference, .num_threads = 2});
  for (const bool dense : {false, true}) {
    const TrainingInputs inputs = training_inputs(cpu, batch, dense);
    expect_gradients(run_training(cpu, batch, inputs), run_training(reference, batch, inputs),
                     batch.spec);
  }
}

TEST(TrainingCases, LogitsOfTenThousandDoNotOverflow) {
  CaseSpec spec = mixed_spec();
  spec.kv_dtype = DType::kFloat32;
  spec.q_lens = {60};
  spec.k_lens = {90};
  spec.magnitude = 60;
  const Case batch(spec);
  const Context cpu({.backend = Backend::kCpu, .num_threads = 1});
  const Context reference({.backend = Backend::kReference, .num_threads = 1});
  for (const bool dense : {false, true}) {
    const TrainingInputs inputs = training_inputs(reference, batch, dense);
    float largest = 0;
    for (const float lse : inputs.lse) {
      if (std::isfinite(lse)) largest = std::max(largest, std::abs(lse));
    }
    EXPECT_GT(largest, 1e4f);
    const TrainingResult got = run_training(cpu, batch, inputs);
    expect_gradients(got, run_training(reference, batch, inputs), spec,
                     static_cast<double>(largest) / 100);
    for (const NamedGradient& one : outputs_of(got)) {
      for (const float value : *one.values) ASSERT_TRUE(std::isfinite(value)) << one.name;
    }
  }
}

void expect_same_bits(const TrainingResult& got, const TrainingResult& expected,
                      const std::string& what) {
  const std::vector<NamedGradient> have = outputs_of(got);
  const std::vector<NamedGradient> want = outputs_of(expected);
  for (size_t n = 0; n < want.size(); ++n) {
    const Comparison same = compare_bits(*have[n].values, *want[n].values);
    EXPECT_TRUE(same.ok) << what << ", " << want[n].name << ": " << same.message;
  }
}

TEST(TrainingBitwise, RerunsAndThreads) {
  const Case batch(mixed_spec());
  const Context one({.backend = Backend::kCpu, .num_threads = 1});
  for (const bool dense : {false, true}) {
    const TrainingInputs inputs = training_inputs(one, batch, dense);
    const TrainingResult expected = run_training(one, batch, inputs);
    expect_same_bits(run_training(one, batch, inputs), expected, "rerun");
    for (const int threads : {2, 5, 40}) {
      const Context many({.backend = Backend::kCpu, .num_threads = threads});
      expect_same_bits(run_training(many, batch, inputs), expected,
                       std::to_string(threads) + " threads");
    }
  }
}

/// `count` rows from `first` on of values that have `width` numbers a row.
Floats rows_of(const Floats& values, int64_t first, int64_t count, int64_t width) {
  return {values.begin() + first * width, values.begin() + (first + count) * width};
}

TEST(TrainingBitwise, AloneAndInABatch) {
  for (const int64_t target : simd_targets()) {
    const ScopedSimdTarget only(target);
    const Context context({.backend = Backend::kCpu, .num_threads = 2});
    CaseSpec alone = mixed_spec();
    alone.padded_rows = 0;
    alone.q_lens = {1300};
    alone.k_lens = {1420};
    const Case single(alone);
    CaseSpec spec = alone;
    spec.q_lens = {37, 1, 1300};
    spec.k_lens = {200, 130, 1420};
    spec.padded_rows = 1;
    Case batch(spec);
    batch.copy_request(single, 0, 2);
    for (const bool dense : {false, true}) {
      const TrainingInputs own = training_inputs(context, single, dense);
      TrainingInputs all = training_inputs(context, batch, dense);
      all.with_dlse = own.with_dlse;
      all.normaliser = own.normaliser;
      const int64_t heads = alone.kv_heads * alone.group;
      const int64_t row = heads * alone.head_dim;
      for (int64_t n = 0; n < 1300 * row; ++n) all.dout.set(38 * row + n, own.dout.get(n));
      std::copy(own.dlse.begin(), own.dlse.end(), all.dlse.begin() + 38 * heads);
      const TrainingResult expected = run_training(context, single, own);
      TrainingResult got = run_training(context, batch, all);
      const int64_t key = alone.kv_heads * alone.head_dim;
      const int64_t index_row = alone.kv_heads * alone.index_dim;
      got.dq = rows_of(got.dq, 38, 1300, row);
      got.dk = rows_of(got.dk, 330, 1420, key);
      got.dv = rows_of(got.dv, 330, 1420, key);
      got.dq_idx = rows_of(got.dq_idx, 38, 1300, index_row);
      got.loss = expected.loss;  // of all requests
      // Index keys are [Tk, 1, Di].
      got.dk_idx = rows_of(got.dk_idx, 330, 1420, alone.index_dim);
      expect_same_bits(got, expected, simd_target_name(target) + " in a batch");
    }
  }
}

TEST(TrainingArguments, CpuTakesDimsInEights) {
  const Context cpu({.backend = Backend::kCpu, .num_threads = 1});
  CaseSpec spec = mixed_spec();
  spec.index_dim = 12;
  const Case batch(spec);
  KlForwardBackwardArgs args;
  std::vector<float> memory(1 << 20);
  const int64_t heads = spec.kv_heads * spec.group;
  args.q = batch.q;
  args.k = batch.k;
  args.lse = Tensor(memory.data(), DType::kFloat32, {batch.num_rows, heads});
  args.q_idx = batch.q_idx;
  args.k_idx = batch.k_idx;
  args.lse_idx = Tensor(memory.data(), DType::kFloat32, {spec.kv_heads, batch.num_rows});
  args.sequences = batch.sequences;
  args.scope = KlScope::kVisible;
  args.normaliser = 1;
  args.loss = MutableTensor(memory.data(), DType::kFloat32, {1});
  args.dq_idx = MutableTensor(memory.data(), DType::kFloat32,
                              {batch.num_rows, spec.kv_heads, spec.index_dim});
  args.dk_idx = MutableTensor(memory.data(), DType::kBFloat16, {batch.k.shape[0], spec.index_dim});
  try {
    kl_forward_backward_workspace_size(cpu, args);
    FAIL() << "an index dim of 12 was taken";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "[kl_forward_backward] not supported by the cpu backend: head dim 12, allowed "
                 "multiples of 8");
  }
}

}  // namespace
}  // namespace msa::test
