#include "roof.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <ctime>
#include <numeric>
#include <oneapi/dnnl/dnnl.hpp>

namespace msa::bench {
namespace {

Clock clock_in_use = Clock::kWall;
int clock_threads = 1;

double now_us() {
  if (clock_in_use == Clock::kProcessor) {
    return static_cast<double>(std::clock()) / CLOCKS_PER_SEC * 1e6 / clock_threads;
  }
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Arithmetic that touches no memory; some milliseconds.
double spin(double x) {
  for (int n = 0; n < 20'000'000; ++n) x = x * 0.999999 + 1e-6;
  return x;
}

}  // namespace

void use_clock(Clock clock, int num_threads) {
  clock_in_use = clock;
  clock_threads = num_threads;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double median_us(int repeats, const std::function<void()>& call) {
  call();
  std::vector<double> times;
  for (int n = 0; n < repeats; ++n) {
    const double begin = now_us();
    call();
    times.push_back(now_us() - begin);
  }
  return median(times);
}

double gemm_gflops(int num_threads, int repeats) {
  omp_set_num_threads(num_threads);
  using Tag = dnnl::memory::format_tag;
  constexpr dnnl::memory::dim kSize = 2048;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto desc = [](Tag tag) {
    return dnnl::memory::desc({kSize, kSize}, dnnl::memory::data_type::f32, tag);
  };
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc primitive_desc(engine, desc(Tag::ab), desc(Tag::any),
                                                    desc(Tag::ab));
#else
  const dnnl::matmul::primitive_desc primitive_desc(
      dnnl::matmul::desc(desc(Tag::ab), desc(Tag::any), desc(Tag::ab)), engine);
#endif
  const dnnl::matmul matmul(primitive_desc);
  std::vector<float> ones(static_cast<size_t>(kSize * kSize), 0.5f);
  std::vector<float> result(ones.size());
  dnnl::memory plain(desc(Tag::ab), engine, ones.data());
  dnnl::memory packed(primitive_desc.weights_desc(), engine);
  dnnl::reorder(plain, packed).execute(stream, plain, packed);
  dnnl::memory product(desc(Tag::ab), engine, result.data());
  const double us = median_us(repeats, [&] {
    matmul.execute(stream,
                   {{DNNL_ARG_SRC, plain}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, product}});
    stream.wait();
  });
  return 2.0 * kSize * kSize * kSize / us * 1e-3;
}

double read_gbytes_per_second(int num_threads, int repeats) {
  std::vector<int64_t> data(size_t{1} << 26, 1);  // 512 MiB
  int64_t total = 0;
  const double us = median_us(repeats, [&] {
    int64_t sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum) num_threads(num_threads)
    for (size_t n = 0; n < data.size(); ++n) sum += data[n];
    total += sum;
  });
  return total == 0 ? 0 : static_cast<double>(data.size() * sizeof(int64_t)) / us * 1e-3;
}

double idle_scaling(int num_threads) {
  const Clock before = clock_in_use;
  clock_in_use = Clock::kWall;
  std::vector<double> x(static_cast<size_t>(num_threads), 1.0);
  const double one = median_us(3, [&] { x[0] = spin(x[0]); });
  const double all = median_us(3, [&] {
#pragma omp parallel for schedule(static, 1) num_threads(num_threads)
    for (int n = 0; n < num_threads; ++n)
      x[static_cast<size_t>(n)] = spin(x[static_cast<size_t>(n)]);
  });
  clock_in_use = before;
  const double used = std::accumulate(x.begin(), x.end(), 0.0);
  return used == 0 ? 0 : one / all;
}

}  // namespace msa::bench
