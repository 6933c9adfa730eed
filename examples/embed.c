// Sparse attention in C on a paged cache that you own: one request of 1024 tokens asks one query.
#include <msa/c_api.h>
#include <stdio.h>
#include <stdlib.h>

enum { kPages = 16, B = 64, Hq = 8, Hkv = 2, D = 64, K = 4 };
static float q[Hq * D], q_idx[Hkv * D], out[Hq * D];
static float k[kPages * B * Hkv * D], v[kPages * B * Hkv * D], k_idx[kPages * B * D];
static int32_t rows[] = {0, 1}, lengths[] = {kPages * B}, table[kPages], ids[Hkv * K];

static void check(msa_status status) {
  if (status == MSA_OK) return;
  fprintf(stderr, "%s: %s\n", msa_status_name(status), msa_last_error());
  exit(1);
}

int main(void) {
  for (int b = 0; b < kPages; ++b) table[b] = kPages - 1 - b;  // pages may lie in any order
  for (int n = 0; n < Hkv * D; ++n) q_idx[n] = 1;
  const int token = table[4] * B + 44;  // token 300 of the sequence is the one to find
  for (int n = 0; n < D; ++n) k_idx[token * D + n] = 1;
  for (int n = 0; n < Hkv * D; ++n) v[token * Hkv * D + n] = 1;

  msa_context* context = NULL;  // the CPU and all its threads, or MSA_BACKEND and MSA_THREADS
  check(msa_context_create(NULL, &context));
  const msa_sequences sequences = {.cu_seqlens_q = msa_tensor_1d(rows, MSA_INT32, 2),
                                   .page_table = msa_tensor_2d(table, MSA_INT32, 1, kPages),
                                   .kv_lens = msa_tensor_1d(lengths, MSA_INT32, 1)};
  const msa_index_forward_args index = {.struct_size = sizeof index,
                                        .q_idx = msa_tensor_3d(q_idx, MSA_FLOAT32, 1, Hkv, D),
                                        .k_idx = msa_tensor_3d(k_idx, MSA_FLOAT32, kPages, B, D),
                                        .sequences = sequences,
                                        .block_size = B,
                                        .block_ids = msa_tensor_3d(ids, MSA_INT32, Hkv, 1, K)};
  const msa_attention_forward_args attention = {
      .struct_size = sizeof attention,
      .q = msa_tensor_3d(q, MSA_FLOAT32, 1, Hq, D),
      .k = msa_tensor_4d(k, MSA_FLOAT32, kPages, B, Hkv, D),
      .v = msa_tensor_4d(v, MSA_FLOAT32, kPages, B, Hkv, D),
      .sequences = sequences,
      .block_size = B,
      .block_ids = index.block_ids,
      .out = msa_tensor_3d(out, MSA_FLOAT32, 1, Hq, D)};

  size_t index_bytes = 0, attention_bytes = 0;
  check(msa_index_forward_workspace_size(context, &index, &index_bytes));
  check(msa_attention_forward_workspace_size(context, &attention, &attention_bytes));
  const size_t bytes = index_bytes > attention_bytes ? index_bytes : attention_bytes;
  char* const memory = malloc(bytes + 64);  // a workspace is aligned to 64 bytes
  const msa_workspace workspace = {memory + (64 - (uintptr_t)memory % 64), bytes, NULL};
  check(msa_index_forward(context, &index, &workspace));
  check(msa_attention_forward(context, &attention, &workspace));
  printf("the query reads blocks %d %d %d %d, out = %f\n", ids[0], ids[1], ids[2], ids[3],
         (double)out[0]);
  free(memory);
  msa_context_destroy(context);
  return 0;
}
