// The forward ops against values that a person can work out.
#include "check.h"

enum { kTokens = 12, kBlock = 2, kDim = 8 };

static int32_t one_row[] = {0, 1};
static int32_t all_keys[] = {0, kTokens};

static msa_sequences packed(void) {
  msa_sequences sequences = {.cu_seqlens_q = msa_tensor_1d(one_row, MSA_INT32, 2),
                             .cu_seqlens_k = msa_tensor_1d(all_keys, MSA_INT32, 2)};
  return sequences;
}

/// One query (1, 0, ...) and keys whose first element is the token's score.
struct index_case {
  float q_idx[kDim];
  float k_idx[kTokens * kDim];
  int32_t ids[3];
  float scores[6];
  float lse;
};

static struct index_case index_case_of(const float scores[kTokens]) {
  struct index_case c;
  memset(&c, 0, sizeof c);
  c.q_idx[0] = 1;
  for (int n = 0; n < kTokens; ++n) c.k_idx[n * kDim] = scores[n];
  return c;
}

static msa_index_forward_args index_args(struct index_case* c) {
  msa_index_forward_args args = {.struct_size = sizeof args,
                                 .q_idx = msa_tensor_3d(c->q_idx, MSA_FLOAT32, 1, 1, kDim),
                                 .k_idx = msa_tensor_2d(c->k_idx, MSA_FLOAT32, kTokens, kDim),
                                 .sequences = packed(),
                                 .block_size = kBlock,
                                 .scale = 1,
                                 .block_ids = msa_tensor_3d(c->ids, MSA_INT32, 1, 1, 3),
                                 .block_scores = msa_tensor_3d(c->scores, MSA_FLOAT32, 1, 1, 6),
                                 .lse_idx = msa_tensor_2d(&c->lse, MSA_FLOAT32, 1, 1)};
  return args;
}

static const float kScores[kTokens] = {1, 5, 2, 2, 0, 5, -1, 4, 3, 3, -9, -9};

void test_index(const msa_context* context) {
  struct index_case c = index_case_of(kScores);
  msa_index_forward_args args = index_args(&c);
  const msa_workspace workspace = test_workspace();
  size_t bytes = 0;
  CHECK_OK(msa_index_forward_workspace_size(context, &args, &bytes));
  CHECK(bytes <= workspace.bytes);
  CHECK_OK(msa_index_forward(context, &args, &workspace));
  CHECK(c.ids[0] == 0 && c.ids[1] == 2 && c.ids[2] == 5);  // two blocks of 5, and the local one
  const float expected[] = {5, 2, 5, 4, 3, -9};
  for (int b = 0; b < 6; ++b) CHECK_NEAR(c.scores[b], expected[b]);
  CHECK_NEAR(c.lse, log(exp(1) + 2 * exp(5) + exp(0) + 2 * exp(-9)));

  // The scale ranks nothing anew; the default is 1 / sqrt(Di). Over all visible tokens:
  args.scale = 0;
  args.lse_scope = MSA_LSE_VISIBLE;
  CHECK_OK(msa_index_forward(context, &args, &workspace));
  double sum = 0;
  for (int n = 0; n < kTokens; ++n) sum += exp((double)kScores[n] / sqrt(kDim));
  CHECK_NEAR(c.lse, log(sum));
  CHECK_NEAR(c.scores[3], 4 / sqrt(kDim));

  // Few blocks, token-major: all are taken, then -1.
  struct index_case few = index_case_of(kScores);
  args = index_args(&few);
  int32_t short_context[] = {0, 3};
  args.sequences.cu_seqlens_k = msa_tensor_1d(short_context, MSA_INT32, 2);
  args.block_id_layout = MSA_TOKEN_MAJOR;
  CHECK_OK(msa_index_forward(context, &args, &workspace));
  CHECK(few.ids[0] == 0 && few.ids[1] == 1 && few.ids[2] == -1);
  CHECK(few.scores[2] == -INFINITY);

  if (bytes > 0) {
    const msa_workspace small = {workspace.data, bytes - 1, NULL};
    const msa_workspace crooked = {(char*)workspace.data + 8, bytes, NULL};
    CHECK(msa_index_forward(context, &args, NULL) == MSA_INVALID_ARGUMENT);
    CHECK(msa_index_forward(context, &args, &small) == MSA_INVALID_ARGUMENT);
    CHECK_ERROR(msa_index_forward(context, &args, &crooked), MSA_INVALID_ARGUMENT,
                "[index_forward] workspace is misaligned: got an address that is no multiple of "
                "64");
  }
}

/// Query head 0 is 0, so that it averages; head 1 gives token 0 a logit of log 3.
struct attention_case {
  float q[2 * kDim];
  float k[kTokens * kDim];
  float v[kTokens * kDim];
  float out[2 * kDim];
  float lse[2];
};

static struct attention_case attention_case_of(void) {
  struct attention_case c;
  memset(&c, 0, sizeof c);
  c.q[kDim] = 1;
  c.k[0] = logf(3);
  for (int n = 0; n < kTokens; ++n) c.v[n * kDim + 1] = (float)n;
  return c;
}

/// Masses 3/14 + 1/14 for block 0 and 1/7 for the other five: I* = {0, 1} by the lower id.
static void test_recall(const msa_context* context) {
  struct attention_case c = attention_case_of();
  int32_t ids[] = {5, 0};
  float blocks[1], scores[1], others[1];
  const msa_recall_args args = {.struct_size = sizeof args,
                                .q = msa_tensor_3d(c.q + kDim, MSA_FLOAT32, 1, 1, kDim),
                                .k = msa_tensor_3d(c.k, MSA_FLOAT32, kTokens, 1, kDim),
                                .sequences = packed(),
                                .block_size = kBlock,
                                .scale = 1,
                                .block_ids = msa_tensor_3d(ids, MSA_INT32, 1, 1, 2),
                                .block_recall_rows = msa_tensor_2d(blocks, MSA_FLOAT32, 1, 1),
                                .score_recall_mean = msa_tensor_1d(scores, MSA_FLOAT32, 1),
                                .block_recall_others_mean = msa_tensor_1d(others, MSA_FLOAT32, 1)};
  const msa_workspace workspace = test_workspace();
  size_t bytes = 0;
  CHECK_OK(msa_recall_workspace_size(context, &args, &bytes));
  CHECK(bytes <= workspace.bytes);
  CHECK_OK(msa_recall(context, &args, &workspace));
  CHECK_NEAR(blocks[0], 0.5);
  CHECK_NEAR(scores[0], 4.0 / 6);
  CHECK_NEAR(others[0], 0.5);
}

void test_attention(const msa_context* context) {
  struct attention_case c = attention_case_of();
  int32_t ids[] = {5, 0, 0, 99, -1, 3};  // a set in any order; a repeat and 99 count for nothing
  const msa_workspace workspace = test_workspace();
  const msa_attention_forward_args sparse = {.struct_size = sizeof sparse,
                                             .q = msa_tensor_3d(c.q, MSA_FLOAT32, 1, 2, kDim),
                                             .k = msa_tensor_3d(c.k, MSA_FLOAT32, kTokens, 1, kDim),
                                             .v = msa_tensor_3d(c.v, MSA_FLOAT32, kTokens, 1, kDim),
                                             .sequences = packed(),
                                             .block_size = kBlock,
                                             .scale = 1,
                                             .block_ids = msa_tensor_3d(ids, MSA_INT32, 1, 1, 6),
                                             .out = msa_tensor_3d(c.out, MSA_FLOAT32, 1, 2, kDim),
                                             .lse = msa_tensor_2d(c.lse, MSA_FLOAT32, 1, 2)};
  size_t bytes = 0;
  CHECK_OK(msa_attention_forward_workspace_size(context, &sparse, &bytes));
  CHECK(bytes <= workspace.bytes);
  CHECK_OK(msa_attention_forward(context, &sparse, &workspace));
  CHECK_NEAR(c.out[1], (0 + 1 + 10 + 11) / 4.0);
  CHECK_NEAR(c.lse[0], log(4));
  CHECK_NEAR(c.out[kDim + 1], (3 * 0 + 1 + 10 + 11) / 6.0);
  CHECK_NEAR(c.lse[1], log(6));

  const msa_dense_attention_forward_args dense = {.struct_size = sizeof dense,
                                                  .q = sparse.q,
                                                  .k = sparse.k,
                                                  .v = sparse.v,
                                                  .sequences = sparse.sequences,
                                                  .scale = 1,
                                                  .out = sparse.out,
                                                  .lse = sparse.lse};
  CHECK_OK(msa_dense_attention_forward_workspace_size(context, &dense, &bytes));
  CHECK(bytes <= workspace.bytes);
  CHECK_OK(msa_dense_attention_forward(context, &dense, &workspace));
  CHECK_NEAR(c.out[1], 66 / 12.0);
  CHECK_NEAR(c.out[kDim + 1], 66 / 14.0);
  CHECK_NEAR(c.lse[1], log(14));

  test_recall(context);
  msa_attention_forward_args wrong = sparse;
  all_keys[1] = kTokens + 1;
  CHECK_ERROR(msa_attention_forward(context, &wrong, &workspace), MSA_INVALID_ARGUMENT,
              "[attention_forward] cu_seqlens_k[1] is past the tensor: got 13, allowed at most 12 "
              "rows");
  all_keys[1] = kTokens;
}

void test_parts(const msa_context* context) {
  // Weights 1/4 and 3/4; a part that saw nothing is not read.
  float out_a[2 * kDim] = {4, 0}, out_b[2 * kDim] = {8, 0}, out[2 * kDim];
  float lse_a[2] = {0, -INFINITY}, lse_b[2] = {logf(3), 1}, lse[2];
  out_a[kDim] = NAN;
  out_b[kDim] = 2;
  const msa_merge_states_args states = {.struct_size = sizeof states,
                                        .out_a = msa_tensor_3d(out_a, MSA_FLOAT32, 1, 2, kDim),
                                        .lse_a = msa_tensor_2d(lse_a, MSA_FLOAT32, 1, 2),
                                        .out_b = msa_tensor_3d(out_b, MSA_FLOAT32, 1, 2, kDim),
                                        .lse_b = msa_tensor_2d(lse_b, MSA_FLOAT32, 1, 2),
                                        .out = msa_tensor_3d(out, MSA_FLOAT32, 1, 2, kDim),
                                        .lse = msa_tensor_2d(lse, MSA_FLOAT32, 1, 2)};
  CHECK_OK(msa_merge_states(context, &states, NULL));
  CHECK_NEAR(out[0], 7);
  CHECK_NEAR(lse[0], log(4));
  CHECK(out[kDim] == 2 && lse[1] == 1);

  // The index in two parts gives the ids of the whole.
  struct index_case c = index_case_of(kScores);
  const msa_index_forward_args whole = index_args(&c);
  int32_t ids[2][3], merged_ids[3], block_ids[3];
  float scores[2][3], merged_scores[3];
  const msa_workspace workspace = test_workspace();
  for (int part = 0; part < 2; ++part) {
    const msa_index_candidates_args args = {
        .struct_size = sizeof args,
        .q_idx = whole.q_idx,
        .k_idx = whole.k_idx,
        .sequences = whole.sequences,
        .block_size = kBlock,
        .scale = 1,
        .block_begin = part == 0 ? 0 : 3,
        .block_end = part == 0 ? 3 : MSA_ALL_BLOCKS,
        .candidate_ids = msa_tensor_3d(ids[part], MSA_INT32, 1, 1, 3),
        .candidate_scores = msa_tensor_3d(scores[part], MSA_FLOAT32, 1, 1, 3)};
    size_t bytes = 0;
    CHECK_OK(msa_index_candidates_workspace_size(context, &args, &bytes));
    CHECK(bytes <= workspace.bytes);
    CHECK_OK(msa_index_candidates(context, &args, &workspace));
  }
  CHECK(ids[0][0] == -1 && ids[0][1] == 0 && ids[0][2] == 2 && scores[0][0] == -INFINITY);
  CHECK(ids[1][0] == 5 && ids[1][1] == 3 && ids[1][2] == 4 && scores[1][0] == INFINITY);
  const msa_merge_candidates_args merge = {
      .struct_size = sizeof merge,
      .candidate_ids = msa_tensor_4d(ids, MSA_INT32, 2, 1, 1, 3),
      .candidate_scores = msa_tensor_4d(scores, MSA_FLOAT32, 2, 1, 1, 3),
      .merged_ids = msa_tensor_3d(merged_ids, MSA_INT32, 1, 1, 3),
      .merged_scores = msa_tensor_3d(merged_scores, MSA_FLOAT32, 1, 1, 3),
      .block_ids = msa_tensor_3d(block_ids, MSA_INT32, 1, 1, 3)};
  CHECK_OK(msa_merge_candidates(context, &merge, NULL));
  CHECK(block_ids[0] == 0 && block_ids[1] == 2 && block_ids[2] == 5);
  CHECK(merged_ids[0] == 5 && merged_ids[1] == 0 && merged_ids[2] == 2 && merged_scores[1] == 5);
  const float given[4] = {1, 3, 3, 2};
  const int32_t local = 3;
  msa_select_blocks_args select = {
      .struct_size = sizeof select,
      .block_scores = msa_tensor_3d((void*)given, MSA_FLOAT32, 1, 1, 4),
      .block_ids = msa_tensor_3d(block_ids, MSA_INT32, 1, 1, 3)};
  CHECK_OK(msa_select_blocks(context, &select, NULL));
  CHECK(block_ids[0] == 1 && block_ids[1] == 2 && block_ids[2] == 3);
  select.local_blocks = msa_tensor_1d((void*)&local, MSA_INT32, 1);
  select.block_ids.shape[2] = 2;
  CHECK_OK(msa_select_blocks(context, &select, NULL));
  CHECK(block_ids[0] == 1 && block_ids[1] == 3);
  select.reserved = 1;
  CHECK(msa_select_blocks(context, &select, NULL) == MSA_INVALID_ARGUMENT);
}
