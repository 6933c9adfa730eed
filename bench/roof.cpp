#include "bench/roof.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <oneapi/dnnl/dnnl.hpp>

#include "bench/stopwatch.h"

namespace msa::bench {
namespace {

constexpr size_t kStreams = 8;
constexpr size_t kLine = 8;  // numbers in a cache line
constexpr size_t kLeastBytes = size_t{512} << 20;
constexpr size_t kMostBytes = size_t{1} << 30;

/// Arithmetic that touches no memory; some milliseconds.
double spin(double x) {
  for (int n = 0; n < 20'000'000; ++n) x = x * 0.999999 + 1e-6;
  return x;
}

/// After one call that is not counted.
double median_seconds(int num_threads, int repeats, const std::function<void()>& call) {
  const Stopwatch stopwatch(Clock::kWall, num_threads);
  call();
  std::vector<double> times;
  for (int n = 0; n < repeats; ++n) times.push_back(stopwatch.seconds(call));
  return summarise(times).median;
}

/// Where a type has kernels of its own. Without AVX512-BF16 a bfloat16 product exists but widens as
/// it goes and is slower than float32: no roof.
bool has_fast_products(DType type) {
  const auto level = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto has = [&](dnnl::cpu_isa isa) {
    const auto needed = static_cast<unsigned>(isa);
    return needed != 0 && (level & needed) == needed;
  };
  if (type == DType::kFloat32) return true;
  if (type == DType::kBFloat16) return has(dnnl::cpu_isa::avx512_core_bf16);
#if DNNL_VERSION_MAJOR >= 3
  return has(dnnl::cpu_isa::avx512_core_fp16);
#else
  return false;
#endif
}

dnnl::memory::data_type onednn_type(DType type) {
  if (type == DType::kBFloat16) return dnnl::memory::data_type::bf16;
  return type == DType::kFloat16 ? dnnl::memory::data_type::f16 : dnnl::memory::data_type::f32;
}

}  // namespace

std::optional<double> gemm_gflops(DType type, int num_threads, int repeats) {
  if (!has_fast_products(type)) return std::nullopt;
  omp_set_num_threads(num_threads);
  using Tag = dnnl::memory::format_tag;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto desc = [type](Tag tag) {
    return dnnl::memory::desc({kGemmSize, kGemmSize}, onednn_type(type), tag);
  };
  const dnnl::memory::desc result_desc({kGemmSize, kGemmSize}, dnnl::memory::data_type::f32,
                                       Tag::ab);
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc primitive_desc(engine, desc(Tag::ab), desc(Tag::any),
                                                    result_desc);
#else
  const dnnl::matmul::primitive_desc primitive_desc(
      dnnl::matmul::desc(desc(Tag::ab), desc(Tag::any), result_desc), engine);
#endif
  const dnnl::matmul matmul(primitive_desc);
  // 0.5 as float32; as bfloat16 and float16 the same bytes are small finite numbers and zeros.
  std::vector<float> halves(static_cast<size_t>(kGemmSize * kGemmSize), 0.5f);
  std::vector<float> result(halves.size());
  dnnl::memory plain(desc(Tag::ab), engine, halves.data());
  dnnl::memory packed(primitive_desc.weights_desc(), engine);
  dnnl::reorder(plain, packed).execute(stream, plain, packed);
  dnnl::memory product(result_desc, engine, result.data());
  const double seconds = median_seconds(num_threads, repeats, [&] {
    matmul.execute(stream,
                   {{DNNL_ARG_SRC, plain}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, product}});
    stream.wait();
  });
  return 2.0 * kGemmSize * kGemmSize * kGemmSize / seconds * 1e-9;
}

size_t last_cache_bytes() {
  long most = 0;
  for (const int name : {_SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE, _SC_LEVEL4_CACHE_SIZE}) {
    most = std::max(most, sysconf(name));
  }
  return static_cast<size_t>(most);
}

ReadBuffer::ReadBuffer(int num_threads)
    : num_threads_(num_threads),
      data_(std::clamp(2 * last_cache_bytes(), kLeastBytes, kMostBytes) / sizeof(int64_t), 1) {}

void ReadBuffer::read() const {
  int64_t sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum) num_threads(num_threads_)
  for (size_t n = 0; n < data_.size(); ++n) sum += data_[n];
  // Never true; without a use of the sum the loop would be left out.
  if (sum == 0) idle_scaling(1);
}

int64_t ReadBuffer::sum_streams() const {
  const size_t part = data_.size() / static_cast<size_t>(num_threads_);
  const size_t stream = part / kStreams / kLine * kLine;
  int64_t sum = 0;
#pragma omp parallel for schedule(static, 1) reduction(+ : sum) num_threads(num_threads_)
  for (int thread = 0; thread < num_threads_; ++thread) {
    const int64_t* begin = data_.data() + static_cast<size_t>(thread) * part;
    std::array<int64_t, kLine> sums{};
    for (size_t n = 0; n < stream; n += kLine) {
      for (size_t s = 0; s < kStreams; ++s) {
        for (size_t lane = 0; lane < kLine; ++lane) sums[lane] += begin[s * stream + n + lane];
      }
    }
    sum += std::accumulate(sums.begin(), sums.end(), int64_t{0});
  }
  return sum;
}

double ReadBuffer::gbytes_per_second(int repeats) const {
  const double one = median_seconds(num_threads_, repeats, [&] { read(); });
  int64_t sum = 0;
  const double many = median_seconds(num_threads_, repeats, [&] { sum += sum_streams(); });
  return sum == 0 ? 0 : static_cast<double>(bytes()) / std::min(one, many) * 1e-9;
}

double idle_scaling(int num_threads) {
  std::vector<double> x(static_cast<size_t>(num_threads), 1.0);
  const double one = median_seconds(1, 3, [&] { x[0] = spin(x[0]); });
  const double all = median_seconds(num_threads, 3, [&] {
#pragma omp parallel for schedule(static, 1) num_threads(num_threads)
    for (int n = 0; n < num_threads; ++n)
      x[static_cast<size_t>(n)] = spin(x[static_cast<size_t>(n)]);
  });
  return std::accumulate(x.begin(), x.end(), 0.0) == 0 ? 0 : one / all;
}

}  // namespace msa::bench
