// Version, names, contexts, capabilities, growth of structs, and refusals.
#include <pthread.h>

#include "check.h"

static void* other_thread(void* unused) {
  (void)unused;
  static int empty;
  empty = strcmp(msa_last_error(), "") == 0;
  return &empty;
}

void test_library(void) {
  CHECK(msa_version() == 10000 * MSA_VERSION_MAJOR + 100 * MSA_VERSION_MINOR + MSA_VERSION_PATCH);
  CHECK(strcmp(msa_version_string(), EXPECTED_VERSION) == 0);
  CHECK(strcmp(msa_status_name(MSA_UNSUPPORTED), "unsupported") == 0);
  CHECK(strcmp(msa_status_name(77), "unknown status") == 0);
  CHECK(strcmp(msa_op_name(MSA_KL_FORWARD_BACKWARD), "kl_forward_backward") == 0);
  CHECK(strcmp(msa_op_name(-1), "unknown op") == 0);
  CHECK(strcmp(msa_last_error(), "") == 0);

  msa_context* context = NULL;
  CHECK_ERROR(msa_context_create(NULL, NULL), MSA_INVALID_ARGUMENT,
              "[context] context is missing: got a null pointer");
  msa_context_options options = {.struct_size = sizeof options, .backend = 4};
  CHECK_ERROR(msa_context_create(&options, &context), MSA_INVALID_ARGUMENT,
              "[context] backend is unknown: got 4, allowed 0 to 3");
  options.backend = MSA_BACKEND_CPU;
  options.num_threads = 5000;
  CHECK_ERROR(msa_context_create(&options, &context), MSA_INVALID_ARGUMENT,
              "[context] num_threads is wrong: got 5000, allowed 1 to 1024, or 0 for all");
  CHECK(context == NULL);
  options.struct_size = 0;
  CHECK_ERROR(msa_context_create(&options, &context), MSA_INVALID_ARGUMENT,
              "[context] options has the wrong struct_size: got 0, allowed its sizeof, 32 in this "
              "version");

  // The message is a thread's own.
  pthread_t thread;
  void* empty = NULL;
  CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
  CHECK(pthread_join(thread, &empty) == 0);
  CHECK(empty != NULL && *(int*)empty);

  // Null handles are refused or answer nothing.
  CHECK(strcmp(msa_context_description(NULL), "") == 0);
  CHECK(msa_context_backend(NULL) == MSA_BACKEND_DEFAULT && msa_context_num_threads(NULL) == 0);
  msa_context_destroy(NULL);

  context = test_context(MSA_BACKEND_CPU);
  CHECK(strstr(msa_context_description(context), "2 threads") != NULL);
  msa_geometry geometry = {.struct_size = sizeof geometry,
                           .num_q_heads = 8,
                           .num_kv_heads = 2,
                           .head_dim = 64,
                           .block_size = 64,
                           .top_k = 4};
  CHECK_OK(msa_supports(context, MSA_ATTENTION_FORWARD, &geometry, MSA_BFLOAT16));
  CHECK_ERROR(msa_supports(context, MSA_ATTENTION_FORWARD, &geometry, MSA_INT32), MSA_UNSUPPORTED,
              "[attention_forward] not supported by the cpu backend: type int32, allowed float32, "
              "bfloat16, float16");
  CHECK_ERROR(msa_supports(context, 99, &geometry, MSA_FLOAT32), MSA_INVALID_ARGUMENT,
              "[supports] op is unknown: got 99, allowed 0 to 12");
  CHECK_ERROR(msa_supports(context, 0, NULL, MSA_FLOAT32), MSA_INVALID_ARGUMENT,
              "[supports] geometry is missing: got a null pointer");
  geometry.head_dim = 60;
  CHECK_ERROR(
      msa_supports(context, MSA_ATTENTION_FORWARD, &geometry, MSA_BFLOAT16), MSA_UNSUPPORTED,
      "[attention_forward] not supported by the cpu backend: head dim 60, allowed multiples "
      "of 8");
  geometry.num_kv_heads = 3;
  CHECK_ERROR(msa_supports(context, MSA_ATTENTION_FORWARD, &geometry, MSA_BFLOAT16),
              MSA_UNSUPPORTED,
              "[attention_forward] not supported by the cpu backend: 8 query heads on 3 key-value "
              "heads, allowed a multiple");
  msa_context_destroy(context);
}

/// A valid merge of nothing: the smallest call there is.
static msa_merge_states_args empty_merge(void) {
  msa_merge_states_args args = {.struct_size = sizeof args,
                                .out_a = msa_tensor_3d(NULL, MSA_FLOAT32, 0, 1, 8),
                                .lse_a = msa_tensor_2d(NULL, MSA_FLOAT32, 0, 1)};
  args.out_b = args.out = args.out_a;
  args.lse_b = args.lse_a;
  return args;
}

void test_growth(const msa_context* context) {
  struct {  // as a newer header would have it
    msa_merge_states_args args;
    int64_t newer;
  } grown = {empty_merge(), 0};
  CHECK_OK(msa_merge_states(context, &grown.args, NULL));
  grown.args.struct_size = sizeof grown;
  CHECK_OK(msa_merge_states(context, &grown.args, NULL));
  grown.newer = 1;
  CHECK_ERROR(msa_merge_states(context, &grown.args, NULL), MSA_UNSUPPORTED,
              "[merge_states] args sets a field of a newer version: got byte 488, allowed the 488 "
              "bytes that this version knows");
  grown.args.struct_size = 480;
  CHECK_ERROR(msa_merge_states(context, &grown.args, NULL), MSA_INVALID_ARGUMENT,
              "[merge_states] args has the wrong struct_size: got 480, allowed its sizeof, 488 in "
              "this version");
}

void test_errors(const msa_context* context) {
  msa_merge_states_args args = empty_merge();
  CHECK_ERROR(msa_merge_states(NULL, &args, NULL), MSA_INVALID_ARGUMENT,
              "[merge_states] context is missing: got a null pointer");
  CHECK_ERROR(msa_merge_states(context, NULL, NULL), MSA_INVALID_ARGUMENT,
              "[merge_states] args is missing: got a null pointer");

  float values[64] = {0};
  args.out_a.shape[0] = 1;  // and no data
  CHECK_ERROR(msa_merge_states(context, &args, NULL), MSA_INVALID_ARGUMENT,
              "[merge_states] out_a has no data: got a null pointer for float32 [1, 1, 8]");
  args.out_a.data = (char*)values + 2;
  CHECK_ERROR(msa_merge_states(context, &args, NULL), MSA_INVALID_ARGUMENT,
              "[merge_states] out_a is misaligned: got an address that is no multiple of 4");
  args.out_a.data = values;
  args.out_a.dtype = 9;
  CHECK_ERROR(
      msa_merge_states(context, &args, NULL), MSA_INVALID_ARGUMENT,
      "[merge_states] out_a has the wrong type: got unknown type, allowed float32, bfloat16, "
      "float16");
  args.out_a.dtype = MSA_FLOAT32;
  args.out_a.rank = 2147483647;
  CHECK_ERROR(msa_merge_states(context, &args, NULL), MSA_INVALID_ARGUMENT,
              "[merge_states] out_a has the wrong rank: got 2147483647, allowed 3");
  args.out_a.rank = 3;
  args.out_a.shape[0] = args.out_a.shape[1] = INT64_MAX;
  CHECK_ERROR(msa_merge_states(context, &args, NULL), MSA_INVALID_ARGUMENT,
              "[merge_states] out_a is larger than any memory: got float32 [9223372036854775807, "
              "9223372036854775807, 8], allowed 17592186044416 elements");
  args.out_a = msa_tensor_3d(values, MSA_FLOAT32, 2, 1, 8);
  args.out_a.stride[0] = INT64_MIN;
  CHECK_ERROR(msa_merge_states(context, &args, NULL), MSA_INVALID_ARGUMENT,
              "[merge_states] out_a reaches further than any memory: got strides "
              "[-9223372036854775808, 8, 1] of float32 [2, 1, 8], allowed 1152921504606846976 "
              "elements");
  args.out_a.stride[0] = 0;  // an input may repeat itself, an output may not
  args.lse_a = msa_tensor_2d(values, MSA_FLOAT32, 2, 1);
  args.out_b = args.out = args.out_a;
  args.lse_b = args.lse_a;
  CHECK_ERROR(msa_merge_states(context, &args, NULL), MSA_INVALID_ARGUMENT,
              "[merge_states] out overlaps itself: got strides [0, 8, 1] of float32 [2, 1, 8], "
              "allowed those that give each element a place of its own");

  msa_index_forward_args index = {.struct_size = sizeof index,
                                  .q_idx = msa_tensor_3d(NULL, MSA_FLOAT32, 0, 1, 8),
                                  .k_idx = msa_tensor_2d(NULL, MSA_FLOAT32, 0, 8),
                                  .block_ids = msa_tensor_3d(NULL, MSA_INT32, 1, 0, 2)};
  int32_t offsets[] = {0};
  index.sequences.cu_seqlens_q = index.sequences.cu_seqlens_k =
      msa_tensor_1d(offsets, MSA_INT32, 1);
  size_t bytes = 0;
  CHECK_ERROR(msa_index_forward_workspace_size(context, &index, &bytes), MSA_INVALID_ARGUMENT,
              "[index_forward] block_size is wrong: got 0, allowed 1 to 2147483647");
  index.block_size = INT64_MAX;
  CHECK_ERROR(msa_index_forward_workspace_size(context, &index, &bytes), MSA_INVALID_ARGUMENT,
              "[index_forward] block_size is wrong: got 9223372036854775807, allowed 1 to "
              "2147483647");
  index.block_size = 2147483647;
  CHECK_OK(msa_index_forward_workspace_size(context, &index, &bytes));
  CHECK_ERROR(msa_index_forward_workspace_size(context, &index, NULL), MSA_INVALID_ARGUMENT,
              "[index_forward] bytes is missing: got a null pointer");
  index.block_id_layout = 2;
  CHECK_ERROR(msa_index_forward_workspace_size(context, &index, &bytes), MSA_INVALID_ARGUMENT,
              "[index_forward] block_id_layout is unknown: got 2, allowed 0 (head-major) or 1 "
              "(token-major)");
  index.block_id_layout = MSA_HEAD_MAJOR;
  index.lse_scope = -1;
  CHECK_ERROR(msa_index_forward_workspace_size(context, &index, &bytes), MSA_INVALID_ARGUMENT,
              "[index_forward] lse_scope is unknown: got -1, allowed 0 (selected) or 1 (visible)");
  index.lse_scope = MSA_LSE_SELECTED;
  index.max_query_length = -1;
  CHECK_ERROR(
      msa_index_forward_workspace_size(context, &index, &bytes), MSA_INVALID_ARGUMENT,
      "[index_forward] max_query_length is negative: got -1, allowed 0 (not known) or more");
  index.max_query_length = 0;
  index.scale = -INFINITY;
  CHECK_ERROR(msa_index_forward_workspace_size(context, &index, &bytes), MSA_INVALID_ARGUMENT,
              "[index_forward] scale is wrong: got -inf, allowed a finite number above 0");
}
