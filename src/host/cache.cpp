// New tokens into paged caches, and whole pages from one place to another.
//
//   k, v [Tq, Hkv, D], k_idx [Tq, Di]  ->  [num_pages, B, Hkv, D], [num_pages, B, Di] by strides
//
// A task is a run of tokens, or one page. Bound by memory: each element is read and written once;
// float32 into bfloat16 is rounded to nearest even in a loop that the compiler vectorises.
#include <algorithm>
#include <cstring>

#include "core/element.h"
#include "host/ops.h"

namespace msa::host {
namespace {

void convert_row(const void* from, DType from_type, int64_t from_offset, void* to, DType to_type,
                 int64_t to_offset, int64_t count) {
  if (from_type == to_type) {
    const auto size = static_cast<int64_t>(dtype_bytes(to_type));
    std::memcpy(static_cast<unsigned char*>(to) + to_offset * size,
                static_cast<const unsigned char*>(from) + from_offset * size,
                static_cast<size_t>(count * size));
    return;
  }
  if (from_type == DType::kFloat32 && to_type == DType::kBFloat16) {
    const float* source = static_cast<const float*>(from) + from_offset;
    uint16_t* target = static_cast<uint16_t*>(to) + to_offset;
    for (int64_t n = 0; n < count; ++n) target[n] = core::float_to_bfloat16(source[n]);
    return;
  }
  for (int64_t n = 0; n < count; ++n) {
    core::store_element(to, to_type, to_offset + n,
                        core::load_element(from, from_type, from_offset + n));
  }
}

void append_token(const core::CacheAppendParams& p, int64_t request, int64_t t, int64_t position) {
  const core::SequenceParams& s = p.sequences;
  const int64_t page = s.page_table[request * s.page_table_stride + position / s.page_size];
  for (const core::CacheParams& cache : p.caches) {
    if (cache.data == nullptr) continue;
    const int64_t slot = page * cache.page_stride + position % s.page_size * cache.token_stride;
    for (int64_t head = 0; head < cache.num_heads; ++head) {
      convert_row(cache.rows.data, cache.rows.dtype, cache.rows.offset(t, head), cache.data,
                  cache.dtype, slot + head * cache.head_stride, cache.dim);
    }
  }
}

}  // namespace

void cache_append(const core::CacheAppendParams& p, const core::RunContext& run) {
  constexpr int64_t kTokensPerTask = 16;
  const core::SequenceParams& s = p.sequences;
  for (int64_t r = 0; r < s.batch; ++r) {
    const int64_t count = s.query_length(r);
    const int64_t first_row = s.cu_seqlens_q[r];
    const int64_t first_position = s.key_length(r) - count;
    (*run.parallel_for)((count + kTokensPerTask - 1) / kTokensPerTask,
                        [&p, r, count, first_row, first_position](int64_t task, int) {
                          const int64_t end = std::min(count, (task + 1) * kTokensPerTask);
                          for (int64_t n = task * kTokensPerTask; n < end; ++n) {
                            if (first_position + n >= 0)
                              append_token(p, r, first_row + n, first_position + n);
                          }
                        });
  }
}

void copy_pages(const core::CopyPagesParams& p, const core::RunContext& run) {
  (*run.parallel_for)(p.num_copies, [&p](int64_t task, int) {
    const int64_t from = p.pages[task * p.pages_stride];
    const int64_t to = p.pages[task * p.pages_stride + 1];
    if (from == to) return;
    for (const core::CacheParams& cache : p.caches) {
      if (cache.data == nullptr) continue;
      for (int64_t token = 0; token < p.page_size; ++token) {
        for (int64_t head = 0; head < cache.num_heads; ++head) {
          const int64_t within = token * cache.token_stride + head * cache.head_stride;
          convert_row(cache.data, cache.dtype, from * cache.page_stride + within, cache.data,
                      cache.dtype, to * cache.page_stride + within, cache.dim);
        }
      }
    }
  });
}

}  // namespace msa::host
