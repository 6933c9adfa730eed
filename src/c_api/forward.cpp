// The forward ops of the C API: structs into arguments, then the C++ op.
#include "c_api/guard.h"
#include "c_api/views.h"
#include "msa/attention.h"
#include "msa/index.h"
#include "msa/index_parts.h"
#include "msa/merge_states.h"
#include "msa/recall.h"
#include "msa/select_blocks.h"

namespace msa::c_api {
namespace {

constexpr const char* kIndex = "index_forward";
constexpr const char* kCandidates = "index_candidates";
constexpr const char* kMergeCandidates = "merge_candidates";
constexpr const char* kSelect = "select_blocks";
constexpr const char* kAttention = "attention_forward";
constexpr const char* kDense = "dense_attention_forward";
constexpr const char* kMergeStates = "merge_states";
constexpr const char* kRecall = "recall";

static_assert(MSA_LSE_SELECTED == static_cast<int>(IndexLseScope::kSelected));
static_assert(MSA_LSE_VISIBLE == static_cast<int>(IndexLseScope::kVisible));

IndexForwardArgs convert_index(const msa_index_forward_args& given) {
  return {.q_idx = input(given.q_idx),
          .k_idx = input(given.k_idx),
          .sequences = sequences_of(given.sequences),
          .max_query_length = given.max_query_length,
          .block_size = given.block_size,
          .scale = scale_of(given.scale),
          .block_ids = output(given.block_ids),
          .block_id_layout = static_cast<BlockIdLayout>(given.block_id_layout),
          .block_scores = output(given.block_scores),
          .lse_idx = output(given.lse_idx),
          .lse_scope = static_cast<IndexLseScope>(given.lse_scope)};
}

IndexCandidatesArgs convert_candidates(const msa_index_candidates_args& given) {
  check_reserved(kCandidates, given.reserved);
  return {.q_idx = input(given.q_idx),
          .k_idx = input(given.k_idx),
          .sequences = sequences_of(given.sequences),
          .block_size = given.block_size,
          .scale = scale_of(given.scale),
          .blocks = {given.block_begin, given.block_end},
          .candidate_ids = output(given.candidate_ids),
          .candidate_scores = output(given.candidate_scores)};
}

MergeCandidatesArgs convert_merge_candidates(const msa_merge_candidates_args& given) {
  check_reserved(kMergeCandidates, given.reserved);
  return {.candidate_ids = input(given.candidate_ids),
          .candidate_scores = input(given.candidate_scores),
          .merged_ids = output(given.merged_ids),
          .merged_scores = output(given.merged_scores),
          .block_ids = output(given.block_ids),
          .block_id_layout = static_cast<BlockIdLayout>(given.block_id_layout)};
}

SelectBlocksArgs convert_select(const msa_select_blocks_args& given) {
  check_reserved(kSelect, given.reserved);
  return {.block_scores = input(given.block_scores),
          .local_blocks = input(given.local_blocks),
          .block_ids = output(given.block_ids),
          .block_id_layout = static_cast<BlockIdLayout>(given.block_id_layout)};
}

AttentionForwardArgs convert_attention(const msa_attention_forward_args& given) {
  check_reserved(kAttention, given.reserved);
  return {.q = input(given.q),
          .k = input(given.k),
          .v = input(given.v),
          .sequences = sequences_of(given.sequences),
          .max_query_length = given.max_query_length,
          .block_size = given.block_size,
          .scale = scale_of(given.scale),
          .block_ids = input(given.block_ids),
          .block_id_layout = static_cast<BlockIdLayout>(given.block_id_layout),
          .out = output(given.out),
          .lse = output(given.lse)};
}

DenseAttentionForwardArgs convert_dense(const msa_dense_attention_forward_args& given) {
  return {.q = input(given.q),
          .k = input(given.k),
          .v = input(given.v),
          .sequences = sequences_of(given.sequences),
          .max_query_length = given.max_query_length,
          .scale = scale_of(given.scale),
          .out = output(given.out),
          .lse = output(given.lse)};
}

MergeStatesArgs convert_merge_states(const msa_merge_states_args& given) {
  return {.out_a = input(given.out_a),
          .lse_a = input(given.lse_a),
          .out_b = input(given.out_b),
          .lse_b = input(given.lse_b),
          .out = output(given.out),
          .lse = output(given.lse)};
}

RecallArgs convert_recall(const msa_recall_args& given) {
  return {
      .q = input(given.q),
      .k = input(given.k),
      .sequences = sequences_of(given.sequences),
      .block_size = given.block_size,
      .scale = scale_of(given.scale),
      .block_ids = input(given.block_ids),
      .block_id_layout = static_cast<BlockIdLayout>(given.block_id_layout),
      .rows = {output(given.block_recall_rows), output(given.score_recall_rows),
               output(given.block_recall_others_rows), output(given.score_recall_others_rows)},
      .means = {output(given.block_recall_mean), output(given.score_recall_mean),
                output(given.block_recall_others_mean), output(given.score_recall_others_mean)}};
}

}  // namespace
}  // namespace msa::c_api

using namespace msa::c_api;  // NOLINT(google-build-using-namespace): the door's own parts

msa_status msa_index_forward_workspace_size(const msa_context* context,
                                            const msa_index_forward_args* args, size_t* bytes) {
  return measure_op(kIndex, context, args, bytes, convert_index, msa::index_forward_workspace_size);
}
msa_status msa_index_forward(const msa_context* context, const msa_index_forward_args* args,
                             const msa_workspace* workspace) {
  return call_op(kIndex, context, args, workspace, convert_index, msa::index_forward);
}

msa_status msa_index_candidates_workspace_size(const msa_context* context,
                                               const msa_index_candidates_args* args,
                                               size_t* bytes) {
  return measure_op(kCandidates, context, args, bytes, convert_candidates,
                    msa::index_candidates_workspace_size);
}
msa_status msa_index_candidates(const msa_context* context, const msa_index_candidates_args* args,
                                const msa_workspace* workspace) {
  return call_op(kCandidates, context, args, workspace, convert_candidates, msa::index_candidates);
}

msa_status msa_select_blocks(const msa_context* context, const msa_select_blocks_args* args,
                             const msa_workspace* workspace) {
  return call_op(kSelect, context, args, workspace, convert_select, msa::select_blocks);
}

msa_status msa_merge_candidates(const msa_context* context, const msa_merge_candidates_args* args,
                                const msa_workspace* workspace) {
  return call_op(kMergeCandidates, context, args, workspace, convert_merge_candidates,
                 msa::merge_candidates);
}

msa_status msa_attention_forward_workspace_size(const msa_context* context,
                                                const msa_attention_forward_args* args,
                                                size_t* bytes) {
  return measure_op(kAttention, context, args, bytes, convert_attention,
                    msa::attention_forward_workspace_size);
}
msa_status msa_attention_forward(const msa_context* context, const msa_attention_forward_args* args,
                                 const msa_workspace* workspace) {
  return call_op(kAttention, context, args, workspace, convert_attention, msa::attention_forward);
}

msa_status msa_dense_attention_forward_workspace_size(const msa_context* context,
                                                      const msa_dense_attention_forward_args* args,
                                                      size_t* bytes) {
  return measure_op(kDense, context, args, bytes, convert_dense,
                    msa::dense_attention_forward_workspace_size);
}
msa_status msa_dense_attention_forward(const msa_context* context,
                                       const msa_dense_attention_forward_args* args,
                                       const msa_workspace* workspace) {
  return call_op(kDense, context, args, workspace, convert_dense, msa::dense_attention_forward);
}

msa_status msa_merge_states(const msa_context* context, const msa_merge_states_args* args,
                            const msa_workspace* workspace) {
  return call_op(kMergeStates, context, args, workspace, convert_merge_states, msa::merge_states);
}

msa_status msa_recall_workspace_size(const msa_context* context, const msa_recall_args* args,
                                     size_t* bytes) {
  return measure_op(kRecall, context, args, bytes, convert_recall, msa::recall_workspace_size);
}
msa_status msa_recall(const msa_context* context, const msa_recall_args* args,
                      const msa_workspace* workspace) {
  return call_op(kRecall, context, args, workspace, convert_recall, msa::recall);
}
