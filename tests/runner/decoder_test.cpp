// One sequence through its life: chunks, decode, rollback, errors, hooks, generation.
#include <cmath>

#include "runner/runner.h"
#include "tests/runner/fixture.h"

namespace msa::runner::test {
namespace {

class DecoderTest : public testing::Test {
 protected:
  DecoderTest() { write_model(folder_, tiny_config(), random_weights(tiny_config())); }

  std::shared_ptr<const Model> load(Backend backend = Backend::kCpu, int threads = 2) const {
    return Model::load(Context({.backend = backend, .num_threads = threads}), folder_.path(),
                       {.with_tokenizer = false});
  }

  static std::vector<float> copy(std::span<const float> logits) {
    return {logits.begin(), logits.end()};
  }

  static std::vector<float> logits_of(const std::shared_ptr<const Model>& model,
                                      std::span<const int32_t> tokens, DecoderOptions options) {
    options.max_tokens = static_cast<int64_t>(tokens.size());
    Decoder decoder(model, options);
    decoder.append(tokens);
    return copy(decoder.logits());
  }

  static void expect_near(std::span<const float> a, std::span<const float> b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(a[i]), static_cast<double>(b[i]), tolerance) << i;
    }
  }

  TempFolder folder_;
  const std::vector<int32_t> tokens_ = random_tokens(150, 50);
};

TEST_F(DecoderTest, AnyChunkingGivesTheSameLogits) {
  const auto model = load();
  for (AttentionMode mode : {AttentionMode::kSparse, AttentionMode::kDense}) {
    const DecoderOptions options = {.attention = mode, .cache_dtype = DType::kFloat32};
    const std::vector<float> whole = logits_of(model, tokens_, options);
    for (int64_t chunk : {1, 4, 7, 64, 148, 1024}) {
      DecoderOptions other = options;
      other.chunk_tokens = chunk;
      expect_near(logits_of(model, tokens_, other), whole, 2e-4);
    }
    // Handed over in uneven parts, and token by token.
    for (size_t step : {1u, 3u, 50u}) {
      DecoderOptions other = options;
      other.max_tokens = 150;
      Decoder decoder(model, other);
      for (size_t begin = 0; begin < tokens_.size(); begin += step) {
        decoder.append(std::span(tokens_).subspan(begin, std::min(step, tokens_.size() - begin)));
      }
      EXPECT_EQ(decoder.length(), 150);
      expect_near(decoder.logits(), whole, 2e-4);
    }
  }
}

TEST_F(DecoderTest, BFloat16CachesAreClose) {
  const auto model = load();
  // No selection: rounded index keys may choose other blocks, and then nothing is close.
  const DecoderOptions exact = {.attention = AttentionMode::kDense, .cache_dtype = DType::kFloat32};
  const DecoderOptions rounded = {.attention = AttentionMode::kDense};
  expect_near(logits_of(model, tokens_, rounded), logits_of(model, tokens_, exact), 0.1);
}

TEST_F(DecoderTest, RollbackEqualsAFreshPrefillToTheBit) {
  const auto model = load();
  const std::span<const int32_t> all(tokens_);
  for (int64_t keep : {0, 1, 4, 31, 32, 77, 149}) {
    const auto kept = static_cast<size_t>(keep);
    const DecoderOptions options = {.max_tokens = 400, .chunk_tokens = 32};
    Decoder fresh(model, options);
    if (kept > 0) fresh.append(all.first(kept));
    fresh.append(all.subspan(kept));

    Decoder used(model, options);
    if (kept > 0) used.append(all.first(kept));
    used.append(random_tokens(90, 50, 99));  // something else, then forgotten
    used.rollback(keep);
    EXPECT_EQ(used.length(), keep);
    expect_error([&] { used.logits(); }, {"[decoder]", "no logits"});
    const size_t bytes = used.cache_bytes();
    used.append(all.subspan(kept));
    EXPECT_EQ(copy(used.logits()), copy(fresh.logits())) << keep;
    EXPECT_LE(used.cache_bytes(), std::max(bytes, fresh.cache_bytes()));
  }
}

TEST_F(DecoderTest, RollbackEqualsAPrefillInOnePiece) {
  const auto model = load();
  const DecoderOptions options = {.max_tokens = 400, .chunk_tokens = 32};
  Decoder fresh(model, options);
  fresh.append(tokens_);
  Decoder used(model, options);
  used.append(std::span(tokens_).first(96));  // ends where a chunk ends
  used.append(random_tokens(20, 50, 99));
  used.rollback(96);
  used.append(std::span(tokens_).subspan(96));
  EXPECT_EQ(copy(used.logits()), copy(fresh.logits()));
}

TEST_F(DecoderTest, ThreadsDoNotChangeTheResult) {
  const std::vector<float> one = logits_of(load(Backend::kCpu, 1), tokens_, {.chunk_tokens = 128});
  for (int threads : {2, 3}) {
    EXPECT_EQ(logits_of(load(Backend::kCpu, threads), tokens_, {.chunk_tokens = 128}), one);
  }
}

TEST_F(DecoderTest, MemoryFollowsTheLength) {
  const auto model = load();
  Decoder decoder(model, {.max_tokens = 4096});
  EXPECT_EQ(decoder.cache_bytes(), 0u);
  decoder.append(std::span(tokens_).first(5));
  // Two pages of 4 tokens: 3 layers of K and V (2 heads of 16), 2 of index-K (8), bfloat16.
  EXPECT_EQ(decoder.cache_bytes(), 2u * 4 * 2 * (3 * 2 * 2 * 16 + 2 * 8));
  EXPECT_GT(decoder.workspace_bytes(), 0u);
  decoder.append(tokens_);
  const size_t most = decoder.cache_bytes();
  decoder.rollback(0);
  EXPECT_EQ(decoder.cache_bytes(), most);
  decoder.append(tokens_);
  EXPECT_EQ(decoder.cache_bytes(), most);
}

TEST_F(DecoderTest, WrongAppendsChangeNothing) {
  const auto model = load();
  Decoder decoder(model, {.max_tokens = 160});
  decoder.append(std::span(tokens_).first(100));
  const std::vector<float> before = copy(decoder.logits());
  const std::vector<int32_t> none;
  const std::vector<int32_t> negative = {1, -1};
  const std::vector<int32_t> large = {1, 2, 50};
  expect_error([&] { decoder.append(none); }, {"[decoder]", "got 0 tokens"});
  expect_error([&] { decoder.append(negative); }, {"[decoder]", "token 1", "got id -1", "0 to 49"});
  expect_error([&] { decoder.append(large); }, {"[decoder]", "token 2", "got id 50", "0 to 49"});
  expect_error([&] { decoder.append(std::span(tokens_).first(61)); },
               {"[decoder]", "got 61 after 100", "160"});
  expect_error([&] { decoder.rollback(101); }, {"[decoder]", "got length 101", "0 to 100"});
  expect_error([&] { decoder.rollback(-1); }, {"[decoder]", "got length -1"});
  struct Stop {};
  const auto throwing_progress = [](int64_t, int64_t) { throw Stop(); };
  EXPECT_THROW(decoder.append(std::span(tokens_).first(20), throwing_progress), Stop);
  const auto throwing_sink = [](int64_t, int64_t, const float*) { throw Stop(); };
  EXPECT_THROW(decoder.append(std::span(tokens_).first(20), {}, throwing_sink), Stop);
  EXPECT_EQ(decoder.length(), 100);
  EXPECT_EQ(copy(decoder.logits()), before);
  decoder.append(std::span(tokens_).subspan(100));
  Decoder fresh(model, {.max_tokens = 160});
  fresh.append(std::span(tokens_).first(100));
  fresh.append(std::span(tokens_).subspan(100));
  EXPECT_EQ(copy(decoder.logits()), copy(fresh.logits()));
}

TEST_F(DecoderTest, RefusesWrongOptions) {
  const auto model = load();
  const auto create = [&](const DecoderOptions& options) {
    return [&model, options] { Decoder(model, options); };
  };
  expect_error(create({.max_tokens = 0}), {"[decoder]", "max_tokens", "got 0", "1 to 4096"});
  expect_error(create({.max_tokens = 4097}), {"[decoder]", "max_tokens", "got 4097", "4096"});
  expect_error(create({.max_tokens = 9, .chunk_tokens = 0}), {"chunk_tokens", "got 0"});
  expect_error(create({.max_tokens = 9, .cache_dtype = DType::kInt32}), {"cache_dtype", "int32"});
  expect_error([] { Decoder(nullptr, {.max_tokens = 9}); }, {"[decoder]", "no model"});
  const Decoder empty(model, {.max_tokens = 9});
  expect_error([&] { empty.logits(); }, {"[decoder]", "no logits"});
  EXPECT_EQ(Decoder(model, {.max_tokens = 9, .chunk_tokens = 5}).options().chunk_tokens, 8);
}

TEST_F(DecoderTest, HookSeesAndDecidesTheSelection) {
  const auto model = load();
  std::vector<std::vector<int32_t>> seen(3);  // by layer: ids [Hkv, tokens, K] of one chunk
  DecoderOptions options = {.max_tokens = 150, .chunk_tokens = 160, .cache_dtype = DType::kFloat32};
  options.selection_hook = [&](int64_t layer, int64_t first, int64_t count,
                               const MutableTensor& ids) {
    EXPECT_EQ(first, 0);
    EXPECT_EQ(count, 150);
    EXPECT_EQ(ids.dtype, DType::kInt32);
    ASSERT_EQ(ids.rank, 3);
    EXPECT_EQ(ids.shape[0], 2);
    EXPECT_EQ(ids.shape[1], 150);
    EXPECT_EQ(ids.shape[2], 3);
    const auto* data = static_cast<const int32_t*>(ids.data);
    seen[static_cast<size_t>(layer)].assign(data,
                                            data + ids.shape[0] * ids.shape[1] * ids.shape[2]);
  };
  Decoder watched(model, options);
  watched.append(tokens_);
  EXPECT_TRUE(seen[0].empty());  // a layer of full attention
  for (size_t layer : {1u, 2u}) {
    ASSERT_EQ(seen[layer].size(), 900u);
    for (int64_t g = 0; g < 2; ++g) {
      for (int64_t i = 0; i < 150; ++i) {
        const int32_t* ids = &seen[layer][static_cast<size_t>((g * 150 + i) * 3)];
        const auto local = static_cast<int32_t>(i / 4);
        EXPECT_EQ(ids[std::min<int32_t>(local, 2)], local);  // ascending, the local block last
        if (local < 2) {
          EXPECT_EQ(ids[2], -1);
        }
      }
    }
  }
  // Feeding all tokens their own block alone equals a selection of one block; feeding back what was
  // seen changes nothing.
  options.selection_hook = [&](int64_t layer, int64_t, int64_t, const MutableTensor& ids) {
    const auto& own = seen[static_cast<size_t>(layer)];
    std::copy(own.begin(), own.end(), static_cast<int32_t*>(ids.data));
  };
  Decoder fed(model, options);
  fed.append(tokens_);
  EXPECT_EQ(copy(fed.logits()), copy(watched.logits()));
  options.selection_hook = [](int64_t, int64_t, int64_t count, const MutableTensor& ids) {
    for (int64_t row = 0; row < 2 * count; ++row) {
      int32_t* row_ids = static_cast<int32_t*>(ids.data) + row * 3;
      row_ids[0] = static_cast<int32_t>(row % count / 4);
      row_ids[1] = -1;
    }
  };
  Decoder local(model, options);
  local.append(tokens_);
  EXPECT_NE(copy(local.logits()), copy(watched.logits()));
  // Without a hook the last layer works for the last token alone; the result is the same.
  options.selection_hook = {};
  Decoder plain(model, options);
  plain.append(tokens_);
  expect_near(plain.logits(), watched.logits(), 2e-4);
}

TEST_F(DecoderTest, ProgressAndTimings) {
  const auto model = load();
  Decoder decoder(model, {.max_tokens = 150, .chunk_tokens = 64});
  std::vector<int64_t> done;
  decoder.append(std::span(tokens_).first(10));
  decoder.append(std::span(tokens_).subspan(10), [&](int64_t now, int64_t total) {
    EXPECT_EQ(total, 140);
    done.push_back(now);
  });
  EXPECT_EQ(done, (std::vector<int64_t>{54, 118, 140}));  // chunks end at 64, 128
  EXPECT_GT(decoder.timings().linear_us, 0);
  EXPECT_GT(decoder.timings().index_us, 0);
  EXPECT_GT(decoder.timings().attention_us, 0);
  EXPECT_GT(decoder.timings().dense_attention_us, 0);
  decoder.reset_timings();
  EXPECT_EQ(decoder.timings().total_us(), 0);
}

TEST_F(DecoderTest, GenerateStopsForEachReason) {
  const auto model = load();
  const auto prompt = std::span(tokens_).first(20);
  const auto generated = [&](int64_t max_tokens, const GenerateOptions& options,
                             const std::function<bool(int32_t)>& on_token = {}) {
    Decoder decoder(model, {.max_tokens = max_tokens});
    decoder.append(prompt);
    const Generated result = generate(decoder, options, on_token);
    const auto read = static_cast<int64_t>(result.tokens.size()) -
                      (result.reason == StopReason::kStopToken ? 0 : 1);
    EXPECT_EQ(decoder.length(), 20 + read);
    return result;
  };
  const Generated all = generated(100, {.max_new_tokens = 12});
  EXPECT_EQ(all.reason, StopReason::kMaxNewTokens);
  ASSERT_EQ(all.tokens.size(), 12u);
  const Generated full = generated(25, {.max_new_tokens = 12});
  EXPECT_EQ(full.reason, StopReason::kCacheFull);
  ASSERT_EQ(full.tokens.size(), 6u);
  EXPECT_TRUE(std::equal(full.tokens.begin(), full.tokens.end(), all.tokens.begin()));

  const int32_t stop = all.tokens[7];
  const Generated stopped = generated(100, {.max_new_tokens = 12, .stop_tokens = {stop}});
  EXPECT_EQ(stopped.reason, StopReason::kStopToken);
  EXPECT_EQ(std::find(stopped.tokens.begin(), stopped.tokens.end(), stop), stopped.tokens.end());

  int count = 0;
  const Generated cut =
      generated(100, {.max_new_tokens = 12}, [&](int32_t) { return ++count < 3; });
  EXPECT_EQ(cut.reason, StopReason::kCallback);
  EXPECT_EQ(cut.tokens.size(), 3u);

  const SamplerOptions warm = {.temperature = 1.5f, .seed = 4};
  const Generated first = generated(100, {.max_new_tokens = 12, .sampler = warm});
  EXPECT_EQ(first.tokens, generated(100, {.max_new_tokens = 12, .sampler = warm}).tokens);
  EXPECT_NE(first.tokens, all.tokens);

  Decoder empty(model, {.max_tokens = 9});
  expect_error([&] { generate(empty, {}); }, {"[decoder]", "no logits"});
  expect_error([&] { generate(empty, {.max_new_tokens = -1}); }, {"max_new_tokens", "got -1"});
}

TEST_F(DecoderTest, DecodersOnOneModelAreIndependent) {
  const auto model = load();
  Decoder a(model, {.max_tokens = 150});
  Decoder b(model, {.max_tokens = 150});
  a.append(std::span(tokens_).first(75));
  b.append(random_tokens(60, 50, 5));
  a.append(std::span(tokens_).subspan(75));
  Decoder moved = std::move(a);
  Decoder alone(model, {.max_tokens = 150});
  alone.append(std::span(tokens_).first(75));
  alone.append(std::span(tokens_).subspan(75));
  EXPECT_EQ(copy(moved.logits()), copy(alone.logits()));
}

}  // namespace
}  // namespace msa::runner::test
