// A caller's own thread pool: used for everything, and not trusted.
#include <pthread.h>
#include <stdlib.h>

#include "check.h"

enum { kTokens = 600, kDim = 8, kThreads = 3 };

/// How a pool behaves; calls counts the loops that it ran.
struct pool {
  int skips_last;
  int32_t worker_offset;
  int calls;
};

/// One thread that takes the tasks backwards, under alternating names.
static void run_backwards(void* data, int64_t num_tasks, msa_task run, void* loop) {
  struct pool* pool = data;
  ++pool->calls;
  for (int64_t n = num_tasks - 1; n >= pool->skips_last; --n) {
    run(loop, n, (int32_t)(n % 2) + pool->worker_offset);
  }
}

static float queries[kTokens * kDim], keys[kTokens * kDim], out[2][kTokens * kDim];
static int32_t offsets[] = {0, kTokens};

static msa_dense_attention_forward_args attend_args(float* result) {
  msa_dense_attention_forward_args args = {
      .struct_size = sizeof args,
      .q = msa_tensor_3d(queries, MSA_FLOAT32, kTokens, 1, kDim),
      .k = msa_tensor_3d(keys, MSA_FLOAT32, kTokens, 1, kDim),
      .v = msa_tensor_3d(keys, MSA_FLOAT32, kTokens, 1, kDim),
      .sequences = {.cu_seqlens_q = msa_tensor_1d(offsets, MSA_INT32, 2),
                    .cu_seqlens_k = msa_tensor_1d(offsets, MSA_INT32, 2)},
      .out = msa_tensor_3d(result, MSA_FLOAT32, kTokens, 1, kDim)};
  return args;
}

static msa_status attend(struct pool* pool, msa_backend backend, float* result) {
  msa_context_options options = {
      .struct_size = sizeof options, .backend = backend, .num_threads = 2};
  if (pool != NULL) {
    options.parallel_for = run_backwards;
    options.pool = pool;
  }
  msa_context* context = NULL;
  CHECK_OK(msa_context_create(&options, &context));
  const msa_dense_attention_forward_args args = attend_args(result);
  const msa_workspace workspace = test_workspace();
  const msa_status status = msa_dense_attention_forward(context, &args, &workspace);
  msa_context_destroy(context);
  return status;
}

/// What one of several threads does with the context that they share.
struct caller {
  const msa_context* context;
  float out[kTokens * kDim];
  msa_status status;
  int own_message;
};

static void* call_from_thread(void* data) {
  struct caller* caller = data;
  const msa_dense_attention_forward_args args = attend_args(caller->out);
  size_t bytes = 0;
  caller->status = msa_dense_attention_forward_workspace_size(caller->context, &args, &bytes);
  void* memory = malloc(bytes + 64);
  if (memory == NULL || caller->status != MSA_OK) return NULL;
  const msa_workspace workspace = {(char*)memory + (64 - (uintptr_t)memory % 64) % 64, bytes, NULL};
  for (int n = 0; n < 10 && caller->status == MSA_OK; ++n) {
    caller->status = msa_dense_attention_forward(caller->context, &args, &workspace);
  }
  msa_dense_attention_forward(caller->context, NULL, NULL);  // leaves a message here
  caller->own_message = strstr(msa_last_error(), "args is missing") != NULL;
  free(memory);
  return NULL;
}

static void test_shared_context(void) {
  msa_context* context = test_context(MSA_BACKEND_CPU);
  static struct caller callers[kThreads];
  pthread_t threads[kThreads];
  for (int n = 0; n < kThreads; ++n) {
    callers[n].context = context;
    CHECK(pthread_create(&threads[n], NULL, call_from_thread, &callers[n]) == 0);
  }
  for (int n = 0; n < kThreads; ++n) {
    CHECK(pthread_join(threads[n], NULL) == 0);
    CHECK(callers[n].status == MSA_OK && callers[n].own_message);
    CHECK(memcmp(callers[n].out, out[0], sizeof out[0]) == 0);
  }
  msa_context_destroy(context);
}

void test_pools(void) {
  for (int n = 0; n < kTokens * kDim; ++n) {
    queries[n] = (float)(n * 37 % 101) / 50 - 1;
    keys[n] = (float)(n * 53 % 97) / 48 - 1;
  }
  const msa_backend backends[] = {MSA_BACKEND_REFERENCE, MSA_BACKEND_CPU};
  for (int n = 0; n < 2; ++n) {
    struct pool pool = {0, 0, 0};
    CHECK_OK(attend(NULL, backends[n], out[0]));
    CHECK_OK(attend(&pool, backends[n], out[1]));
    CHECK(memcmp(out[0], out[1], sizeof out[0]) == 0);  // the same bits in any order
    CHECK(pool.calls > 0);
    struct pool lazy = {1, 0, 0};
    CHECK(attend(&lazy, backends[n], out[1]) == MSA_INVALID_ARGUMENT);
    CHECK(strstr(msa_last_error(), "[context] parallel_for did not run every task once: got ") ==
          msa_last_error());
    struct pool liar = {0, 1, 0};
    CHECK_ERROR(attend(&liar, backends[n], out[1]), MSA_INVALID_ARGUMENT,
                "[context] parallel_for named a worker that is none: got 2, allowed 0 to 1");
  }
  test_shared_context();
}
