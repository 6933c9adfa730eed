// index_candidates and merge_candidates: check -> fill params -> call the backend table.
#include "msa/index_parts.h"

#include <algorithm>

#include "ops/index_args.h"

namespace msa {
namespace {

constexpr const char* kCandidates = "index_candidates";
constexpr const char* kMerge = "merge_candidates";

core::IndexForwardParams fill_params(const Context& context, const IndexCandidatesArgs& args) {
  core::IndexForwardParams p = ops::fill_index_inputs(kCandidates, args);
  core::check(args.blocks.begin >= 0 && args.blocks.begin <= args.blocks.end, kCandidates,
              "blocks is wrong: got {} to {}, allowed 0 <= begin <= end", args.blocks.begin,
              args.blocks.end);
  p.block_begin = args.blocks.begin;
  p.block_end = args.blocks.end;
  p.block_ids = ops::output_ids(kCandidates, "candidate_ids", args.candidate_ids,
                                BlockIdLayout::kHeadMajor, p.num_kv_heads, args.q_idx.shape[0]);
  core::check_tensor(kCandidates, "candidate_scores", args.candidate_scores, 3, {DType::kFloat32});
  core::check_shape(kCandidates, "candidate_scores", args.candidate_scores,
                    {p.num_kv_heads, args.q_idx.shape[0], p.block_ids.top_k});
  p.candidate_scores = static_cast<float*>(args.candidate_scores.data);
  p.candidate_head_stride = args.candidate_scores.stride[0];
  p.candidate_token_stride = args.candidate_scores.stride[1];
  core::check_supported(context, Op::kIndexCandidates, ops::geometry_of(p), p.q_dtype);
  return p;
}

}  // namespace

size_t index_candidates_workspace_size(const Context& context, const IndexCandidatesArgs& args) {
  const core::IndexForwardParams p = fill_params(context, args);
  return context.table().index_candidates_workspace(p, context.num_threads());
}

void index_candidates(const Context& context, const IndexCandidatesArgs& args,
                      Workspace workspace) {
  const core::IndexForwardParams p = fill_params(context, args);
  core::check_workspace(kCandidates, workspace,
                        context.table().index_candidates_workspace(p, context.num_threads()));
  if (context.backend() != Backend::kCuda) {
    core::check_sequence_contents(kCandidates, p.sequences, args.k_idx.shape[0], p.block_begin,
                                  p.block_end);
  }
  if (p.candidate_scores == nullptr) return;  // no rows, so nothing to write
  context.table().index_candidates(p, ops::run_context(context, workspace));
}

void merge_candidates(const Context& context, const MergeCandidatesArgs& args,
                      Workspace workspace) {
  core::check_tensor(kMerge, "candidate_ids", args.candidate_ids, 4, {DType::kInt32});
  const auto& shape = args.candidate_ids.shape;
  core::MergeCandidatesParams p;
  p.num_parts = shape[0];
  p.num_kv_heads = shape[1];
  p.num_query_tokens = shape[2];
  p.top_k = shape[3];
  core::check(p.top_k >= 1 && p.top_k <= core::kMaxTopK, kMerge,
              "top-k is wrong: got {}, allowed 1 to {}", p.top_k, core::kMaxTopK);
  core::check_tensor(kMerge, "candidate_scores", args.candidate_scores, 4, {DType::kFloat32});
  core::check_shape(kMerge, "candidate_scores", args.candidate_scores,
                    {shape[0], shape[1], shape[2], shape[3]});
  core::check_tensor(kMerge, "merged_ids", args.merged_ids, 3, {DType::kInt32});
  core::check_shape(kMerge, "merged_ids", args.merged_ids, {shape[1], shape[2], shape[3]});
  core::check_tensor(kMerge, "merged_scores", args.merged_scores, 3, {DType::kFloat32});
  core::check_shape(kMerge, "merged_scores", args.merged_scores, {shape[1], shape[2], shape[3]});
  p.ids = static_cast<const int32_t*>(args.candidate_ids.data);
  p.scores = static_cast<const float*>(args.candidate_scores.data);
  std::copy_n(args.candidate_ids.stride.begin(), 3, p.id_strides.begin());
  std::copy_n(args.candidate_scores.stride.begin(), 3, p.score_strides.begin());
  p.merged_ids = static_cast<int32_t*>(args.merged_ids.data);
  p.merged_scores = static_cast<float*>(args.merged_scores.data);
  std::copy_n(args.merged_ids.stride.begin(), 2, p.merged_id_strides.begin());
  std::copy_n(args.merged_scores.stride.begin(), 2, p.merged_score_strides.begin());
  if (args.block_ids.present()) {
    p.block_ids = ops::output_ids(kMerge, "block_ids", args.block_ids, args.block_id_layout,
                                  p.num_kv_heads, p.num_query_tokens);
    core::check(p.block_ids.top_k == p.top_k, kMerge,
                "block_ids has another top-k: got {}, allowed {}", p.block_ids.top_k, p.top_k);
  }
  core::check_supported(context, Op::kMergeCandidates,
                        {.num_kv_heads = p.num_kv_heads, .top_k = p.top_k}, DType::kFloat32);
  context.table().merge_candidates(p, ops::run_context(context, workspace));
}

}  // namespace msa
