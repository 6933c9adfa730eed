// Pages by count of holders, appends through every layout and type, copies on write, and refusals.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <set>

#include "core/element.h"
#include "library/cases.h"
#include "library/expect_error.h"

namespace msa::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<int32_t> pages_of(const PageAllocator& pages, PageAllocator::Sequence sequence) {
  const auto span = pages.pages(sequence);
  return {span.begin(), span.end()};
}

TEST(PageAllocator, FreshPagesAscendAndFreedOnesComeFirst) {
  PageAllocator pages(6, 4);
  const auto a = pages.create();
  EXPECT_FALSE(pages.extend(a, 9));
  EXPECT_EQ(pages_of(pages, a), (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(pages.num_touched_pages(), 3);
  pages.truncate(a, 4);
  EXPECT_EQ(pages.length(a), 4);
  EXPECT_EQ(pages.num_free_pages(), 5);
  const auto b = pages.create();
  EXPECT_FALSE(pages.extend(b, 12));
  EXPECT_EQ(pages.num_touched_pages(), 4);
  std::set<int32_t> used;
  for (const auto sequence : {a, b}) {
    for (const int32_t page : pages.pages(sequence)) EXPECT_TRUE(used.insert(page).second);
  }
  EXPECT_EQ(used, (std::set<int32_t>{0, 1, 2, 3}));
  pages.release(a);
  pages.release(b);
  EXPECT_EQ(pages.num_free_pages(), 6);
}

TEST(PageAllocator, SharedPagesAreCopiedBeforeTheyAreWritten) {
  PageAllocator pages(8, 4);
  const auto a = pages.create();
  EXPECT_FALSE(pages.extend(a, 10));
  const auto b = pages.fork(a, 10);
  EXPECT_EQ(pages_of(pages, b), pages_of(pages, a));
  EXPECT_EQ(pages.num_free_pages(), 5);
  const auto copy = pages.extend(b, 11);  // the first to write gets a page of its own
  ASSERT_TRUE(copy.has_value());
  EXPECT_EQ(copy.value().from, 2);
  EXPECT_EQ(pages_of(pages, b), (std::vector<int32_t>{0, 1, copy.value().to}));
  EXPECT_FALSE(pages.extend(a, 11));  // the other is alone now
  EXPECT_EQ(pages_of(pages, a), (std::vector<int32_t>{0, 1, 2}));
  // A rollback into a shared page that is full.
  pages.truncate(b, 6);
  const auto second = pages.extend(b, 7);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second.value().from, 1);
  EXPECT_EQ(pages.pages(b)[0], 0);
  // At a border of pages nothing shared is written.
  const auto c = pages.fork(a, 8);
  EXPECT_FALSE(pages.extend(c, 9));
  EXPECT_EQ(pages.pages(c)[1], 1);
  // Nothing new, nothing to copy.
  const auto d = pages.fork(a, 3);
  EXPECT_FALSE(pages.extend(d, 3));
  for (const auto sequence : {a, b, c, d}) pages.release(sequence);
  EXPECT_EQ(pages.num_free_pages(), 8);
}

TEST(PageAllocator, RefusalsChangeNothing) {
  PageAllocator pages(3, 4);
  const auto a = pages.create();
  EXPECT_FALSE(pages.extend(a, 6));
  const auto b = pages.fork(a, 6);
  expect_error([&] { (void)pages.extend(a, 13); },
               "[pages] no pages are left for 13 tokens: got 1 free, allowed at least 3",
               ErrorCode::kOutOfMemory);
  expect_error([&] { (void)pages.extend(a, 5); },
               "[pages] extend goes back: got length 5, allowed 6 or more");
  expect_error([&] { pages.truncate(a, 7); },
               "[pages] truncate goes past the sequence: got length 7, allowed 0 to 6");
  expect_error([&] { pages.fork(a, 7); },
               "[pages] fork goes past the sequence: got length 7, allowed 0 to 6");
  EXPECT_EQ(pages.length(a), 6);
  EXPECT_EQ(pages_of(pages, a), pages_of(pages, b));
  EXPECT_EQ(pages.num_free_pages(), 1);
  pages.release(b);
  expect_error([&] { pages.release(b); },
               "[pages] release of an unknown sequence: got 1, allowed one of create or fork");
  expect_error([&] { (void)pages.pages(-1); },
               "[pages] pages of an unknown sequence: got -1, allowed one of create or fork");
  expect_error([] { PageAllocator(1, 0); },
               "[pages] page_size is wrong: got 0, allowed 1 to 2147483647");
  expect_error([] { PageAllocator(-1, 4); },
               "[pages] num_pages is wrong: got -1, allowed 0 to 2147483647");
}

/// Element of a cache view.
float at(const MutableTensor& view, int64_t page, int64_t token, int64_t head, int64_t d) {
  int64_t offset = page * view.stride[0] + token * view.stride[1];
  offset += view.rank == 4 ? head * view.stride[2] + d : d;
  return core::load_element(view.data, view.dtype, offset);
}

float rounded(float value, DType dtype) {
  uint32_t bits = 0;
  core::store_element(&bits, dtype, 0, value);
  return core::load_element(&bits, dtype, 0);
}

TEST(CacheAppend, WritesTheNewTokensAndNothingElse) {
  const auto types = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
  for (const Backend backend : {Backend::kCpu, Backend::kReference}) {
    const Context context({.backend = backend, .num_threads = 2});
    for (const DType from : types) {
      for (const DType to : types) {
        for (const Layout layout :
             {Layout::kTokenMajor, Layout::kHeadMajor, Layout::kOneAllocation}) {
          constexpr int64_t kPages = 7, kTokens = 4, kHeads = 2, kDim = 6, kIndex = 5;
          const bool one = layout == Layout::kOneAllocation;
          const int64_t page = kTokens * kHeads * kDim * (one ? 2 : 1);
          const int64_t token = layout == Layout::kHeadMajor ? kDim : kHeads * kDim;
          const int64_t head = layout == Layout::kHeadMajor ? kTokens * kDim : kDim;
          Buffer k, v, k_idx;
          k.allocate(to, kPages * page);
          v.allocate(to, one ? 0 : kPages * page);
          k_idx.allocate(to, kPages * kTokens * (kIndex + 1));
          void* const v_data =
              one ? k.bytes.data() + kTokens * kHeads * kDim * static_cast<int64_t>(dtype_bytes(to))
                  : v.bytes.data();
          CacheAppendArgs args;
          args.cache.k = {
              k.bytes.data(), to, {kPages, kTokens, kHeads, kDim}, {page, token, head, 1}};
          args.cache.v = {v_data, to, {kPages, kTokens, kHeads, kDim}, {page, token, head, 1}};
          args.cache.k_idx = {k_idx.bytes.data(),
                              to,
                              {kPages, kTokens, kIndex},
                              {kTokens * (kIndex + 1), kIndex + 1, 1}};
          // Requests: 5 of 9, none of 3, 3 of 2 (one before position 0), 1 of 8; two padded rows.
          const std::vector<int32_t> cu_q = {0, 5, 5, 8, 9};
          const std::vector<int32_t> lens = {9, 3, 2, 8};
          const std::vector<int32_t> table = {6, 0, 3, 1, -1, -1, 5, -9, -9, 2, 4, -7};
          constexpr int64_t kRows = 11;
          Buffer rows;  // k, v and k_idx of a row side by side
          constexpr int64_t kWidth = 2 * kHeads * kDim + kIndex;
          rows.allocate(from, kRows * kWidth);
          for (int64_t n = 0; n < 9 * kWidth; ++n) {
            rows.set(n, 0.37f * static_cast<float>(n % 501 - 250));
          }
          const auto side = [&](int64_t column) {
            return rows.bytes.data() + column * static_cast<int64_t>(dtype_bytes(from));
          };
          args.k = Tensor(side(0), from, {kRows, kHeads, kDim}, {kWidth, kDim, 1});
          args.v = Tensor(side(kHeads * kDim), from, {kRows, kHeads, kDim}, {kWidth, kDim, 1});
          args.k_idx = Tensor(side(2 * kHeads * kDim), from, {kRows, kIndex}, {kWidth, 1});
          args.sequences.cu_seqlens_q = Tensor(cu_q.data(), DType::kInt32, {5});
          args.sequences.kv_lens = Tensor(lens.data(), DType::kInt32, {4});
          args.sequences.page_table = Tensor(table.data(), DType::kInt32, {4, 3});
          cache_append(context, args);

          std::set<std::pair<int64_t, int64_t>> written;
          for (int64_t r = 0; r < 4; ++r) {
            const auto request = static_cast<size_t>(r);
            for (int64_t t = cu_q[request]; t < cu_q[request + 1]; ++t) {
              const int64_t position = lens[request] - cu_q[request + 1] + t;
              if (position < 0) continue;
              const int64_t p = table[request * 3 + static_cast<size_t>(position / kTokens)];
              const int64_t slot = position % kTokens;
              ASSERT_TRUE(written.insert({p, slot}).second);
              for (int64_t d = 0; d < kHeads * kDim; ++d) {
                EXPECT_EQ(at(args.cache.k, p, slot, d / kDim, d % kDim),
                          rounded(rows.get(t * kWidth + d), to));
                EXPECT_EQ(at(args.cache.v, p, slot, d / kDim, d % kDim),
                          rounded(rows.get(t * kWidth + kHeads * kDim + d), to));
              }
              for (int64_t d = 0; d < kIndex; ++d) {
                EXPECT_EQ(at(args.cache.k_idx, p, slot, 0, d),
                          rounded(rows.get(t * kWidth + 2 * kHeads * kDim + d), to));
              }
            }
          }
          EXPECT_EQ(written.size(), 8U);
          int64_t numbers = 0;  // all that is no NaN was meant to be written
          for (const Buffer* buffer : {&k, &v, &k_idx}) {
            const auto count =
                static_cast<int64_t>(buffer->bytes.size() / dtype_bytes(buffer->dtype));
            for (int64_t n = 0; n < count; ++n) numbers += buffer->get(n) == buffer->get(n) ? 1 : 0;
          }
          EXPECT_EQ(numbers, 8 * kWidth);
        }
      }
    }
  }
}

TEST(CopyPages, CopiesWholePagesOfAllThree) {
  const Context context({.backend = Backend::kCpu, .num_threads = 2});
  std::vector<float> k(48), v(48), k_idx(24);  // four pages
  for (size_t n = 0; n < k.size(); ++n) k[n] = static_cast<float>(n);
  for (size_t n = 0; n < v.size(); ++n) v[n] = static_cast<float>(n) + 1000;
  for (size_t n = 0; n < k_idx.size(); ++n) k_idx[n] = n == 13 ? kNaN : static_cast<float>(n);
  const std::vector<int32_t> pages = {2, 0, 1, 1, 2, 3};
  CopyPagesArgs args;
  args.pages = Tensor(pages.data(), DType::kInt32, {3, 2});
  args.cache.k = {k.data(), DType::kFloat32, {4, 3, 2, 2}};
  args.cache.v = {v.data(), DType::kFloat32, {4, 3, 2, 2}};
  args.cache.k_idx = {k_idx.data(), DType::kFloat32, {4, 3, 2}};
  const std::vector<float> before = v;
  copy_pages(context, args);
  for (const int64_t page : {0, 3}) {
    for (int64_t n = 0; n < 12; ++n) {
      EXPECT_EQ(k[static_cast<size_t>(page * 12 + n)], static_cast<float>(24 + n));
      EXPECT_EQ(v[static_cast<size_t>(page * 12 + n)], static_cast<float>(1024 + n));
    }
    for (int64_t n = 0; n < 6; ++n) {
      const float copy = k_idx[static_cast<size_t>(page * 6 + n)];
      EXPECT_TRUE(n == 1 ? copy != copy : copy == static_cast<float>(12 + n));
    }
  }
  for (size_t n = 12; n < 36; ++n) EXPECT_EQ(v[n], before[n]);
}

TEST(CacheAppend, BadArgumentsAreRefusedByName) {
  const Context context({.backend = Backend::kCpu, .num_threads = 1});
  std::vector<float> memory(512, 77.0f);
  const std::vector<int32_t> cu_q = {0, 2};
  std::vector<int32_t> lens = {5};
  std::vector<int32_t> table = {0, 1};
  const auto valid = [&] {
    CacheAppendArgs args;
    args.k = args.v = Tensor(memory.data() + 256, DType::kFloat32, {2, 1, 8});
    args.k_idx = Tensor(memory.data() + 256, DType::kFloat32, {2, 8});
    args.cache.k = {memory.data(), DType::kFloat32, {2, 4, 1, 8}};
    args.cache.v = {memory.data() + 64, DType::kFloat32, {2, 4, 1, 8}};
    args.cache.k_idx = {memory.data() + 128, DType::kFloat32, {2, 4, 8}};
    args.sequences.cu_seqlens_q = Tensor(cu_q.data(), DType::kInt32, {2});
    args.sequences.kv_lens = Tensor(lens.data(), DType::kInt32, {1});
    args.sequences.page_table = Tensor(table.data(), DType::kInt32, {1, 2});
    return args;
  };
  const auto refused = [&](const std::function<void(CacheAppendArgs&)>& broken,
                           const std::string& message) {
    CacheAppendArgs args = valid();
    broken(args);
    expect_error([&] { cache_append(context, args); }, "[cache_append] " + message);
    EXPECT_EQ(memory, std::vector<float>(512, 77.0f));
  };
  refused([](CacheAppendArgs& a) { a.cache = {}; },
          "no cache is given: got none, allowed k with v, k_idx, or all three");
  refused([](CacheAppendArgs& a) { a.cache.v = {}; },
          "k and v belong together: got one of the two caches, allowed both or none");
  refused([](CacheAppendArgs& a) { a.k_idx = {}; },
          "k_idx and its cache do not match: got no rows and a cache, allowed both or none");
  refused([](CacheAppendArgs& a) { a.cache.k_idx = {}; },
          "k_idx and its cache do not match: got rows and no cache, allowed both or none");
  refused([](CacheAppendArgs& a) { a.v.shape[2] = 7; },
          "v has the wrong shape: got float32 [2, 1, 7], allowed [2, 1, 8]");
  refused([](CacheAppendArgs& a) { a.k_idx.shape[0] = 3; },
          "k_idx has the wrong shape: got float32 [3, 8], allowed [2, 8]");
  refused([](CacheAppendArgs& a) { a.cache.k_idx.shape[1] = 3; },
          "cache k_idx has the wrong shape: got float32 [2, 3, 8], allowed [2, 4, any]");
  refused([](CacheAppendArgs& a) { a.sequences.page_table = {}; },
          "page_table is missing: got none, allowed page_table with kv_lens");
  table[1] = 2;
  refused([](CacheAppendArgs&) {}, "page_table[0, 1] is outside the cache: got 2, allowed 0 to 1");
  table[1] = 1;
  lens[0] = 9;
  refused([](CacheAppendArgs&) {},
          "kv_lens[0] is outside the page table: got 9, allowed 0 to 8 (2 pages of 4)");
  lens[0] = 5;
  CopyPagesArgs copy;
  copy.cache = valid().cache;
  const std::vector<int32_t> bad = {0, 1, 1, 2};
  copy.pages = Tensor(bad.data(), DType::kInt32, {2, 2});
  expect_error([&] { copy_pages(context, copy); },
               "[copy_pages] pages[1, 1] is outside the cache: got 2, allowed 0 to 1");
  EXPECT_EQ(memory, std::vector<float>(512, 77.0f));
  EXPECT_NO_THROW(cache_append(context, valid()));
}

}  // namespace
}  // namespace msa::test
