#include "cuda/cache_check.h"

#include <fmt/format.h>

#include <cstring>
#include <random>
#include <vector>

#include "core/element.h"
#include "cuda/device_memory.h"
#include "msa/msa.h"

namespace msa::test {
namespace {

constexpr int64_t kPages = 9;
constexpr int64_t kPageSize = 16;
constexpr int64_t kHeads = 2;
constexpr int64_t kDim = 64;
constexpr int64_t kRows = 60;

/// A buffer on the host and its copy on the device.
struct Twin {
  std::vector<uint8_t> host;
  DeviceMemory device;
  explicit Twin(size_t bytes) : host(bytes), device(bytes) {}
  void upload() { device.upload(host.data(), host.size()); }
  void* data(bool cuda) { return cuda ? device.data() : host.data(); }
};

struct Floats : Twin {
  Floats(std::mt19937& random, DType type, int64_t count)
      : Twin(static_cast<size_t>(count) * dtype_bytes(type)) {
    std::normal_distribution<float> normal(0, 1);
    for (int64_t n = 0; n < count; ++n) core::store_element(host.data(), type, n, normal(random));
    upload();
  }
};

struct Ints : Twin {
  explicit Ints(const std::vector<int32_t>& values) : Twin(values.size() * 4) {
    std::memcpy(host.data(), values.data(), host.size());
    upload();
  }
};

bool same(const Twin& twin) { return twin.device.download<uint8_t>(twin.host.size()) == twin.host; }

/// Page 7 belongs to nobody; rows of a negative position and past the last request write nothing.
void check_types(Report& report, std::mt19937& random, DType rows_type, DType cache_type) {
  const int64_t tokens = kPages * kPageSize;
  Floats k(random, rows_type, kRows * kHeads * kDim);
  Floats v(random, rows_type, kRows * kHeads * kDim);
  Floats k_idx(random, rows_type, kRows * kDim);
  Floats cache_kv(random, cache_type, tokens * kHeads * 2 * kDim);  // K beside V
  Floats cache_idx(random, cache_type, tokens * kDim);
  Ints cu_q({0, 20, 20, 55});
  Ints lengths({17, 3, 64});
  Ints table({4, 2, 0, 0, 6, 0, 0, 0, 8, 1, 3, 5});
  Ints copies({8, 7, 2, 2});
  for (const bool cuda : {false, true}) {
    const Context context({.backend = cuda ? Backend::kCuda : Backend::kReference});
    auto* packed = static_cast<uint8_t*>(cache_kv.data(cuda));
    const auto half = static_cast<int64_t>(dtype_bytes(cache_type)) * kDim;
    const auto view = [&](void* data) {
      return MutableTensor(data, cache_type, {kPages, kPageSize, kHeads, kDim},
                           {kPageSize * kHeads * 2 * kDim, kHeads * 2 * kDim, 2 * kDim, 1});
    };
    CacheViews views;
    views.k = view(packed);
    views.v = view(packed + half);
    views.k_idx = MutableTensor(cache_idx.data(cuda), cache_type, {kPages, kPageSize, kDim});
    CacheAppendArgs args;
    args.k = Tensor(k.data(cuda), rows_type, {kRows, kHeads, kDim});
    args.v = Tensor(v.data(cuda), rows_type, {kRows, kHeads, kDim});
    args.k_idx = Tensor(k_idx.data(cuda), rows_type, {kRows, kDim});
    args.sequences.cu_seqlens_q = Tensor(cu_q.data(cuda), DType::kInt32, {4});
    args.sequences.kv_lens = Tensor(lengths.data(cuda), DType::kInt32, {3});
    args.sequences.page_table = Tensor(table.data(cuda), DType::kInt32, {3, 4});
    args.cache = views;
    cache_append(context, args);
    CopyPagesArgs copy;
    copy.pages = Tensor(copies.data(cuda), DType::kInt32, {2, 2});
    copy.cache = views;
    copy_pages(context, copy);
  }
  cuda::check_cuda("cache_append", cudaDeviceSynchronize());
  const bool ok = same(cache_kv) && same(cache_idx);
  report.add(fmt::format("caches, {} into {}", dtype_name(rows_type), dtype_name(cache_type)), ok,
             ok ? "" : "the caches differ from the host's");
}

}  // namespace

void check_caches(Report& report, unsigned seed) {
  std::mt19937 random(seed);
  check_types(report, random, DType::kBFloat16, DType::kBFloat16);
  check_types(report, random, DType::kFloat32, DType::kBFloat16);
  check_types(report, random, DType::kFloat32, DType::kFloat16);
  check_types(report, random, DType::kFloat16, DType::kFloat32);
}

}  // namespace msa::test
