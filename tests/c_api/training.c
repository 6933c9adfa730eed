// The training ops on two tokens and one query, worked out by hand; a backend without them says so.
#include "check.h"

enum { kDim = 8 };

static int32_t rows[] = {0, 1};
static int32_t keys[] = {0, 2};
static int32_t ids[] = {0};

static msa_sequences packed(void) {
  msa_sequences sequences = {.cu_seqlens_q = msa_tensor_1d(rows, MSA_INT32, 2),
                             .cu_seqlens_k = msa_tensor_1d(keys, MSA_INT32, 2)};
  return sequences;
}

static int missing(const msa_context* context, msa_op op) {
  const msa_geometry geometry = {.struct_size = sizeof geometry,
                                 .num_q_heads = 1,
                                 .num_kv_heads = 1,
                                 .head_dim = kDim,
                                 .block_size = 2,
                                 .top_k = 1};
  const msa_status status = msa_supports(context, op, &geometry, MSA_FLOAT32);
  CHECK(status == MSA_OK || status == MSA_UNSUPPORTED);
  CHECK(status == MSA_OK || msa_context_backend(context) != MSA_BACKEND_REFERENCE);
  return status != MSA_OK;
}

static void test_attention_gradients(const msa_context* context) {
  // P = 1/2 for both; v_0 = k_0 = dout = (1, 0, ...), v_1 = k_1 = 0: D_row = 1/2, dS = +-1/4.
  float q[kDim] = {0}, k[2 * kDim] = {1}, v[2 * kDim] = {1}, out[kDim] = {0.5f}, dout[kDim] = {1};
  float lse[] = {logf(2)}, dq[kDim], dk[2 * kDim], dv[2 * kDim];
  msa_attention_backward_args args = {.struct_size = sizeof args,
                                      .q = msa_tensor_3d(q, MSA_FLOAT32, 1, 1, kDim),
                                      .k = msa_tensor_3d(k, MSA_FLOAT32, 2, 1, kDim),
                                      .v = msa_tensor_3d(v, MSA_FLOAT32, 2, 1, kDim),
                                      .sequences = packed(),
                                      .block_size = 2,
                                      .scale = 2,
                                      .block_ids = msa_tensor_3d(ids, MSA_INT32, 1, 1, 1),
                                      .out = msa_tensor_3d(out, MSA_FLOAT32, 1, 1, kDim),
                                      .lse = msa_tensor_2d(lse, MSA_FLOAT32, 1, 1),
                                      .dout = msa_tensor_3d(dout, MSA_FLOAT32, 1, 1, kDim),
                                      .dq = msa_tensor_3d(dq, MSA_FLOAT32, 1, 1, kDim),
                                      .dk = msa_tensor_3d(dk, MSA_FLOAT32, 2, 1, kDim),
                                      .dv = msa_tensor_3d(dv, MSA_FLOAT32, 2, 1, kDim)};
  const msa_workspace workspace = test_workspace();
  size_t bytes = 0;
  if (missing(context, MSA_ATTENTION_BACKWARD)) {
    CHECK(msa_attention_backward(context, &args, &workspace) == MSA_UNSUPPORTED);
  } else {
    CHECK_OK(msa_attention_backward_workspace_size(context, &args, &bytes));
    CHECK_OK(msa_attention_backward(context, &args, &workspace));
    CHECK_NEAR(dq[0], 0.5);
    CHECK(dq[1] == 0 && dk[0] == 0);
    CHECK_NEAR(dv[0], 0.5);
    CHECK_NEAR(dv[kDim], 0.5);
  }
  CHECK_ERROR(msa_dense_attention_backward(context, &args, &workspace), MSA_INVALID_ARGUMENT,
              "[dense_attention_backward] blocks are given: got block_size, block_id_layout or "
              "block_ids, allowed none");
  args.block_size = 0;
  args.block_ids.rank = 0;
  if (missing(context, MSA_DENSE_ATTENTION_BACKWARD)) {
    CHECK(msa_dense_attention_backward(context, &args, &workspace) == MSA_UNSUPPORTED);
  } else {
    dq[0] = dv[0] = 77;
    CHECK_OK(msa_dense_attention_backward_workspace_size(context, &args, &bytes));
    CHECK_OK(msa_dense_attention_backward(context, &args, &workspace));
    CHECK_NEAR(dq[0], 0.5);
    CHECK_NEAR(dv[0], 0.5);
  }
}

static void test_kl(const msa_context* context) {
  // Teacher (1/2, 1/2), student (3/4, 1/4).
  float q[kDim] = {0}, k[2 * kDim] = {1}, q_idx[kDim] = {1}, k_idx[2 * kDim] = {0};
  float lse[] = {logf(2)}, lse_idx[] = {logf(4)}, loss = 0, dq_idx[kDim], dk_idx[2 * kDim];
  k_idx[0] = logf(3);
  msa_kl_forward_backward_args args = {.struct_size = sizeof args,
                                       .q = msa_tensor_3d(q, MSA_FLOAT32, 1, 1, kDim),
                                       .k = msa_tensor_3d(k, MSA_FLOAT32, 2, 1, kDim),
                                       .lse = msa_tensor_2d(lse, MSA_FLOAT32, 1, 1),
                                       .q_idx = msa_tensor_3d(q_idx, MSA_FLOAT32, 1, 1, kDim),
                                       .k_idx = msa_tensor_2d(k_idx, MSA_FLOAT32, 2, kDim),
                                       .lse_idx = msa_tensor_2d(lse_idx, MSA_FLOAT32, 1, 1),
                                       .sequences = packed(),
                                       .scale_idx = 1,
                                       .scope = MSA_KL_VISIBLE,
                                       .coefficient = 4,
                                       .normaliser = 2,
                                       .loss = msa_tensor_1d(&loss, MSA_FLOAT32, 1),
                                       .dq_idx = msa_tensor_3d(dq_idx, MSA_FLOAT32, 1, 1, kDim),
                                       .dk_idx = msa_tensor_2d(dk_idx, MSA_FLOAT32, 2, kDim)};
  const msa_workspace workspace = test_workspace();
  size_t bytes = 0;
  if (missing(context, MSA_KL_FORWARD_BACKWARD)) {
    CHECK(msa_kl_forward_backward(context, &args, &workspace) == MSA_UNSUPPORTED);
  } else {
    CHECK_OK(msa_kl_forward_backward_workspace_size(context, &args, &bytes));
    CHECK_OK(msa_kl_forward_backward(context, &args, &workspace));
    CHECK_NEAR(loss, 2 * 0.5 * log(4.0 / 3));
    CHECK_NEAR(dq_idx[0], 2 * 0.25 * log(3));
    CHECK_NEAR(dk_idx[0], 0.5);
    CHECK_NEAR(dk_idx[kDim], -0.5);
  }
  args.scope = 2;
  CHECK_ERROR(msa_kl_forward_backward(context, &args, &workspace), MSA_INVALID_ARGUMENT,
              "[kl_forward_backward] scope is unknown: got 2, allowed 0 (selected) or 1 (visible)");
  args.scope = MSA_KL_VISIBLE;
  args.normaliser = 0;
  CHECK_ERROR(msa_kl_forward_backward(context, &args, &workspace), MSA_INVALID_ARGUMENT,
              "[kl_forward_backward] normaliser is wrong: got 0, allowed a finite number above 0, "
              "Hkv * T");
}

void test_training(const msa_context* context) {
  test_attention_gradients(context);
  test_kl(context);
}
