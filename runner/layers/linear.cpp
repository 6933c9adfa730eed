#include "runner/layers/linear.h"

#include <omp.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <vector>

#include "runner/files/fail.h"
#include "runner/layers/bfloat16.h"
#include "runner/layers/memory.h"
#include "runner/layers/parallel.h"

namespace msa::runner {
namespace {

constexpr int64_t kTileRows = 64;
constexpr int64_t kRowStep = 16;
// Below this, one thread reads the weights about as fast as a second one wakes up.
constexpr size_t kMinThreadedBytes = 2 << 20;
/// More than oneDNN takes to compile one product or reorder.
constexpr size_t kCompilerBytes = size_t{16} << 20;
constexpr const char* kCompiler = "compiling a linear layer";

using dnnl::memory;
using DataType = dnnl::memory::data_type;

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::stream& stream() {
  static thread_local dnnl::stream own(engine());
  return own;
}

/// oneDNN takes its thread count from OpenMP's setting of the calling thread.
class OpenMpThreads {
 public:
  explicit OpenMpThreads(int count) : before_(omp_get_max_threads()) { omp_set_num_threads(count); }
  OpenMpThreads(const OpenMpThreads&) = delete;
  OpenMpThreads& operator=(const OpenMpThreads&) = delete;
  ~OpenMpThreads() { omp_set_num_threads(before_); }

 private:
  int before_;
};

memory::desc row_major(int64_t rows, int64_t columns, DataType type) {
  return {{rows, columns}, type, memory::dims{columns, 1}};
}

/// oneDNN 2 and 3 construct primitives differently.
dnnl::matmul::primitive_desc describe_product(const memory::desc& x, const memory::desc& weights,
                                              const memory::desc& y, bool add) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (add) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), x, weights, y, attributes};
#else
  return {dnnl::matmul::desc(x, weights, y), attributes, engine()};
#endif
}

bool has_bfloat16_products() {
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  const auto level = static_cast<unsigned>(isa);
  const auto needed = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (level & needed) == needed;
}

[[noreturn]] void rethrow(const dnnl::error& error, int64_t out, int64_t in) {
  const bool memory_ran_out = error.status == dnnl_out_of_memory;
  throw Error(
      memory_ran_out ? ErrorCode::kOutOfMemory : ErrorCode::kInternal,
      fmt::format("[linear] oneDNN failed on a layer of [{}, {}]: got \"{}\", allowed success", out,
                  in, error.what()));
}

/// A compiled product for one number of rows.
struct Product {
  dnnl::matmul primitive;
  memory::desc x;
  memory::desc y;
  memory::desc scratchpad;
};

}  // namespace

struct Linear::State {
  int64_t in = 0;
  int64_t out = 0;
  DataType type = DataType::f32;
  memory::desc layout;  // of the packed weights
  memory weights;
  std::mutex mutex;
  std::map<std::tuple<int64_t, int, bool>, Product> products;  // rows, threads, add

  const Product& product(int64_t rows, int threads, bool add) {
    const std::lock_guard lock(mutex);
    const auto key = std::tuple(rows, threads, add);
    const auto found = products.find(key);
    if (found != products.end()) return found->second;
    check_room(kCompiler, kCompilerBytes);
    const OpenMpThreads scope(threads);
    const memory::desc x = row_major(rows, in, type);
    const memory::desc y = row_major(rows, out, DataType::f32);
    const auto description = describe_product(x, layout, y, add);
    return products
        .emplace(key, Product{dnnl::matmul(description), x, y, description.scratchpad_desc()})
        .first->second;
  }

  /// One tile: x and y point at its first row.
  void execute(const Product& product, const float* x, int64_t rows, float* y) const {
    static thread_local std::vector<uint16_t> converted;
    static thread_local Buffer scratchpad;
    const void* source = x;
    if (type == DataType::bf16) {
      converted.resize(static_cast<size_t>(rows * in));
      for (size_t i = 0; i < converted.size(); ++i) converted[i] = float_to_bfloat16(x[i]);
      source = converted.data();
    }
    scratchpad.grow("a linear layer's scratch memory",
                    std::max<size_t>(product.scratchpad.get_size(), 1));
    const memory from(product.x, engine(), const_cast<void*>(source));
    const memory to(product.y, engine(), y);
    const memory scratch(product.scratchpad, engine(), scratchpad.data());
    product.primitive.execute(stream(), {{DNNL_ARG_SRC, from},
                                         {DNNL_ARG_WEIGHTS, weights},
                                         {DNNL_ARG_DST, to},
                                         {DNNL_ARG_SCRATCHPAD, scratch}});
    stream().wait();
  }
};

Linear::Linear() = default;
Linear::Linear(Linear&&) noexcept = default;
Linear& Linear::operator=(Linear&&) noexcept = default;
Linear::~Linear() = default;

Linear::Linear(const float* weights, int64_t out, int64_t in, DType dtype) try
    : state_(std::make_unique<State>()) {
  const bool bfloat16 = dtype == DType::kBFloat16;
  if (bfloat16 && !has_bfloat16_products()) {
    throw Error(ErrorCode::kUnsupported,
                "[linear] this CPU has no bfloat16 products: got linear_dtype bfloat16, allowed "
                "float32");
  }
  State& s = *state_;
  s.in = in;
  s.out = out;
  s.type = bfloat16 ? DataType::bf16 : DataType::f32;
  check_room(kCompiler, kCompilerBytes);
  const OpenMpThreads scope(1);
  const memory::desc any({in, out}, s.type, memory::format_tag::any);
  s.layout = describe_product(row_major(kTileRows, in, s.type), any,
                              row_major(kTileRows, out, DataType::f32), false)
                 .weights_desc();
  s.weights = memory(s.layout, engine());
  // W [out, in] row-major is W^T [in, out] with strides 1, in.
  const memory::desc plain({in, out}, DataType::f32, memory::dims{1, in});
  memory from(plain, engine(), const_cast<float*>(weights));
  dnnl::reorder(from, s.weights).execute(stream(), from, s.weights);
  stream().wait();
} catch (const dnnl::error& error) {
  rethrow(error, out, in);
}

void Linear::run(const Context& context, const float* x, int64_t rows, float* y, bool add) const
    try {
  State& s = *state_;
  if (rows <= kTileRows) {
    const int64_t padded = padded_rows(rows);
    const int threads = s.layout.get_size() < kMinThreadedBytes ? 1 : context.num_threads();
    const Product& product = s.product(padded, threads, add);
    const OpenMpThreads scope(threads);
    s.execute(product, x, padded, y);
    return;
  }
  const int64_t num_tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t last_rows = padded_rows(rows - (num_tiles - 1) * kTileRows);
  const Product& tile = s.product(kTileRows, 1, add);
  const Product& last = s.product(last_rows, 1, add);
  for_each_task(context, num_tiles, [&](int64_t n) {
    const OpenMpThreads scope(1);
    const int64_t row = n * kTileRows;
    const bool is_last = n + 1 == num_tiles;
    s.execute(is_last ? last : tile, x + row * s.in, is_last ? last_rows : kTileRows,
              y + row * s.out);
  });
} catch (const dnnl::error& error) {
  rethrow(error, state_->out, state_->in);
}

int64_t Linear::in() const { return state_->in; }
int64_t Linear::out() const { return state_->out; }
size_t Linear::bytes() const { return state_->layout.get_size(); }

int64_t Linear::padded_rows(int64_t rows) {
  return rows <= 1 ? rows : (rows + kRowStep - 1) / kRowStep * kRowStep;
}

}  // namespace msa::runner
