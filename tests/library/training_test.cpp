// The training ops of the host backends against finite differences: of a loss that is written here
// once more, in double, from the definitions alone. Then what the formulas promise beside: empty
// rows, sums over parts, storage types, and refusals.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "core/element.h"
#include "library/compare.h"
#include "library/expect_error.h"
#include "library/training_case.h"

namespace msa::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// sum of dout * out + dlse * lse over all rows that see something.
double attention_loss(const Batch& b, bool dense, bool with_dlse) {
  double loss = 0;
  for (int64_t t = 0; t < b.rows; ++t) {
    for (int64_t h = 0; h < b.q_heads(); ++h) {
      const int64_t g = h / b.group;
      Doubles logits;
      const std::vector<int64_t> tokens = b.reads(t, g, dense);
      if (tokens.empty()) continue;
      for (const int64_t j : tokens) {
        logits.push_back(b.scale * product(b.q, t * b.q_heads() + h, b.k, j * b.heads + g, b.dim));
      }
      const double lse = log_sum_exp(logits);
      if (with_dlse) loss += b.dlse[static_cast<size_t>(t * b.q_heads() + h)] * lse;
      for (size_t n = 0; n < tokens.size(); ++n) {
        loss += std::exp(logits[n] - lse) *
                product(b.dout, t * b.q_heads() + h, b.v, tokens[n] * b.heads + g, b.dim);
      }
    }
  }
  return loss;
}

/// The KL loss; the teacher comes from `fixed`, which differentiation does not move.
double kl_loss(const Batch& b, const Batch& fixed, bool dense) {
  double loss = 0;
  for (int64_t t = 0; t < b.rows; ++t) {
    for (int64_t g = 0; g < b.heads; ++g) {
      const std::vector<int64_t> tokens = b.reads(t, g, dense);
      if (tokens.empty()) continue;
      Doubles target(tokens.size(), 0.0);
      for (int64_t h = g * b.group; h < (g + 1) * b.group; ++h) {
        Doubles logits;
        for (const int64_t j : tokens) {
          logits.push_back(fixed.scale *
                           product(fixed.q, t * b.q_heads() + h, fixed.k, j * b.heads + g, b.dim));
        }
        const double lse = log_sum_exp(logits);
        for (size_t n = 0; n < tokens.size(); ++n) {
          target[n] += std::exp(logits[n] - lse) / static_cast<double>(b.group);
        }
      }
      Doubles scores;
      for (const int64_t j : tokens) {
        scores.push_back(b.scale_idx * product(b.q_idx, t * b.heads + g, b.k_idx, j, b.index_dim));
      }
      const double lse = log_sum_exp(scores);
      for (size_t n = 0; n < tokens.size(); ++n) {
        if (target[n] > 0) loss += target[n] * (std::log(target[n]) - (scores[n] - lse));
      }
    }
  }
  return loss * b.coefficient / b.normaliser;
}

/// d loss / d values, element by element.
Floats differentiate(Doubles& values, const std::function<double()>& loss) {
  constexpr double kStep = 1e-5;
  Floats gradient;
  for (double& value : values) {
    const double kept = value;
    value = kept + kStep;
    const double above = loss();
    value = kept - kStep;
    const double below = loss();
    value = kept;
    gradient.push_back(static_cast<float>((above - below) / (2 * kStep)));
  }
  return gradient;
}

void expect_close(const Floats& got, const Floats& expected, const char* what,
                  const Tolerance& tolerance = {2e-6, 2e-5, 1e-5}) {
  const Comparison same = compare(got, expected, tolerance);
  EXPECT_TRUE(same.ok) << what << ": " << same.message;
  double size = 0;  // a gradient of nothing would prove nothing
  for (const float value : expected) size += std::abs(static_cast<double>(value));
  EXPECT_GT(size, 0.1) << what;
}

/// Chunked prefill, decode, rows before position 0, an empty request, and rows of no request.
Batch hostile_batch(int64_t dim = 4, int64_t index_dim = 3) {
  Batch batch({5, 1, 4, 0, 3}, {11, 14, 2, 3, 3}, 2, dim, index_dim);
  batch.scale = static_cast<double>(static_cast<float>(batch.scale));
  batch.scale_idx = static_cast<double>(static_cast<float>(batch.scale_idx));
  return batch;
}

/// A backend, the dims that it takes here, and how close its sums come to those in double.
struct Differentiated {
  Backend backend;
  int64_t dim, index_dim;
  Tolerance tolerance;
};
class FiniteDifferences : public testing::TestWithParam<Differentiated> {};

TEST_P(FiniteDifferences, EqualTheGradientsOfAttention) {
  const Differentiated& param = GetParam();
  for (const bool dense : {false, true}) {
    for (const bool with_dlse : {false, true}) {
      Batch batch = hostile_batch(param.dim, param.index_dim);
      Call call(batch, DType::kFloat32, param.backend);
      call.forward(dense);
      call.backward(dense, with_dlse);
      const auto loss = [&] { return attention_loss(batch, dense, with_dlse); };
      expect_close(call.dq(), differentiate(batch.q, loss), "dq", param.tolerance);
      expect_close(call.dk(), differentiate(batch.k, loss), "dk", param.tolerance);
      expect_close(call.dv(), differentiate(batch.v, loss), "dv", param.tolerance);
    }
  }
}

TEST_P(FiniteDifferences, EqualTheGradientsOfTheKlValue) {
  const Differentiated& param = GetParam();
  for (const bool dense : {false, true}) {
    Batch batch = hostile_batch(param.dim, param.index_dim);
    const Batch fixed = batch;
    Call call(batch, DType::kFloat32, param.backend);
    call.forward(dense);
    call.kl(dense);
    const auto loss = [&] { return kl_loss(batch, fixed, dense); };
    EXPECT_NEAR(static_cast<double>(call.loss), loss(), 1e-5 * loss());
    EXPECT_GT(call.loss, 0.1f);
    expect_close(call.dq_idx(), differentiate(batch.q_idx, loss), "dq_idx", param.tolerance);
    expect_close(call.dk_idx(), differentiate(batch.k_idx, loss), "dk_idx", param.tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Training, FiniteDifferences,
    testing::Values(Differentiated{Backend::kReference, 4, 3, {2e-6, 2e-5, 1e-5}},
                    Differentiated{Backend::kCpu, 8, 8, {2e-5, 1e-4, 2e-5}}),
    [](const auto& test) { return std::string(backend_name(test.param.backend)); });

TEST(TrainingReference, KlIsZeroWhereTheStudentIsTheTeacher) {
  // One head a group, and the index branch a copy of the main branch.
  Batch batch = hostile_batch();
  batch.group = 1;
  batch.index_dim = batch.dim;
  batch.scale_idx = batch.scale;
  batch.heads = 1;
  batch.q.resize(static_cast<size_t>(batch.rows * batch.dim));
  batch.k.resize(static_cast<size_t>(batch.keys * batch.dim));
  batch.v.resize(batch.k.size());
  batch.dout.resize(batch.q.size());
  batch.q_idx = batch.q;
  batch.k_idx = batch.k;
  for (const bool dense : {false, true}) {
    Call call(batch);
    call.forward(dense);
    call.kl(dense);
    EXPECT_NEAR(call.loss, 0, 1e-6);
    for (const float value : call.dq_idx()) EXPECT_NEAR(value, 0, 1e-6);
    for (const float value : call.dk_idx()) EXPECT_NEAR(value, 0, 1e-6);
  }
}

TEST(TrainingReference, TeachersOfWeightZeroAddNothing) {
  // Logits so far apart that all but one weight underflow: 0 log 0 = 0, and log r is no log of 0.
  Batch batch({1}, {4}, 0);
  batch.scale = batch.scale_idx = 1;
  for (double& value : batch.q) value = 100;
  for (size_t n = 0; n < batch.k.size(); ++n) {
    const size_t token = n / static_cast<size_t>(batch.heads * batch.dim);
    batch.k[n] = 100.0 * static_cast<double>(token);
  }
  for (double& value : batch.q_idx) value = 100;
  for (size_t n = 0; n < batch.k_idx.size(); ++n) {
    const size_t token = n / static_cast<size_t>(batch.index_dim);
    batch.k_idx[n] = -20.0 * static_cast<double>(token);
  }
  Call call(batch);
  call.forward(true);
  call.kl(true);
  // p = 1 for the last token, whose s is 100 * 60 * 3 below the largest.
  const double expected =
      static_cast<double>(batch.heads) * 18000 * batch.coefficient / batch.normaliser;
  EXPECT_NEAR(static_cast<double>(call.loss), expected, 1e-5 * expected);
  for (const float value : call.dq_idx()) EXPECT_TRUE(std::isfinite(value));
}

TEST(TrainingReference, PartsOfAContextAddUp) {
  // lse and out merged over all blocks, gradients part by part: the sums are those of the whole.
  Batch batch = hostile_batch();
  Call whole(batch);
  whole.forward(true);
  whole.backward(true, true);
  Doubles sums[3];
  for (int32_t part = 0; part < 2; ++part) {
    Batch half = batch;
    half.top_k = 2;
    for (size_t n = 0; n < half.ids.size(); ++n) {  // blocks 0 and 2, or 1 and 3
      half.ids[n] = part + 2 * static_cast<int32_t>(n % 2);
    }
    Call call(half);
    call.forward(true);
    call.backward(false, true);
    const Floats gradients[3] = {call.dq(), call.dk(), call.dv()};
    for (int n = 0; n < 3; ++n) {
      sums[n].resize(gradients[n].size());
      for (size_t at = 0; at < gradients[n].size(); ++at) {
        sums[n][at] += static_cast<double>(gradients[n][at]);
      }
    }
  }
  const Floats expected[3] = {whole.dq(), whole.dk(), whole.dv()};
  for (int n = 0; n < 3; ++n) {
    const Floats got(sums[n].begin(), sums[n].end());
    // The merged D_row - dlse is subtracted in each part, weighted by the part's share.
    expect_close(got, expected[n], "sum of parts");
  }
}

TEST(TrainingReference, RowsThatSeeNothingHaveGradientZero) {
  Batch batch({6, 2}, {2, 5}, 3);
  for (const bool dense : {false, true}) {
    Call call(batch);
    call.forward(dense);
    call.backward(dense, true);
    call.kl(dense);
    const auto row = static_cast<size_t>(batch.q_heads() * batch.dim);
    const Floats dq = call.dq();
    for (size_t n = 0; n < 4 * row; ++n) EXPECT_EQ(dq[n], 0) << n;  // before position 0
    for (size_t n = 8 * row; n < dq.size(); ++n) EXPECT_EQ(dq[n], 0) << n;
    const Floats dk = call.dk();
    const auto key = static_cast<size_t>(batch.heads * batch.dim);
    for (size_t n = 7 * key; n < dk.size(); ++n) EXPECT_EQ(dk[n], 0) << n;  // of no request
    const Floats dk_idx = call.dk_idx();
    for (size_t n = size_t{7} * 3; n < dk_idx.size(); ++n) EXPECT_EQ(dk_idx[n], 0) << n;
    for (const Floats& all : {dq, dk, call.dv(), dk_idx, call.dq_idx()}) {
      for (const float value : all) EXPECT_TRUE(std::isfinite(value));
    }
  }
}

TEST(TrainingReference, GradientsHaveTheTypeOfTheInputs) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    Batch batch = hostile_batch();
    for (Doubles* values :
         {&batch.q, &batch.k, &batch.v, &batch.q_idx, &batch.k_idx, &batch.dout}) {
      for (double& value : *values) {  // inputs that both types hold exactly
        value = static_cast<double>(
            core::bfloat16_to_float(core::float_to_bfloat16(static_cast<float>(value))));
      }
    }
    Call exact(batch);
    Call stored(batch, dtype);
    for (Call* call : {&exact, &stored}) {
      call->forward(false);
      call->backward(false, true);
      call->kl(false);
    }
    const Tolerance tolerance = {2e-2, 1e-2, 1e-2};
    const std::pair<Floats, Floats> pairs[] = {{stored.dq(), exact.dq()},
                                               {stored.dk(), exact.dk()},
                                               {stored.dv(), exact.dv()},
                                               {stored.dq_idx(), exact.dq_idx()},
                                               {stored.dk_idx(), exact.dk_idx()}};
    for (const auto& [got, expected] : pairs) {
      const Comparison same = compare(got, expected, tolerance);
      EXPECT_TRUE(same.ok) << same.message;
      EXPECT_FALSE(compare_bits(got, expected).ok);
    }
    EXPECT_NEAR(stored.loss, exact.loss, 1e-3);
  }
}

TEST(TrainingArguments, AreRefusedByName) {
  Batch batch = hostile_batch();
  Call call(batch);
  const auto refused = [&](const std::function<void(KlForwardBackwardArgs&)>& broken,
                           const std::string& message) {
    KlForwardBackwardArgs args = call.kl_args(false);
    broken(args);
    expect_error([&] { kl_forward_backward(call.context, args, {}); },
                 "[kl_forward_backward] " + message);
  };
  refused([](auto& args) { args.normaliser = 0; },
          "normaliser is wrong: got 0, allowed a finite number above 0, Hkv * T");
  refused([](auto& args) { args.coefficient = kNaN; },
          "coefficient is wrong: got nan, allowed a finite number");
  refused([](auto& args) { args.scale_idx = -1.0f; },
          "scale is wrong: got -1, allowed a finite number above 0");
  refused([](auto& args) { args.scope = KlScope::kVisible; },
          "block_ids are given for all visible tokens: got int32 [2, 15, 2], allowed none with "
          "kVisible");
  refused([](auto& args) { args.block_ids = {}; },
          "block_ids is missing: got no tensor, allowed int32 of rank 3");
  refused([](auto& args) { args.lse_idx.shape[0] = 1; },
          "lse_idx has the wrong shape: got float32 [1, 15], allowed [2, 15]");
  refused([](auto& args) { args.dk_idx.dtype = DType::kBFloat16; },
          "dk_idx has the wrong type: got bfloat16, allowed float32");
  refused([](auto& args) { args.loss = {}; },
          "loss is missing: got no tensor, allowed float32 of rank 1");
  refused([](auto& args) { args.sequences.kv_lens = args.sequences.cu_seqlens_q; },
          "keys are in pages: got page_table or kv_lens, allowed packed keys with cu_seqlens_k");
  EXPECT_TRUE(std::isnan(call.loss));
  DenseAttentionBackwardArgs args;
  Floats memory(4096);
  args.q = Tensor(memory.data(), DType::kFloat32, {15, 4, 4});
  args.k = args.v = Tensor(memory.data(), DType::kFloat32, {35, 2, 4});
  args.sequences = call.sequences;
  args.out = args.dout = args.q;
  args.lse = Tensor(memory.data(), DType::kFloat32, {15, 4});
  args.dq = {memory.data(), DType::kFloat32, {15, 4, 4}};
  args.dk = {memory.data(), DType::kFloat32, {35, 2, 4}};
  args.dv = {memory.data(), DType::kFloat32, {35, 4, 4}};
  expect_error([&] { dense_attention_backward(call.context, args, {}); },
               "[dense_attention_backward] dv has the wrong shape: got float32 [35, 4, 4], "
               "allowed [35, 2, 4]");
}

TEST(TrainingArguments, BothHostBackendsHaveEveryOp) {
  const Context cpu({.backend = Backend::kCpu, .num_threads = 1});
  const Context reference({.backend = Backend::kReference, .num_threads = 1});
  const Geometry geometry = {
      .num_q_heads = 4, .num_kv_heads = 2, .head_dim = 8, .block_size = 4, .top_k = 2};
  for (const Op op : {Op::kIndexForward, Op::kAttentionForward, Op::kDenseAttentionForward,
                      Op::kIndexCandidates, Op::kMergeCandidates, Op::kMergeStates,
                      Op::kCacheAppend, Op::kCopyPages, Op::kAttentionBackward,
                      Op::kDenseAttentionBackward, Op::kKlForwardBackward, Op::kSelectBlocks}) {
    EXPECT_TRUE(supports(reference, op, geometry, DType::kFloat32).supported) << op_name(op);
    EXPECT_TRUE(supports(cpu, op, geometry, DType::kFloat32).supported) << op_name(op);
    EXPECT_STRNE(op_name(op), "unknown op");
  }
}

}  // namespace
}  // namespace msa::test
