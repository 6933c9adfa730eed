// Block recall and score recall; see msa/recall.h.
//
//   q [Tq, Hq, D], k by pages or packed  ->  of each row and group (max, sum of exp) of each head
//   and block, from them the blocks' masses in double, from them the recalls
//
// A task is a row and a group: its G heads share the keys, which are packed a piece at a time. 2 D
// FLOP for each head and token; with one row a task the packing costs as much as two of its heads.
// A row's bits depend on no other row.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/recall.cpp"
#include "cpu/targets.h"
// Targets come first: this header includes the file once for each.
#include "hwy/foreach_target.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "cpu/attention_tile.h"
#include "cpu/candidates.h"
#include "cpu/gemm-inl.h"
#include "cpu/ops.h"
#include "cpu/pack-inl.h"
#include "cpu/recall_scratch.h"
#include "cpu/reduce-inl.h"
#include "cpu/schedule.h"
#include "cpu/simd-inl.h"
#include "host/recall.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

/// Adds the keys [first, first + tokens) of one block to that block's sums of every head.
HWY_INLINE void add_piece(const core::AttentionForwardParams& p, int64_t request, int64_t kv_head,
                          KeyRange keys, const RecallScratch& scratch, LogSum* sums) {
  const auto count = static_cast<size_t>(keys.tokens);
  const auto dim = static_cast<size_t>(p.head_dim);
  fill_key_offsets(p.k, p.sequences, request, kv_head, keys.first, keys.tokens, scratch.offsets);
  with_type(p.k.data, p.k.dtype, [&](const auto* k) HWY_ATTR {
    pack_transposed(k, scratch.offsets, count, dim, scratch.keys);
  });
  const float scale_log2 = p.scale * std::numbers::log2e_v<float>;
  const int64_t group = p.group_size();
  const float* q[kPanelRows];
  float* scores[kPanelRows];
  for (int64_t panel = 0; panel < group; panel += kPanelRows) {
    const int64_t rows = std::min(kPanelRows, group - panel);
    for (int64_t n = 0; n < rows; ++n) {
      q[n] = scratch.q + (panel + n) * p.head_dim;
      scores[n] = scratch.scores + n * kChunkTokens;
    }
    multiply(q, static_cast<size_t>(rows), scratch.keys, dim, padded_columns(count), count, scores);
    for (int64_t n = 0; n < rows; ++n) {
      const float largest = largest_dot(scores[n], count);
      sums[panel + n].add(p.scale * largest, sum_of_exp(scores[n], count, largest, scale_log2));
    }
  }
}

/// scratch.sums [blocks][G] of packed row t of a request at `position`.
void sum_blocks(const core::AttentionForwardParams& p, int64_t request, const host::RecallRow& row,
                const RecallScratch& scratch) {
  const int64_t group = p.group_size();
  for (int64_t n = 0; n < group; ++n) {
    const int64_t offset = row.t * p.q_token_stride + (row.group * group + n) * p.q_head_stride;
    with_type(p.q, p.q_dtype, [&](const auto* q) HWY_ATTR {
      convert(q + offset, static_cast<size_t>(p.head_dim), scratch.q + n * p.head_dim);
    });
  }
  LogSum* sums = scratch.sums;
  for (int64_t first = 0; first <= row.position; first += p.block_size, sums += group) {
    std::fill_n(sums, group, kEmptyLogSum);
    const int64_t end = std::min(first + p.block_size, row.position + 1);
    for (int64_t key = first; key < end; key += kChunkTokens) {
      add_piece(p, request, row.group, {key, std::min(kChunkTokens, end - key)}, scratch, sums);
    }
  }
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa::cpu {
namespace {

HWY_EXPORT(sum_blocks);

struct RecallLayout {
  double* recalls = nullptr;  // [Hkv][Tq][4]
  unsigned char* threads = nullptr;
  int64_t thread_bytes = 0;
  size_t bytes = 0;
};

/// Blocks of the longest request that the shapes allow.
int64_t most_blocks(const core::AttentionForwardParams& p) {
  return p.sequences.paged() ? p.sequences.max_pages : divide_up(p.k.num_rows, p.block_size);
}

RecallScratch take_scratch(const core::AttentionForwardParams& p, Arena& arena) {
  RecallScratch scratch;
  scratch.q = arena.take<float>(p.group_size() * p.head_dim);
  scratch.keys = arena.take<float>(p.head_dim * kChunkTokens);
  scratch.scores = arena.take<float>(kPanelRows * kChunkTokens);
  scratch.offsets = arena.take<int64_t>(kChunkTokens);
  scratch.sums = arena.take<LogSum>(most_blocks(p), p.group_size());
  scratch.mass = arena.take<double>(most_blocks(p));
  scratch.order = arena.take<int32_t>(most_blocks(p));
  return scratch;
}

RecallLayout lay_out(const core::RecallParams& p, int num_threads, void* workspace) {
  RecallLayout layout;
  Arena arena(workspace);
  layout.recalls = arena.take<double>(p.attention.sequences.num_query_tokens *
                                      p.attention.num_kv_heads * core::RecallParams::kNumRecalls);
  Arena scratch(nullptr);
  take_scratch(p.attention, scratch);
  layout.thread_bytes = static_cast<int64_t>(scratch.bytes());
  layout.threads = arena.take<unsigned char>(layout.thread_bytes, num_threads);
  layout.bytes = arena.bytes();
  return layout;
}

/// The mean over the heads of each block's share, from the sums of the heads.
void find_masses(const RecallScratch& scratch, int64_t num_blocks, int64_t group) {
  std::fill_n(scratch.mass, num_blocks, 0.0);
  for (int64_t h = 0; h < group; ++h) {
    const auto logarithm = [&](int64_t block) {
      const LogSum& sum = scratch.sums[block * group + h];
      return static_cast<double>(sum.maximum) + std::log(static_cast<double>(sum.sum));
    };
    double largest = logarithm(0);
    for (int64_t block = 1; block < num_blocks; ++block) {
      largest = std::max(largest, logarithm(block));
    }
    double total = 0;
    for (int64_t block = 0; block < num_blocks; ++block) {
      total += std::exp(logarithm(block) - largest);
    }
    for (int64_t block = 0; block < num_blocks; ++block) {
      scratch.mass[block] +=
          std::exp(logarithm(block) - largest) / total / static_cast<double>(group);
    }
  }
}

}  // namespace

size_t recall_workspace(const core::RecallParams& p, int num_threads) {
  return lay_out(p, num_threads, nullptr).bytes;
}

void recall(const core::RecallParams& p, const core::RunContext& run) {
  const RecallLayout layout = lay_out(p, run.num_threads, run.workspace);
  const core::SequenceParams& s = p.attention.sequences;
  const int64_t num_groups = p.attention.num_kv_heads;
  const auto recalls_of = [&](int64_t g, int64_t t) {
    return layout.recalls + (g * s.num_query_tokens + t) * core::RecallParams::kNumRecalls;
  };
  for (int64_t row = 0; row < num_groups * s.num_query_tokens; ++row) {
    host::write_uncounted(recalls_of(0, row));
  }
  const auto kernel = HWY_DYNAMIC_DISPATCH(sum_blocks);
  for (int64_t r = 0; r < s.batch; ++r) {
    const Request request = request_at(s, r);
    (*run.parallel_for)(request.num_queries* num_groups, [&](int64_t task, int worker) {
      const int64_t query = task / num_groups;
      const host::RecallRow row = {request.first_row + query, task % num_groups,
                                   request.first_position() + query};
      const int64_t local = row.local_block(p.attention);
      if (local < 0) return;
      Arena arena(layout.threads + worker * layout.thread_bytes);
      const RecallScratch scratch = take_scratch(p.attention, arena);
      kernel(p.attention, r, row, scratch);
      find_masses(scratch, local + 1, p.attention.group_size());
      host::find_recalls(p, row, scratch.mass, scratch.order, recalls_of(row.group, row.t));
    });
  }
  host::write_recalls(p, layout.recalls);
}

}  // namespace msa::cpu
#endif  // HWY_ONCE
