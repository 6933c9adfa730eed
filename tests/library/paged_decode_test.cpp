// Ten thousand steps of serving on one pool of pages: requests come, grow by 1 to 16 tokens, share
// prefixes, roll back and go; everything that no visible token occupies holds NaN. Every 50th step
// is repeated on packed copies of the tokens: the same bits on the cpu, and within tolerance of the
// reference. At every one of these steps all pages are accounted for.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <memory>
#include <set>

#include "library/check_results.h"
#include "library/compare.h"

namespace msa::test {
namespace {

constexpr int64_t kSteps = 10000;
constexpr int64_t kPages = 96;
constexpr int64_t kBlock = 8;
constexpr int64_t kHeads = 2;
constexpr int64_t kGroup = 2;
constexpr int64_t kDim = 16;
constexpr int64_t kIndexDim = 8;
constexpr int64_t kTopK = 4;
constexpr size_t kMostRequests = 6;
constexpr size_t kTokenWidth = 2 * kHeads * kDim + kIndexDim;  // k, v, k_idx of a token

using Token = std::vector<float>;

struct Request {
  PageAllocator::Sequence sequence = 0;
  std::vector<Token> tokens;  // what the caches must hold
  int64_t num_new = 0;        // queries of this step
};

struct Totals {
  int64_t appended = 0, copies = 0, forks = 0, rollbacks = 0, releases = 0, refusals = 0;
  int64_t checked = 0, longest = 0;
};

class PagedDecode : public testing::Test {
 protected:
  PagedDecode() {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    kv_.assign(static_cast<size_t>(kPages * kPageElements), nan);
    k_idx_.assign(static_cast<size_t>(kPages * kBlock * kIndexDim), nan);
    // K and V in one allocation, heads before tokens.
    const std::initializer_list<int64_t> shape = {kPages, kBlock, kHeads, kDim};
    const std::initializer_list<int64_t> strides = {kPageElements, kDim, kBlock * kDim, 1};
    cache_.k = {kv_.data(), DType::kFloat32, shape, strides};
    cache_.v = {kv_.data() + kPageElements / 2, DType::kFloat32, shape, strides};
    cache_.k_idx = {k_idx_.data(), DType::kFloat32, {kPages, kBlock, kIndexDim}};
  }

  int64_t pick(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  float number() { return std::normal_distribution<float>()(random_); }
  size_t pick_request() {
    return static_cast<size_t>(pick(0, static_cast<int64_t>(requests_.size()) - 1));
  }

  /// Requests come and go, fork and roll back.
  void shuffle_requests() {
    if (requests_.empty() || (requests_.size() < kMostRequests && pick(0, 9) == 0)) {
      requests_.push_back({pages_.create(), {}, 0});
    }
    if (requests_.size() < kMostRequests && pick(0, 19) == 0) {
      const Request& parent = requests_[pick_request()];
      const int64_t length = pick(0, pages_.length(parent.sequence));
      Request child = {pages_.fork(parent.sequence, length), parent.tokens, 0};
      child.tokens.resize(static_cast<size_t>(length));
      requests_.push_back(std::move(child));
      ++totals_.forks;
    }
    if (pick(0, 3) == 0) {
      Request& request = requests_[pick_request()];
      const int64_t length = pages_.length(request.sequence);
      const int64_t back =
          pick(0, 9) == 0 ? pick(0, length) : std::min<int64_t>(length, pick(1, 8));
      pages_.truncate(request.sequence, length - back);
      request.tokens.resize(static_cast<size_t>(length - back));
      ++totals_.rollbacks;
    }
    if (requests_.size() > 1 && pick(0, 39) == 0) release(pick_request());
  }

  void release(size_t which) {
    pages_.release(requests_[which].sequence);
    requests_.erase(requests_.begin() + static_cast<int64_t>(which));
    ++totals_.releases;
  }

  /// Takes pages for the tokens of this step and copies what is shared.
  void extend_requests() {
    for (Request& request : requests_) {
      request.num_new = pick(0, 7) == 0 ? 0 : pick(0, 2) == 0 ? pick(2, 16) : 1;
      const auto length = static_cast<int64_t>(request.tokens.size());
      std::optional<PageCopy> copy;
      try {
        copy = pages_.extend(request.sequence, length + request.num_new);
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ErrorCode::kOutOfMemory);
        ASSERT_EQ(pages_.length(request.sequence), length);
        request.num_new = 0;
        starved_ = true;
        ++totals_.refusals;
      }
      if (copy) {
        CopyPagesArgs args;
        const int32_t pair[2] = {copy->from, copy->to};
        args.pages = Tensor(pair, DType::kInt32, {1, 2});
        args.cache = cache_;
        copy_pages(cpu_, args);
        ++totals_.copies;
      }
      for (int64_t n = 0; n < request.num_new; ++n) {
        Token token(kTokenWidth);
        for (float& value : token) value = number();
        request.tokens.push_back(std::move(token));
      }
      totals_.appended += request.num_new;
      totals_.longest = std::max(totals_.longest, static_cast<int64_t>(request.tokens.size()));
    }
  }

  void poison_unused_slots() {
    std::vector<int64_t> used(static_cast<size_t>(kPages), 0);  // tokens of each page
    for (const Request& request : requests_) {
      int64_t left = static_cast<int64_t>(request.tokens.size()) - request.num_new;
      for (const int32_t page : pages_.pages(request.sequence)) {
        auto& most = used[static_cast<size_t>(page)];
        most = std::max(most, std::min(std::max<int64_t>(left, 0), kBlock));
        left -= kBlock;
      }
    }
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (int64_t page = 0; page < kPages; ++page) {
      for (int64_t slot = used[static_cast<size_t>(page)]; slot < kBlock; ++slot) {
        std::fill_n(k_idx_.begin() + (page * kBlock + slot) * kIndexDim, kIndexDim, nan);
        for (int64_t head = 0; head < 2 * kHeads; ++head) {  // of K, then of V
          std::fill_n(kv_.begin() + page * kPageElements + (head * kBlock + slot) * kDim, kDim,
                      nan);
        }
      }
    }
  }

  /// Pages in use are those that somebody holds, and no others.
  void expect_no_leak() {
    std::set<int32_t> used;
    for (const Request& request : requests_) {
      for (const int32_t page : pages_.pages(request.sequence)) used.insert(page);
    }
    ASSERT_EQ(pages_.num_free_pages() + static_cast<int64_t>(used.size()), kPages);
  }

  struct Step {
    std::vector<int32_t> ids;
    AttentionResult sparse, dense;
  };
  template <typename Size, typename Run>
  void run(Size size, Run call) {
    memory_.resize(std::max(memory_.size(), size + 64));
    void* aligned = memory_.data();
    size_t room = memory_.size();
    ASSERT_NE(std::align(64, size, aligned, room), nullptr);
    call(Workspace{aligned, size});
  }

  /// Append, index and attend on the pages; queries are drawn anew.
  Step run_step(bool with_dense) {
    std::vector<int32_t> cu_q = {0}, lens, table;
    size_t width = 0;
    for (const Request& request : requests_) {
      cu_q.push_back(cu_q.back() + static_cast<int32_t>(request.num_new));
      lens.push_back(static_cast<int32_t>(request.tokens.size()));
      width = std::max(width, pages_.pages(request.sequence).size());
    }
    for (const Request& request : requests_) {
      const auto pages = pages_.pages(request.sequence);
      table.insert(table.end(), pages.begin(), pages.end());
      table.resize(table.size() + width - pages.size(), -5);
    }
    const int64_t rows = cu_q.back();
    std::vector<float> fresh;
    for (const Request& request : requests_) {
      for (size_t n = request.tokens.size() - static_cast<size_t>(request.num_new);
           n < request.tokens.size(); ++n) {
        fresh.insert(fresh.end(), request.tokens[n].begin(), request.tokens[n].end());
      }
    }
    fresh.push_back(0);  // never without memory
    const auto batch = static_cast<int64_t>(requests_.size());
    Sequences sequences;
    sequences.cu_seqlens_q = Tensor(cu_q.data(), DType::kInt32, {batch + 1});
    sequences.kv_lens = Tensor(lens.data(), DType::kInt32, {batch});
    table.push_back(-5);
    sequences.page_table =
        Tensor(table.data(), DType::kInt32, {batch, static_cast<int64_t>(width)});
    const auto stride = static_cast<int64_t>(kTokenWidth);
    CacheAppendArgs append;
    append.k = Tensor(fresh.data(), DType::kFloat32, {rows, kHeads, kDim}, {stride, kDim, 1});
    append.v = Tensor(fresh.data() + kHeads * kDim, DType::kFloat32, {rows, kHeads, kDim},
                      {stride, kDim, 1});
    append.k_idx =
        Tensor(fresh.data() + 2 * kHeads * kDim, DType::kFloat32, {rows, kIndexDim}, {stride, 1});
    append.sequences = sequences;
    append.cache = cache_;
    cache_append(cpu_, append);

    q_.resize(static_cast<size_t>(rows * kHeads * kGroup * kDim + 1));
    q_idx_.resize(static_cast<size_t>(rows * kHeads * kIndexDim + 1));
    for (float& value : q_) value = number();
    for (float& value : q_idx_) value = number();
    Step step;
    step.ids.assign(static_cast<size_t>(kHeads * rows * kTopK) + 1, 77);
    IndexForwardArgs index;
    index.q_idx = Tensor(q_idx_.data(), DType::kFloat32, {rows, kHeads, kIndexDim});
    index.k_idx = cache_.k_idx;
    index.sequences = sequences;
    index.block_size = kBlock;
    index.block_ids = {step.ids.data(), DType::kInt32, {kHeads, rows, kTopK}};
    run(index_forward_workspace_size(cpu_, index),
        [&](Workspace workspace) { index_forward(cpu_, index, workspace); });
    AttentionForwardArgs sparse;
    sparse.q = Tensor(q_.data(), DType::kFloat32, {rows, kHeads * kGroup, kDim});
    sparse.k = cache_.k;
    sparse.v = cache_.v;
    sparse.sequences = sequences;
    sparse.block_size = kBlock;
    sparse.block_ids = index.block_ids;
    const auto outputs = [&](auto& args, AttentionResult& result) {
      result.out.assign(static_cast<size_t>(rows * kHeads * kGroup * kDim) + 1, 77);
      result.lse.assign(static_cast<size_t>(rows * kHeads * kGroup) + 1, 77);
      args.out = {result.out.data(), DType::kFloat32, {rows, kHeads * kGroup, kDim}};
      args.lse = {result.lse.data(), DType::kFloat32, {rows, kHeads * kGroup}};
    };
    outputs(sparse, step.sparse);
    run(attention_forward_workspace_size(cpu_, sparse),
        [&](Workspace workspace) { attention_forward(cpu_, sparse, workspace); });
    if (with_dense) {
      DenseAttentionForwardArgs dense;
      dense.q = sparse.q;
      dense.k = sparse.k;
      dense.v = sparse.v;
      dense.sequences = sequences;
      outputs(dense, step.dense);
      run(dense_attention_forward_workspace_size(cpu_, dense),
          [&](Workspace workspace) { dense_attention_forward(cpu_, dense, workspace); });
      step.dense.out.pop_back();
      step.dense.lse.pop_back();
    }
    step.ids.pop_back();
    step.sparse.out.pop_back();
    step.sparse.lse.pop_back();
    return step;
  }

  /// The step once more on packed tokens that no page has seen.
  void check_step(const Step& step) {
    CaseSpec spec;
    spec.kv_heads = kHeads;
    spec.group = kGroup;
    spec.head_dim = kDim;
    spec.index_dim = kIndexDim;
    spec.block_size = kBlock;
    spec.top_k = kTopK;
    for (const Request& request : requests_) {
      spec.q_lens.push_back(static_cast<int32_t>(request.num_new));
      spec.k_lens.push_back(static_cast<int32_t>(request.tokens.size()));
    }
    Case packed(spec);
    for (size_t r = 0; r < requests_.size(); ++r) {
      const auto request = static_cast<int64_t>(r);
      for (size_t j = 0; j < requests_[r].tokens.size(); ++j) {
        const Token& token = requests_[r].tokens[j];
        const auto place = static_cast<int64_t>(j);
        for (int64_t d = 0; d < kHeads * kDim; ++d) {
          const auto n = static_cast<size_t>(d);
          packed.set_key(request, place, d / kDim, d % kDim, token[n]);
          packed.set_value(request, place, d / kDim, d % kDim, token[kHeads * kDim + n]);
        }
        for (int64_t d = 0; d < kIndexDim; ++d) {
          packed.set_index_key(request, place, d,
                               token[2 * kHeads * kDim + static_cast<size_t>(d)]);
        }
      }
    }
    for (int64_t t = 0; t < packed.num_rows; ++t) {
      for (int64_t d = 0; d < kHeads * kGroup * kDim; ++d) {
        packed.set_query(t, d / kDim, d % kDim,
                         q_[static_cast<size_t>(t * kHeads * kGroup * kDim + d)]);
      }
      for (int64_t d = 0; d < kHeads * kIndexDim; ++d) {
        packed.set_index_query(t, d / kIndexDim, d % kIndexDim,
                               q_idx_[static_cast<size_t>(t * kHeads * kIndexDim + d)]);
      }
    }
    check_case(cpu_, reference_, packed);
    EXPECT_EQ(step.ids, run_index(cpu_, packed, {.scores = false, .lse = false}).ids);
    const AttentionResult sparse = run_attention(cpu_, packed, &step.ids);
    const AttentionResult dense = run_attention(cpu_, packed, nullptr);
    for (const auto& [got, expected] :
         {std::pair{&step.sparse, &sparse}, std::pair{&step.dense, &dense}}) {
      const Comparison out = compare_bits(got->out, expected->out);
      EXPECT_TRUE(out.ok) << out.message;
      const Comparison lse = compare_bits(got->lse, expected->lse);
      EXPECT_TRUE(lse.ok) << lse.message;
    }
    ++totals_.checked;
  }

  static constexpr int64_t kPageElements = 2 * kBlock * kHeads * kDim;
  std::mt19937 random_{20261125};
  const Context cpu_{{.backend = Backend::kCpu, .num_threads = 1}};
  const Context reference_{{.backend = Backend::kReference, .num_threads = 1}};
  PageAllocator pages_{kPages, kBlock};
  std::vector<float> kv_, k_idx_, q_, q_idx_;
  CacheViews cache_;
  std::vector<Request> requests_;
  std::vector<unsigned char> memory_;
  Totals totals_;
  bool starved_ = false;
};

TEST_F(PagedDecode, TenThousandStepsEqualTheReference) {
  for (int64_t number = 1; number <= kSteps; ++number) {
    shuffle_requests();
    extend_requests();
    poison_unused_slots();
    const bool check = number % 50 == 0;
    const Step step = run_step(check);
    // A token of NaN anywhere in sight would show in a row.
    for (const float value : step.sparse.out) {
      ASSERT_TRUE(std::isfinite(value)) << "step " << number;
    }
    if (check) {
      check_step(step);
      expect_no_leak();
    }
    if (HasFailure()) FAIL() << "at step " << number;
    if (starved_) release(pick_request());  // room again
    starved_ = false;
  }
  while (!requests_.empty()) release(0);
  EXPECT_EQ(pages_.num_free_pages(), kPages);
  fmt::print(
      "  {} steps, {} of them checked: {} tokens appended, {} pages copied on write, {} forks, {} "
      "rollbacks, {} releases, {} refusals for want of pages, longest request {} tokens\n",
      kSteps, totals_.checked, totals_.appended, totals_.copies, totals_.forks, totals_.rollbacks,
      totals_.releases, totals_.refusals, totals_.longest);
  EXPECT_EQ(totals_.checked, kSteps / 50);
  EXPECT_GE(totals_.copies, 200);
  EXPECT_GE(totals_.forks, 100);
  EXPECT_GE(totals_.rollbacks, 1000);
  EXPECT_GE(totals_.longest, 2 * kBlock * kTopK);
}

}  // namespace
}  // namespace msa::test
