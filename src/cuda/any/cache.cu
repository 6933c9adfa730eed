// New tokens into paged caches, and whole pages from one place to another.
//
//   k, v [Tq, Hkv, D], k_idx [Tq, Di]  ->  [num_pages, B, Hkv, D], [num_pages, B, Di] by strides
//
// A warp takes a token: 16 bytes a lane where types agree and addresses allow it, else element by
// element through float32. Lengths and page numbers are on the device and may hold anything: a page
// outside the cache is passed over. Bound by memory: each element is read and written once.
#include <cuda_fp16.h>

#include "cuda/any/cache.h"
#include "cuda/device/sequence.cuh"

namespace msa::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kCaches = 3;
constexpr int64_t kWide = 16;

__device__ __forceinline__ int64_t bytes_of(DType type) { return type == DType::kFloat32 ? 4 : 2; }

__device__ __forceinline__ float load(const void* data, DType type, int64_t at) {
  if (type == DType::kFloat32) return static_cast<const float*>(data)[at];
  const uint16_t bits = static_cast<const uint16_t*>(data)[at];
  return type == DType::kBFloat16 ? __uint_as_float(static_cast<uint32_t>(bits) << 16)
                                  : __half2float(__ushort_as_half(bits));
}

__device__ __forceinline__ void store(void* data, DType type, int64_t at, float value) {
  if (type == DType::kFloat32) {
    static_cast<float*>(data)[at] = value;
  } else if (type == DType::kFloat16) {
    static_cast<uint16_t*>(data)[at] = __half_as_ushort(__float2half_rn(value));
  } else {  // to nearest even; a NaN keeps its upper bits, as on the host
    const uint32_t bits = __float_as_uint(value);
    static_cast<uint16_t*>(data)[at] = static_cast<uint16_t>(
        (bits & 0x7FFFFFFFu) > 0x7F800000u ? (bits >> 16) | 0x40u
                                           : (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
  }
}

/// One vector by one warp; offsets in elements.
__device__ __forceinline__ void copy_vector(const void* from, DType from_type, int64_t from_at,
                                            void* to, DType to_type, int64_t to_at, int64_t count) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t size = bytes_of(to_type);
  if (from_type == to_type) {
    const uint8_t* source = static_cast<const uint8_t*>(from) + from_at * size;
    uint8_t* target = static_cast<uint8_t*>(to) + to_at * size;
    const auto both = reinterpret_cast<uintptr_t>(source) | reinterpret_cast<uintptr_t>(target) |
                      static_cast<uintptr_t>(count * size);
    if (both % kWide == 0) {
      for (int64_t n = lane; n < count * size / kWide; n += 32) {
        reinterpret_cast<uint4*>(target)[n] = reinterpret_cast<const uint4*>(source)[n];
      }
      return;
    }
    for (int64_t n = lane; n < count * size / 2; n += 32) {
      reinterpret_cast<uint16_t*>(target)[n] = reinterpret_cast<const uint16_t*>(source)[n];
    }
    return;
  }
  for (int64_t n = lane; n < count; n += 32) {
    store(to, to_type, to_at + n, load(from, from_type, from_at + n));
  }
}

__global__ void __launch_bounds__(kWarps * 32, 4)
    append_tokens(const __grid_constant__ core::CacheAppendParams p) {
  const core::SequenceParams& s = p.sequences;
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= s.num_query_tokens) return;
  const int64_t r = find_request(s, row);
  if (r >= s.batch) return;
  const Request request = load_request(s, s.num_pages, r);
  const int64_t position = request.position(row);
  if (position < 0 || position >= request.key_length) return;
  const int64_t page = s.page_table[r * s.page_table_stride + position / s.page_size];
  if (page < 0 || page >= s.num_pages) return;
  for (int n = 0; n < kCaches; ++n) {
    const core::CacheParams& cache = p.caches[n];
    if (cache.data == nullptr) continue;
    const int64_t slot = page * cache.page_stride + position % s.page_size * cache.token_stride;
    for (int64_t head = 0; head < cache.num_heads; ++head) {
      copy_vector(cache.rows.data, cache.rows.dtype,
                  row * cache.rows.token_stride + head * cache.rows.head_stride, cache.data,
                  cache.dtype, slot + head * cache.head_stride, cache.dim);
    }
  }
}

__global__ void __launch_bounds__(kWarps * 32, 4)
    copy_tokens(const __grid_constant__ core::CopyPagesParams p) {
  const int64_t token = int64_t{blockIdx.y} * kWarps + threadIdx.x / 32;
  const int64_t from = p.pages[blockIdx.x * p.pages_stride];
  const int64_t to = p.pages[blockIdx.x * p.pages_stride + 1];
  const bool inside = from >= 0 && from < p.num_pages && to >= 0 && to < p.num_pages;
  if (token >= p.page_size || from == to || !inside) return;
  for (int n = 0; n < kCaches; ++n) {
    const core::CacheParams& cache = p.caches[n];
    if (cache.data == nullptr) continue;
    for (int64_t head = 0; head < cache.num_heads; ++head) {
      const int64_t within = token * cache.token_stride + head * cache.head_stride;
      copy_vector(cache.data, cache.dtype, from * cache.page_stride + within, cache.data,
                  cache.dtype, to * cache.page_stride + within, cache.dim);
    }
  }
}

}  // namespace

cudaError_t launch_cache_append(const core::CacheAppendParams& params, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(ceil_div(params.sequences.num_query_tokens, kWarps));
  append_tokens<<<blocks, kWarps * 32, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t launch_copy_pages(const core::CopyPagesParams& params, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(params.num_copies),
                  static_cast<unsigned>(ceil_div(params.page_size, kWarps)));
  copy_tokens<<<grid, kWarps * 32, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace msa::cuda
