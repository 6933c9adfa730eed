// Bit for bit: reruns, any number of threads, the caller's own threads, and any other requests in
// the batch. Lengths cover tiles, splits along the keys, and rows before position 0.
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <thread>

#include "library/cases.h"
#include "library/compare.h"
#include "library/simd_targets.h"

namespace msa::test {
namespace {

struct Results {
  IndexResult index;
  AttentionResult sparse, dense;
};

Results run_all(const Context& context, const Case& batch) {
  Results results;
  results.index = run_index(context, batch);
  results.sparse = run_attention(context, batch, &results.index.ids);
  results.dense = run_attention(context, batch, nullptr);
  return results;
}

void expect_same_bits(const Results& got, const Results& expected, const std::string& what) {
  EXPECT_EQ(got.index.ids, expected.index.ids) << what;
  const std::pair<const std::vector<float>*, const std::vector<float>*> pairs[] = {
      {&got.index.scores, &expected.index.scores}, {&got.index.lse, &expected.index.lse},
      {&got.sparse.out, &expected.sparse.out},     {&got.sparse.lse, &expected.sparse.lse},
      {&got.dense.out, &expected.dense.out},       {&got.dense.lse, &expected.dense.lse}};
  for (const auto& [a, b] : pairs) {
    const Comparison same = compare_bits(*a, *b);
    EXPECT_TRUE(same.ok) << what << ": " << same.message;
  }
}

/// Three requests: long chunked prefill in one tile or more, split decode, rows before position 0.
CaseSpec mixed_spec(bool paged) {
  CaseSpec spec;
  spec.q_dtype = DType::kFloat32;
  spec.kv_dtype = DType::kBFloat16;
  spec.paged = paged;
  spec.kv_heads = 2;
  spec.group = 4;
  spec.head_dim = 32;
  spec.index_dim = 24;
  spec.block_size = 16;
  spec.top_k = 5;
  spec.q_lens = {150, 3, 9, 0, 1};
  spec.k_lens = {333, 2500, 5, 40, 3001};
  spec.padded_rows = 2;
  return spec;
}

TEST(Bitwise, RerunsAndThreads) {
  for (const bool paged : {false, true}) {
    const Case batch(mixed_spec(paged));
    const Context one({.backend = Backend::kCpu, .num_threads = 1});
    const Results expected = run_all(one, batch);
    expect_same_bits(run_all(one, batch), expected, "rerun");
    for (const int threads : {2, 5, 40}) {
      const Context many({.backend = Backend::kCpu, .num_threads = threads});
      expect_same_bits(run_all(many, batch), expected, std::to_string(threads) + " threads");
    }
  }
}

/// Tasks last to first, on threads of its own.
void backwards(int num_threads, int64_t num_tasks, const std::function<void(int64_t, int)>& body) {
  std::mutex mutex;
  int64_t next = num_tasks;
  std::vector<std::thread> threads;
  for (int worker = 0; worker < num_threads; ++worker) {
    threads.emplace_back([&, worker] {
      while (true) {
        int64_t task = 0;
        {
          const std::lock_guard<std::mutex> lock(mutex);
          if (next == 0) return;
          task = --next;
        }
        body(task, worker);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Bitwise, TheCallersOwnThreads) {
  const Case batch(mixed_spec(true));
  int64_t calls = 0;
  const Context own({.backend = Backend::kCpu,
                     .num_threads = 3,
                     .parallel_for = [&](int64_t tasks, const auto& body) {
                       ++calls;
                       backwards(3, tasks, body);
                     }});
  const Context one({.backend = Backend::kCpu, .num_threads = 1});
  expect_same_bits(run_all(own, batch), run_all(one, batch), "own threads");
  EXPECT_GT(calls, 0);
}

/// The part of a batch's results that belongs to rows [begin, end): scores cut to max_blocks.
Results rows_of(const Results& all, const Case& batch, int64_t begin, int64_t end,
                int64_t max_blocks) {
  const CaseSpec& spec = batch.spec;
  Results part;
  const auto append = [](auto& to, const auto& from, int64_t first, int64_t count) {
    to.insert(to.end(), from.begin() + first, from.begin() + first + count);
  };
  for (int64_t h = 0; h < spec.kv_heads; ++h) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t list = h * batch.num_rows + t;
      append(part.index.ids, all.index.ids, list * spec.top_k, spec.top_k);
      append(part.index.scores, all.index.scores, list * batch.max_blocks, max_blocks);
      append(part.index.lse, all.index.lse, list, 1);
    }
  }
  const int64_t heads = spec.kv_heads * spec.group;
  for (const auto& [to, from] :
       {std::pair{&part.sparse, &all.sparse}, std::pair{&part.dense, &all.dense}}) {
    append(to->out, from->out, begin * heads * spec.head_dim,
           (end - begin) * heads * spec.head_dim);
    append(to->lse, from->lse, begin * heads, (end - begin) * heads);
  }
  return part;
}

TEST(Bitwise, AloneAndInABatch) {
  for (const int64_t target : simd_targets()) {
    const ScopedSimdTarget only(target);
    const Context context({.backend = Backend::kCpu, .num_threads = 2});
    CaseSpec alone = mixed_spec(true);
    alone.padded_rows = 0;
    alone.q_lens = {150};
    alone.k_lens = {333};
    for (const auto& [q_len, k_len] : {std::pair{150, 333}, {3, 2500}, {9, 5}, {1, 3001}}) {
      alone.q_lens = {q_len};
      alone.k_lens = {k_len};
      const Case single(alone);
      const Results expected = run_all(context, single);
      // The same request again, behind two others. All draws of a case come from its seed, request
      // after request, so its numbers are copied over.
      CaseSpec spec = alone;
      spec.q_lens = {37, 1, q_len};
      spec.k_lens = {200, 1300, k_len};
      spec.padded_rows = 1;
      Case batch(spec);
      batch.copy_request(single, 0, 2);
      const Results all = run_all(context, batch);
      expect_same_bits(rows_of(all, batch, 38, 38 + q_len, single.max_blocks), expected,
                       simd_target_name(target) + " in a batch");
    }
  }
}

TEST(Bitwise, ScoresAreTheSameReturnedOrNot) {
  const Case batch(mixed_spec(false));
  const Context context({.backend = Backend::kCpu, .num_threads = 2});
  const IndexResult all = run_index(context, batch);
  const IndexResult only_ids = run_index(context, batch, {.scores = false, .lse = false});
  const IndexResult only_scores = run_index(context, batch, {.ids = false, .lse = false});
  EXPECT_EQ(only_ids.ids, all.ids);
  EXPECT_TRUE(compare_bits(only_scores.scores, all.scores).ok);
}

}  // namespace
}  // namespace msa::test
