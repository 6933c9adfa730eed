// Paged caches: the allocator's numbers, and what the ops write.
#include "check.h"

void test_allocator(void) {
  msa_page_allocator* pages = NULL;
  CHECK_ERROR(msa_page_allocator_create(-1, 4, &pages), MSA_INVALID_ARGUMENT,
              "[pages] num_pages is wrong: got -1, allowed 0 to 2147483647");
  CHECK(pages == NULL);
  CHECK_OK(msa_page_allocator_create(3, 4, &pages));
  int64_t first = -1, second = -1, length = -1, count = -1, num_free = -1;
  const int32_t* ids = NULL;
  msa_page_copy copy = {7, 7};
  CHECK_OK(msa_sequence_create(pages, &first));
  CHECK_OK(msa_sequence_extend(pages, first, 6, &copy));
  CHECK(copy.from == -1 && copy.to == -1);
  CHECK_OK(msa_sequence_fork(pages, first, 5, &second));
  CHECK_OK(msa_sequence_extend(pages, second, 6, &copy));  // writes into a shared page
  CHECK(copy.from == 1 && copy.to == 2);
  CHECK_OK(msa_sequence_pages(pages, second, &ids, &count));
  CHECK(count == 2 && ids[0] == 0 && ids[1] == 2);
  CHECK_OK(msa_page_allocator_num_free(pages, &num_free));
  CHECK(num_free == 0);
  CHECK_ERROR(msa_sequence_extend(pages, second, 9, &copy), MSA_OUT_OF_MEMORY,
              "[pages] no pages are left for 9 tokens: got 0 free, allowed at least 1");
  CHECK_ERROR(msa_sequence_extend(pages, second, INT64_MAX, &copy), MSA_INVALID_ARGUMENT,
              "[pages] extend goes too far: got length 9223372036854775807, allowed 2147483647");
  CHECK_OK(msa_sequence_truncate(pages, first, 3));
  CHECK_OK(msa_sequence_length(pages, first, &length));
  CHECK(length == 3);
  CHECK_OK(msa_sequence_release(pages, second));
  CHECK_ERROR(msa_sequence_length(pages, second, &length), MSA_INVALID_ARGUMENT,
              "[pages] length of an unknown sequence: got 1, allowed one of create or fork");
  CHECK_ERROR(msa_sequence_length(NULL, first, &length), MSA_INVALID_ARGUMENT,
              "[pages] the page allocator is missing: got a null pointer");
  CHECK_ERROR(msa_sequence_pages(pages, first, &ids, NULL), MSA_INVALID_ARGUMENT,
              "[pages] num_page_ids is missing: got a null pointer");
  CHECK_OK(msa_page_allocator_num_free(pages, &num_free));
  CHECK(num_free == 2);
  msa_page_allocator_destroy(pages);
  msa_page_allocator_destroy(NULL);
}

enum { kPages = 3, kBlock = 2, kDim = 8 };

void test_caches(const msa_context* context) {
  uint16_t k[kPages * kBlock * kDim] = {0}, v[kPages * kBlock * kDim] = {0};
  float k_idx[kPages * kBlock * kDim] = {0};
  // Two new tokens of a request of 3: the second token of page 2 and the first of page 0.
  float new_k[2 * kDim] = {1.00390625f, 1.01171875f}, new_v[2 * kDim] = {0};
  float new_idx[2 * kDim] = {0};
  new_k[kDim] = -2;
  new_v[0] = 0.5f;
  new_idx[kDim] = 3;
  int32_t rows[] = {0, 2}, lengths[] = {3}, table[] = {2, 0};
  const msa_cache_append_args append = {
      .struct_size = sizeof append,
      .k = msa_tensor_3d(new_k, MSA_FLOAT32, 2, 1, kDim),
      .v = msa_tensor_3d(new_v, MSA_FLOAT32, 2, 1, kDim),
      .k_idx = msa_tensor_2d(new_idx, MSA_FLOAT32, 2, kDim),
      .sequences = {.cu_seqlens_q = msa_tensor_1d(rows, MSA_INT32, 2),
                    .page_table = msa_tensor_2d(table, MSA_INT32, 1, 2),
                    .kv_lens = msa_tensor_1d(lengths, MSA_INT32, 1)},
      .cache_k = msa_tensor_4d(k, MSA_BFLOAT16, kPages, kBlock, 1, kDim),
      .cache_v = msa_tensor_4d(v, MSA_BFLOAT16, kPages, kBlock, 1, kDim),
      .cache_k_idx = msa_tensor_3d(k_idx, MSA_FLOAT32, kPages, kBlock, kDim)};
  CHECK_OK(msa_cache_append(context, &append, NULL));
  const int slot = (2 * kBlock + 1) * kDim;
  CHECK(k[slot] == 0x3F80 && k[slot + 1] == 0x3F82);  // bfloat16 of two ties: to even
  CHECK(k[0] == 0xC000 && v[slot] == 0x3F00 && k_idx[0] == 3);

  int32_t copies[] = {2, 1};
  const msa_copy_pages_args copy = {.struct_size = sizeof copy,
                                    .pages = msa_tensor_2d(copies, MSA_INT32, 1, 2),
                                    .cache_k = append.cache_k,
                                    .cache_v = append.cache_v,
                                    .cache_k_idx = append.cache_k_idx};
  CHECK_OK(msa_copy_pages(context, &copy, NULL));
  CHECK(memcmp(k + kBlock * kDim, k + 2 * kBlock * kDim, sizeof(uint16_t) * kBlock * kDim) == 0);
  copies[1] = kPages;
  CHECK_ERROR(msa_copy_pages(context, &copy, NULL), MSA_INVALID_ARGUMENT,
              "[copy_pages] pages[0, 1] is outside the cache: got 3, allowed 0 to 2");
  table[1] = -1;
  CHECK_ERROR(msa_cache_append(context, &append, NULL), MSA_INVALID_ARGUMENT,
              "[cache_append] page_table[0, 1] is outside the cache: got -1, allowed 0 to 2");
}
