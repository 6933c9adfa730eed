// Every refusal: its message, its code, and that nothing was written.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "library/expect_error.h"
#include "msa/msa.h"

namespace msa::test {
namespace {

constexpr int64_t kQueries = 4;
constexpr int64_t kKeys = 12;
constexpr int64_t kKvHeads = 2;
constexpr int64_t kQHeads = 4;
constexpr int64_t kDim = 8;
constexpr int64_t kBlock = 4;
constexpr int64_t kTopK = 2;
constexpr float kUntouched = 77.0f;

/// A valid call of each op; tests break one thing at a time.
struct Call {
  std::vector<float> q = std::vector<float>(kQueries * kQHeads * kDim, 1.0f);
  std::vector<float> k = std::vector<float>(kKeys * kKvHeads * kDim, 1.0f);
  std::vector<float> out = std::vector<float>(q.size(), kUntouched);
  std::vector<float> lse = std::vector<float>(kQueries * kQHeads, kUntouched);
  std::vector<float> scores = std::vector<float>(kKvHeads * kQueries * 3, kUntouched);
  std::vector<int32_t> ids = std::vector<int32_t>(kKvHeads * kQueries * kTopK, 77);
  std::vector<int32_t> cu_q = {0, kQueries};
  std::vector<int32_t> cu_k = {0, kKeys};
  std::vector<int32_t> kv_lens = {kKeys};
  std::vector<int32_t> page_table = {0, 1, 2};
  struct alignas(64) Line {
    unsigned char bytes[64];
  };
  std::vector<Line> memory = std::vector<Line>(1 << 16);
  Workspace workspace = {memory.data(), memory.size() * sizeof(Line)};
  Context context{{.backend = Backend::kCpu, .num_threads = 1}};

  IndexForwardArgs index;
  AttentionForwardArgs sparse;
  DenseAttentionForwardArgs dense;

  Call() {
    Sequences sequences;
    sequences.cu_seqlens_q = Tensor(cu_q.data(), DType::kInt32, {2});
    sequences.cu_seqlens_k = Tensor(cu_k.data(), DType::kInt32, {2});
    index.q_idx = Tensor(q.data(), DType::kFloat32, {kQueries, kKvHeads, kDim});
    index.k_idx = Tensor(k.data(), DType::kFloat32, {kKeys, kDim});
    index.sequences = sequences;
    index.block_size = kBlock;
    index.block_ids = MutableTensor(ids.data(), DType::kInt32, {kKvHeads, kQueries, kTopK});
    index.block_scores = MutableTensor(scores.data(), DType::kFloat32, {kKvHeads, kQueries, 3});
    index.lse_idx = MutableTensor(lse.data(), DType::kFloat32, {kKvHeads, kQueries});
    sparse.q = Tensor(q.data(), DType::kFloat32, {kQueries, kQHeads, kDim});
    sparse.k = Tensor(k.data(), DType::kFloat32, {kKeys, kKvHeads, kDim});
    sparse.v = sparse.k;
    sparse.sequences = sequences;
    sparse.block_size = kBlock;
    sparse.block_ids = Tensor(ids.data(), DType::kInt32, {kKvHeads, kQueries, kTopK});
    sparse.out = MutableTensor(out.data(), DType::kFloat32, {kQueries, kQHeads, kDim});
    sparse.lse = MutableTensor(lse.data(), DType::kFloat32, {kQueries, kQHeads});
    dense.q = sparse.q;
    dense.k = sparse.k;
    dense.v = sparse.v;
    dense.sequences = sequences;
    dense.out = sparse.out;
    dense.lse = sparse.lse;
  }
  void make_paged() {
    for (Sequences* sequences : {&index.sequences, &sparse.sequences, &dense.sequences}) {
      sequences->cu_seqlens_k = {};
      sequences->kv_lens = Tensor(kv_lens.data(), DType::kInt32, {1});
      sequences->page_table = Tensor(page_table.data(), DType::kInt32, {1, 3});
    }
    index.k_idx = Tensor(k.data(), DType::kFloat32, {3, kBlock, kDim});
    sparse.k = Tensor(k.data(), DType::kFloat32, {3, kBlock, kKvHeads, kDim});
    sparse.v = dense.k = dense.v = sparse.k;
  }
  void run_index() { index_forward(context, index, workspace); }
  void run_sparse() { attention_forward(context, sparse, workspace); }
  void run_dense() { dense_attention_forward(context, dense, workspace); }
  bool untouched() const {
    const auto all = [](const auto& values) {
      for (auto value : values) {
        if (static_cast<float>(value) != kUntouched) return false;
      }
      return true;
    };
    return all(out) && all(lse) && all(scores) && all(ids);
  }
};

using Break = std::function<void(Call&)>;
using Method = void (Call::*)();

void expect_refused(Method run, const Break& broken, const std::string& message,
                    ErrorCode code = ErrorCode::kInvalidArgument) {
  Call call;
  broken(call);
  expect_error([&] { (call.*run)(); }, message, code);
  EXPECT_TRUE(call.untouched()) << message;
}

TEST(Arguments, TheValidCallsAreValid) {
  for (const bool paged : {false, true}) {
    for (const Method run : {&Call::run_index, &Call::run_sparse, &Call::run_dense}) {
      Call call;
      if (paged) call.make_paged();
      EXPECT_NO_THROW((call.*run)());
      EXPECT_FALSE(call.untouched());
    }
  }
}

TEST(Arguments, Tensors) {
  expect_refused(
      &Call::run_dense, [](Call& c) { c.dense.q = {}; },
      "[dense_attention_forward] q is missing: got no tensor, allowed float32, bfloat16, "
      "float16 of rank 3");
  expect_refused(
      &Call::run_dense, [](Call& c) { c.dense.q.dtype = DType::kInt32; },
      "[dense_attention_forward] q has the wrong type: got int32, allowed float32, "
      "bfloat16, float16");
  expect_refused(
      &Call::run_sparse, [](Call& c) { c.sparse.k = Tensor(c.k.data(), DType::kFloat32, {4, 8}); },
      "[attention_forward] k has the wrong rank: got 2, allowed 3");
  expect_refused(
      &Call::run_sparse, [](Call& c) { c.sparse.q.data = nullptr; },
      "[attention_forward] q has no data: got a null pointer for float32 [4, 4, 8]");
  expect_refused(
      &Call::run_sparse, [](Call& c) { c.sparse.q.stride[2] = 2; },
      "[attention_forward] q is strided on its last axis: got stride 2, allowed 1");
  expect_refused(
      &Call::run_sparse, [](Call& c) { c.sparse.q.shape[0] = -1; },
      "[attention_forward] q has a negative extent: got float32 [-1, 4, 8], allowed 0 or "
      "more");
  expect_refused(
      &Call::run_sparse, [](Call& c) { c.sparse.v.dtype = DType::kFloat16; },
      "[attention_forward] v has the wrong type: got float16, allowed k's float32");
  expect_refused(
      &Call::run_sparse, [](Call& c) { c.sparse.v.shape[0] = 3; },
      "[attention_forward] v has the wrong shape: got float32 [3, 2, 8], allowed [12, 2, "
      "8]");
  expect_refused(
      &Call::run_dense, [](Call& c) { c.dense.out.dtype = DType::kBFloat16; },
      "[dense_attention_forward] out has the wrong type: got bfloat16, allowed float32");
  expect_refused(
      &Call::run_dense, [](Call& c) { c.dense.lse.shape[1] = 3; },
      "[dense_attention_forward] lse has the wrong shape: got float32 [4, 3], allowed [4, "
      "4]");
  expect_refused(
      &Call::run_dense, [](Call& c) { c.dense.q.shape[1] = 3; },
      "[dense_attention_forward] heads do not form groups: got 3 query heads on 2 "
      "key-value heads, allowed a multiple");
}

TEST(Arguments, Sequences) {
  expect_refused(
      &Call::run_index, [](Call& c) { c.index.sequences.cu_seqlens_k = {}; },
      "[index_forward] key lengths are missing: got none, allowed cu_seqlens_k, or "
      "page_table with kv_lens");
  expect_refused(
      &Call::run_index, [](Call& c) { c.cu_q[0] = 1; },
      "[index_forward] cu_seqlens_q[0] is wrong: got 1, allowed 0");
  expect_refused(
      &Call::run_index, [](Call& c) { c.cu_q[1] = -1; },
      "[index_forward] cu_seqlens_q falls at 1: got -1 after 0, allowed no decrease");
  expect_refused(
      &Call::run_index, [](Call& c) { c.cu_k[1] = 13; },
      "[index_forward] cu_seqlens_k[1] is past the tensor: got 13, allowed at most 12 "
      "rows");
  const auto paged = [](const Break& broken) {
    return [broken](Call& c) {
      c.make_paged();
      broken(c);
    };
  };
  expect_refused(
      &Call::run_sparse, paged([](Call& c) { c.kv_lens[0] = 13; }),
      "[attention_forward] kv_lens[0] is outside the page table: got 13, allowed 0 to 12 "
      "(3 pages of 4)");
  expect_refused(
      &Call::run_sparse, paged([](Call& c) { c.page_table[1] = 3; }),
      "[attention_forward] page_table[0, 1] is outside the cache: got 3, allowed 0 to 2");
  expect_refused(
      &Call::run_sparse, paged([](Call& c) { c.page_table[2] = -1; }),
      "[attention_forward] page_table[0, 2] is outside the cache: got -1, allowed 0 to 2");
  expect_refused(&Call::run_sparse, paged([](Call& c) { c.sparse.block_size = 8; }),
                 "[attention_forward] pages must hold one block: got pages of 4 tokens, allowed "
                 "block_size = 8");
}

TEST(Arguments, BlocksAndScale) {
  expect_refused(
      &Call::run_index, [](Call& c) { c.index.block_size = 0; },
      "[index_forward] block_size is wrong: got 0, allowed 1 to 2147483647");
  expect_refused(
      &Call::run_index, [](Call& c) { c.index.scale = -1.0f; },
      "[index_forward] scale is wrong: got -1, allowed a finite number above 0");
  expect_refused(
      &Call::run_index, [](Call& c) { c.index.block_ids.shape[2] = 0; },
      "[index_forward] top-k is wrong: got 0, allowed 1 or more");
  expect_refused(
      &Call::run_index, [](Call& c) { c.index.block_ids = c.index.block_scores = MutableTensor(); },
      "[index_forward] no output is asked for: got none, allowed block_ids, block_scores "
      "or both");
  expect_refused(
      &Call::run_index, [](Call& c) { c.index.block_ids = MutableTensor(); },
      "[index_forward] lse_idx over the selected blocks needs block_ids: got none, "
      "allowed block_ids or lse_scope kVisible");
  expect_refused(
      &Call::run_index,
      [](Call& c) {
        c.index.block_scores.shape[2] = 2;
        c.index.block_scores.stride[2] = 1;
      },
      "[index_forward] block_scores is too narrow for request 0: got 2 blocks, allowed at "
      "least 3");
  expect_refused(
      &Call::run_sparse, [](Call& c) { c.sparse.block_id_layout = BlockIdLayout::kTokenMajor; },
      "[attention_forward] block_ids has the wrong shape: got int32 [2, 4, 2], allowed "
      "[4, 2, any]");
}

TEST(Arguments, WorkspaceAndSupport) {
  for (const Method run : {&Call::run_index, &Call::run_sparse, &Call::run_dense}) {
    Call call;
    call.workspace.bytes = 64;
    EXPECT_THROW((call.*run)(), Error);
    call.workspace.bytes = call.memory.size() * 64 - 64;
    call.workspace.data = static_cast<unsigned char*>(call.workspace.data) + 8;
    EXPECT_THROW((call.*run)(), Error);
    EXPECT_TRUE(call.untouched());
  }
  expect_refused(
      &Call::run_dense,
      [](Call& c) {
        for (auto* tensor : {&c.dense.q, &c.dense.k, &c.dense.v}) tensor->shape[2] = 7;
        c.dense.out.shape[2] = 7;
      },
      "[dense_attention_forward] not supported by the cpu backend: head dim 7, allowed "
      "multiples of 8",
      ErrorCode::kUnsupported);
  const Context context({.backend = Backend::kCpu, .num_threads = 1});
  const Geometry odd = {.num_q_heads = 1, .num_kv_heads = 1, .head_dim = 12};
  EXPECT_FALSE(supports(context, Op::kDenseAttentionForward, odd, DType::kFloat32).supported);
}

TEST(Arguments, WorkspaceLooksAtShapesAlone) {
  // No pointer but those of the checks is read, and a million tokens stay below 256 MB.
  const Context context({.backend = Backend::kCpu, .num_threads = 64});
  constexpr int64_t kMillion = 1 << 20;
  // An address that traps.
  const void* const nowhere =
      reinterpret_cast<const void*>(uintptr_t{64});  // NOLINT(performance-no-int-to-ptr)
  Sequences sequences;
  sequences.cu_seqlens_q = Tensor(nowhere, DType::kInt32, {2});
  sequences.kv_lens = Tensor(nowhere, DType::kInt32, {1});
  sequences.page_table = Tensor(nowhere, DType::kInt32, {1, kMillion / 128});
  for (const int64_t queries : {int64_t{1}, int64_t{16}, int64_t{4096}, kMillion}) {
    IndexForwardArgs index;
    index.q_idx = Tensor(nowhere, DType::kBFloat16, {queries, 4, 128});
    index.k_idx = Tensor(nowhere, DType::kBFloat16, {kMillion / 128, 128, 128});
    index.sequences = sequences;
    index.block_ids = MutableTensor(const_cast<void*>(nowhere), DType::kInt32, {4, queries, 32});
    index.lse_idx = MutableTensor(const_cast<void*>(nowhere), DType::kFloat32, {4, queries});
    IndexCandidatesArgs part;
    part.q_idx = index.q_idx;
    part.k_idx = index.k_idx;
    part.sequences = sequences;
    part.candidate_ids = index.block_ids;
    part.candidate_scores =
        MutableTensor(const_cast<void*>(nowhere), DType::kFloat32, {4, queries, 32});
    AttentionForwardArgs sparse;
    sparse.q = Tensor(nowhere, DType::kBFloat16, {queries, 64, 128});
    sparse.k = Tensor(nowhere, DType::kBFloat16, {kMillion / 128, 128, 4, 128});
    sparse.v = sparse.k;
    sparse.sequences = sequences;
    sparse.block_ids = index.block_ids;
    sparse.out = MutableTensor(const_cast<void*>(nowhere), DType::kBFloat16, {queries, 64, 128});
    DenseAttentionForwardArgs dense;
    dense.q = sparse.q;
    dense.k = sparse.k;
    dense.v = sparse.v;
    dense.sequences = sequences;
    dense.out = sparse.out;
    constexpr size_t kAllowed = size_t{256} << 20;
    const std::pair<const char*, size_t> sizes[] = {
        {"index_forward", index_forward_workspace_size(context, index)},
        {"index_candidates", index_candidates_workspace_size(context, part)},
        {"attention_forward", attention_forward_workspace_size(context, sparse)},
        {"dense_attention_forward", dense_attention_forward_workspace_size(context, dense)},
    };
    for (const auto& [name, bytes] : sizes) {
      fmt::print("  {:24} {:7} queries at 1M tokens, 64 threads: {:5.1f} MB\n", name, queries,
                 static_cast<double>(bytes) * 1e-6);
      EXPECT_LE(bytes, kAllowed) << name;
    }
  }
}

}  // namespace
}  // namespace msa::test
