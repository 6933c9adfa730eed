// Norms, RoPE, activation, linear layers and caches against plain loops in double.
#include <cmath>
#include <cstring>
#include <random>
#include <set>

#include "runner/layers/bfloat16.h"
#include "runner/layers/caches.h"
#include "runner/layers/elementwise.h"
#include "runner/layers/linear.h"
#include "runner/layers/memory.h"
#include "tests/runner/fixture.h"

namespace msa::runner::test {
namespace {

std::vector<float> random_floats(size_t count, uint64_t seed, float scale = 1) {
  std::mt19937_64 generator(seed);
  std::vector<float> values(count);
  for (float& value : values) {
    value = scale * static_cast<float>(static_cast<double>(generator() >> 11) * 0x1p-52 - 1);
  }
  return values;
}

TEST(RmsNorm, EqualsTheFormula) {
  for (int64_t n : {1, 7, 8, 16, 31, 64, 129, 256}) {
    const std::vector<float> x = random_floats(static_cast<size_t>(n), 1, 3);
    const std::vector<float> weight = random_floats(static_cast<size_t>(n), 2);
    std::vector<float> y(x.size());
    rms_norm(x.data(), weight.data(), n, 1e-6f, y.data());
    double sum = 0;
    for (float value : x) sum += static_cast<double>(value) * static_cast<double>(value);
    const double factor = 1 / std::sqrt(sum / static_cast<double>(n) + 1e-6);
    for (size_t i = 0; i < x.size(); ++i) {
      const double wanted =
          static_cast<double>(x[i]) * factor * (1 + static_cast<double>(weight[i]));
      EXPECT_NEAR(static_cast<double>(y[i]), wanted, 2e-6 * (1 + std::abs(wanted)));
    }
    std::vector<float> in_place = x;
    rms_norm(in_place.data(), weight.data(), n, 1e-6f, in_place.data());
    EXPECT_EQ(in_place, y);
  }
  std::vector<float> zero(16, 0.0f);
  rms_norm(zero.data(), zero.data(), 16, 1e-6f, zero.data());
  EXPECT_EQ(zero, std::vector<float>(16, 0.0f));
}

TEST(Rotary, TurnsPairsByTheAngleOfTransformers) {
  const int64_t dim = 32;
  const double theta = 5e6;
  const RotaryTable table(dim, theta);
  ASSERT_EQ(table.num_pairs(), 16);
  std::vector<float> cosines(16);
  std::vector<float> sines(16);
  for (int64_t position : {0, 1, 63, 4097, 131071, 1048575}) {
    table.fill(position, cosines.data(), sines.data());
    for (size_t i = 0; i < 16; ++i) {
      // The inverse frequency and the angle are float32, whatever follows is exact.
      const double exact_frequency = std::pow(theta, -2.0 * static_cast<double>(i) / 32);
      const double exact = static_cast<double>(position) * exact_frequency;
      const double angle =
          std::atan2(static_cast<double>(sines[i]), static_cast<double>(cosines[i]));
      const double turns = std::remainder(angle - exact, 2 * M_PI);
      EXPECT_NEAR(turns, 0, 3e-7 * exact + 3e-7) << position << " pair " << i;
      EXPECT_NEAR(std::hypot(static_cast<double>(cosines[i]), static_cast<double>(sines[i])), 1,
                  1e-6);
    }
    std::vector<float> x = random_floats(40, 3);
    const std::vector<float> before = x;
    rotate(x.data(), cosines.data(), sines.data(), 16);
    for (size_t i = 0; i < 16; ++i) {
      const double c = static_cast<double>(cosines[i]);
      const double s = static_cast<double>(sines[i]);
      const double a = static_cast<double>(before[i]);
      const double b = static_cast<double>(before[i + 16]);
      EXPECT_NEAR(static_cast<double>(x[i]), a * c - b * s, 1e-6);
      EXPECT_NEAR(static_cast<double>(x[i + 16]), b * c + a * s, 1e-6);
    }
    for (size_t i = 32; i < 40; ++i) EXPECT_EQ(x[i], before[i]);
  }
}

TEST(Rotary, AngleIsTheFloat32ProductOfTransformers) {
  // Values of torch: 1.0 / (5e6 ** (torch.arange(0, 32, 2).float() / 32)), positions as float32.
  const float frequencies[4] = {1.0f, 0.38134175539016724f, 0.14542154967784882f,
                                0.05545530840754509f};
  const RotaryTable table(32, 5e6);
  std::vector<float> cosines(16);
  std::vector<float> sines(16);
  table.fill(1000003, cosines.data(), sines.data());
  for (size_t i = 0; i < 4; ++i) {
    const float angle = 1000003.0f * frequencies[i];
    EXPECT_NEAR(static_cast<double>(cosines[i]), std::cos(static_cast<double>(angle)), 1e-6);
    EXPECT_NEAR(static_cast<double>(sines[i]), std::sin(static_cast<double>(angle)), 1e-6);
  }
}

TEST(Swiglu, EqualsTheFormulaOnBothSidesOfTheLimit) {
  std::vector<float> gate_up = random_floats(size_t{2} * 77, 4, 12);
  gate_up[0] = 1000;
  gate_up[1] = -1000;
  gate_up[77] = 1000;
  gate_up[78] = -1000;
  std::vector<float> y(77);
  swiglu(gate_up.data(), 77, 1.702f, 7.0f, y.data());
  for (size_t i = 0; i < 77; ++i) {
    const double gate = std::min(static_cast<double>(gate_up[i]), 7.0);
    const double up = std::clamp(static_cast<double>(gate_up[77 + i]), -7.0, 7.0);
    const double wanted = (up + 1) * gate / (1 + std::exp(-1.702 * gate));
    EXPECT_NEAR(static_cast<double>(y[i]), wanted, 3e-6 * (1 + std::abs(wanted))) << i;
  }
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(float_to_bfloat16(1.0f), 0x3F80);
  EXPECT_EQ(float_to_bfloat16(1.00390625f), 0x3F80);  // a tie: down to even
  EXPECT_EQ(float_to_bfloat16(1.01171875f), 0x3F82);  // a tie: up to even
  EXPECT_EQ(float_to_bfloat16(1.004f), 0x3F81);
  EXPECT_EQ(float_to_bfloat16(-0.0f), 0x8000);
  EXPECT_EQ(float_to_bfloat16(3.4e38f), 0x7F80);
  EXPECT_EQ(float_to_bfloat16(INFINITY), 0x7F80);
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(NAN))));
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(std::bit_cast<float>(0x7F800001u)))));
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = bfloat16_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(float_to_bfloat16(value), bits);
  }
  EXPECT_EQ(float16_to_float(0x3C00), 1.0f);
  EXPECT_EQ(float16_to_float(0x0001), 0x1p-24f);
  EXPECT_EQ(float16_to_float(0xFBFF), -65504.0f);
}

class LinearRows : public testing::TestWithParam<int> {};

TEST_P(LinearRows, EqualsPlainLoops) {
  const Context context({.backend = Backend::kReference, .num_threads = GetParam()});
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{5, 3}, {64, 48}, {256, 100}}) {
    const std::vector<float> weights = random_floats(static_cast<size_t>(in * out), 5);
    const Linear linear(weights.data(), out, in, DType::kFloat32);
    for (int64_t rows : {1, 2, 15, 16, 63, 64, 65, 130, 257}) {
      const auto padded = static_cast<size_t>(Linear::padded_rows(rows) + 16);
      std::vector<float> x = random_floats(padded * static_cast<size_t>(in), 6);
      std::vector<float> y = random_floats(padded * static_cast<size_t>(out), 7);
      const std::vector<float> before = y;
      for (bool add : {false, true}) {
        y = before;
        linear.run(context, x.data(), rows, y.data(), add);
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t n = 0; n < out; ++n) {
            const auto at = static_cast<size_t>(row * out + n);
            double sum = add ? static_cast<double>(before[at]) : 0;
            for (int64_t k = 0; k < in; ++k) {
              sum += static_cast<double>(x[static_cast<size_t>(row * in + k)]) *
                     static_cast<double>(weights[static_cast<size_t>(n * in + k)]);
            }
            ASSERT_NEAR(static_cast<double>(y[at]), sum, 2e-5) << rows << " rows, row " << row;
          }
        }
        const auto end = static_cast<size_t>(Linear::padded_rows(rows) * out);
        for (size_t at = end; at < y.size(); ++at) ASSERT_EQ(y[at], before[at]);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, LinearRows, testing::Values(1, 2, 3));

TEST(Linear, BFloat16IsCloseOrRefused) {
  const Context context({.backend = Backend::kReference, .num_threads = 2});
  const std::vector<float> weights = random_floats(size_t{64} * 32, 8);
  std::vector<float> x = random_floats(size_t{80} * 64, 9);
  std::vector<float> y(size_t{80} * 32);
  try {
    const Linear linear(weights.data(), 32, 64, DType::kBFloat16);
    EXPECT_LT(linear.bytes(), Linear(weights.data(), 32, 64, DType::kFloat32).bytes());
    linear.run(context, x.data(), 80, y.data());
    for (size_t at = 0; at < y.size(); ++at) {
      double sum = 0;
      for (size_t k = 0; k < 64; ++k) {
        sum += static_cast<double>(x[at / 32 * 64 + k]) *
               static_cast<double>(weights[at % 32 * 64 + k]);
      }
      EXPECT_NEAR(static_cast<double>(y[at]), sum, 0.1);
    }
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("bfloat16"), std::string::npos);
  }
}

ModelConfig cache_config() {
  ModelConfig config;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.index_dim = 4;
  config.block_size = 4;
  config.layers = {LayerKind::kFullAttention, LayerKind::kSparseAttention};
  return config;
}

/// The element of a view at token `position` and, with heads, head `head`.
float element(const Tensor& view, const Tensor& table, int64_t position, int64_t head, int64_t d) {
  const int32_t page = static_cast<const int32_t*>(table.data)[position / 4];
  int64_t at = page * view.stride[0] + position % 4 * view.stride[1];
  at += view.rank == 4 ? head * view.stride[2] + d : d;
  return view.dtype == DType::kFloat32
             ? static_cast<const float*>(view.data)[at]
             : bfloat16_to_float(static_cast<const uint16_t*>(view.data)[at]);
}

/// Writes one token of the last sequence position through the library's op.
void write_token(const PagedCaches& caches, int64_t layer, int64_t position, float stamp) {
  const Context context({.backend = Backend::kReference, .num_threads = 1});
  std::vector<float> k;
  std::vector<float> v;
  for (int64_t head = 0; head < 2; ++head) {
    const float offset = static_cast<float>(layer * 2 + head) / 4;
    k.insert(k.end(), 8, stamp + offset);
    v.insert(v.end(), 8, -stamp - offset);
  }
  const std::vector<float> k_idx(4, stamp / 2);
  const int32_t cu_seqlens_q[2] = {0, 1};
  const int32_t kv_lens[1] = {static_cast<int32_t>(position) + 1};
  CacheAppendArgs args;
  args.k = {k.data(), DType::kFloat32, {1, 2, 8}};
  args.v = {v.data(), DType::kFloat32, {1, 2, 8}};
  if (layer == 1) args.k_idx = {k_idx.data(), DType::kFloat32, {1, 4}};
  args.sequences.cu_seqlens_q = {cu_seqlens_q, DType::kInt32, {2}};
  args.sequences.kv_lens = {kv_lens, DType::kInt32, {1}};
  args.sequences.page_table = caches.page_table();
  args.cache = caches.layer(layer);
  cache_append(context, args);
}

TEST(Caches, KeepWhatWasWrittenThroughRollbacks) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    PagedCaches caches(cache_config(), 30, dtype, true);
    EXPECT_EQ(caches.bytes(), 0u);
    std::vector<float> stamp(30, -1);  // what each position was last written with
    float next = 1;
    const auto extend = [&](int64_t length) {
      const int64_t begin = caches.length();
      caches.extend(length);
      for (int64_t i = begin; i < length; ++i) {
        stamp[static_cast<size_t>(i)] = next;
        for (int64_t layer = 0; layer < 2; ++layer) write_token(caches, layer, i, next);
        next += 1;
        if (next > 60) next = 1;  // exact in bfloat16 with the quarters
      }
    };
    const auto check = [&] {
      const Tensor table = caches.page_table();
      const auto used = static_cast<size_t>((caches.length() + 3) / 4);
      ASSERT_EQ(static_cast<size_t>(table.shape[1]), used);
      const auto* pages = static_cast<const int32_t*>(table.data);
      EXPECT_EQ(std::set<int32_t>(pages, pages + used).size(), used);
      for (int64_t i = 0; i < caches.length(); ++i) {
        const float wanted = stamp[static_cast<size_t>(i)];
        for (int64_t layer = 0; layer < 2; ++layer) {
          for (int64_t head = 0; head < 2; ++head) {
            const float offset = static_cast<float>(layer * 2 + head) / 4;
            ASSERT_EQ(element(caches.layer(layer).k, table, i, head, 7), wanted + offset);
            ASSERT_EQ(element(caches.layer(layer).v, table, i, head, 0), -wanted - offset);
          }
        }
        ASSERT_EQ(element(caches.layer(1).k_idx, table, i, 0, 3), wanted / 2);
      }
    };
    extend(13);
    check();
    const size_t bytes = caches.bytes();
    const size_t page = size_t{4} * (2 * 2 * 2 * 8 + 4) * dtype_bytes(dtype);
    EXPECT_EQ(bytes, 4 * page);
    for (int64_t length : {9, 8, 5, 12, 4, 0, 16}) {
      if (length < caches.length()) caches.truncate(length);
      check();
      extend(length);
      check();
    }
    EXPECT_EQ(caches.bytes(), bytes);  // freed pages were used again
    extend(30);
    check();
    EXPECT_EQ(caches.bytes(), 8 * page);
  }
}

TEST(Caches, RollbacksShuffleThePages) {
  PagedCaches caches(cache_config(), 32, DType::kFloat32, true);
  caches.extend(32);
  caches.truncate(4);
  caches.extend(32);
  const Tensor table = caches.page_table();
  const auto* pages = static_cast<const int32_t*>(table.data);
  EXPECT_EQ(std::set<int32_t>(pages, pages + 8), (std::set<int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(Memory, SaysHowMuchWasWanted) {
  ModelConfig config = cache_config();
  config.head_dim = 1024;
  const auto wanted = [&] { PagedCaches caches(config, int64_t{1} << 32, DType::kFloat32, false); };
  const std::string bytes = std::to_string((int64_t{1} << 32) * 2 * 1024 * 2 * 2 * 4);
  expect_error(wanted, {"[memory]", "caches of 4294967296 tokens", bytes});
  try {
    wanted();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
  }
  Buffer buffer;
  expect_error([&] { buffer.grow("a test", size_t{1} << 60); },
               {"[memory]", "a test", std::to_string(size_t{1} << 60)});
  buffer.grow("a test", 100);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
}

}  // namespace
}  // namespace msa::runner::test
