#include "cuda/select_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/sm90/select_blocks/launch.h"

namespace msa::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr int32_t kGuard = 0x7A7A7A7A;

enum class Kind { kNormal, kEqual, kRising, kFalling, kFew, kSpecial, kOneLane, kNumKinds };

float score_of(Kind kind, int64_t column, std::mt19937& random) {
  std::normal_distribution<float> normal;
  switch (kind) {
    case Kind::kEqual:
      return 0.25f;
    case Kind::kRising:
      return static_cast<float>(column);
    case Kind::kFalling:
      return -static_cast<float>(column);
    case Kind::kFew:
      return static_cast<float>(random() % 5);
    case Kind::kSpecial: {
      const float values[] = {-0.0f, 0.0f, kInfinity, -kInfinity, kNaN, 1.0f, -1.0f};
      return values[random() % std::size(values)];
    }
    case Kind::kOneLane:  // the best lie where one lane looks: its neighbours see none of them
      return column % 128 < 4 ? 100.0f + normal(random) : normal(random);
    default:
      return normal(random);
  }
}

std::vector<int32_t> best_of(const float* scores, int64_t columns, int64_t kept, int32_t local,
                             int64_t top_k) {
  std::vector<int32_t> order;
  for (int64_t n = 0; n < columns; ++n) order.push_back(static_cast<int32_t>(n));
  const auto value = [&](int32_t id) { return std::isnan(scores[id]) ? -kInfinity : scores[id]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return value(a) > value(b); });
  order.resize(static_cast<size_t>(std::min(columns, kept)));
  std::sort(order.begin(), order.end());
  if (local >= 0) order.push_back(local);
  order.resize(static_cast<size_t>(top_k), -1);
  return order;
}

struct Shape {
  int64_t heads, tokens, columns, top_k;
  int64_t gap;     // floats behind each row
  int64_t offset;  // floats before the first
};

std::string problem_of(const Shape& shape, Kind kind, bool with_local, std::mt19937& random) {
  const int64_t stride = shape.columns + shape.gap;
  const int64_t rows = shape.heads * shape.tokens;
  std::vector<float> scores(static_cast<size_t>(shape.offset + rows * stride), kInfinity);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t n = 0; n < shape.columns; ++n) {
      scores[static_cast<size_t>(shape.offset + row * stride + n)] = score_of(kind, n, random);
    }
  }
  std::vector<int32_t> locals;
  for (int64_t t = 0; t < shape.tokens; ++t) {
    locals.push_back(static_cast<int32_t>(random() % static_cast<unsigned>(shape.columns + 2)) - 1);
  }
  DeviceMemory device_scores(scores.size() * 4);
  DeviceMemory device_locals(locals.size() * 4);
  const int64_t id_stride = shape.top_k + 3;
  DeviceMemory ids(static_cast<size_t>(rows * id_stride) * 4, 0x7A);
  device_scores.upload(scores.data(), scores.size() * 4);
  device_locals.upload(locals.data(), locals.size() * 4);
  core::SelectBlocksParams op;
  op.scores = static_cast<const float*>(device_scores.data()) + shape.offset;
  op.score_head_stride = shape.tokens * stride;
  op.score_token_stride = stride;
  op.num_kv_heads = shape.heads;
  op.num_query_tokens = shape.tokens;
  op.max_blocks = shape.columns;
  if (with_local) op.local_blocks = static_cast<const int32_t*>(device_locals.data());
  op.block_ids = {static_cast<int32_t*>(ids.data()), id_stride, shape.heads * id_stride,
                  shape.top_k};
  cuda::check_cuda("select_blocks", cuda::launch_select_blocks(cuda::select_kernel_params(op),
                                                               cuda::multiprocessors(), nullptr));
  cuda::check_cuda("select_blocks", cudaDeviceSynchronize());
  const auto got = ids.download<int32_t>(static_cast<size_t>(rows * id_stride));
  for (int64_t head = 0; head < shape.heads; ++head) {
    for (int64_t t = 0; t < shape.tokens; ++t) {
      const int32_t local = with_local ? locals[static_cast<size_t>(t)] : -1;
      const int64_t columns =
          with_local ? std::clamp<int64_t>(local, 0, shape.columns) : shape.columns;
      const int64_t kept = with_local ? shape.top_k - 1 : shape.top_k;
      const float* row = scores.data() + shape.offset + (head * shape.tokens + t) * stride;
      auto expected = best_of(row, columns, kept, local, shape.top_k);
      expected.resize(static_cast<size_t>(id_stride), kGuard);
      const auto* own = got.data() + head * id_stride + t * shape.heads * id_stride;
      for (int64_t n = 0; n < id_stride; ++n) {
        if (own[n] == expected[static_cast<size_t>(n)]) continue;
        return fmt::format("head {} row {} place {}: got {}, expected {} (local {})", head, t, n,
                           own[n], expected[static_cast<size_t>(n)], local);
      }
    }
  }
  return "";
}

}  // namespace

void check_select(Report& report, bool small) {
  std::mt19937 random(7);
  std::vector<Shape> shapes = {
      {1, 3, 200, 16, 0, 0}, {2, 5, 1000, 16, 24, 0}, {1, 2, 5000, 4, 1, 1}};
  if (!small) {
    for (const int64_t columns : {1, 5, 64, 127, 128, 129, 512, 1023, 1024, 2048, 4096, 4100}) {
      for (const int64_t top_k : {1, 4, 16, 17, 32, 33, 64}) {
        shapes.push_back(
            {2, 9, columns, top_k, random() % 2 == 0 ? 0 : 7, random() % 2 == 0 ? 0 : 1});
      }
    }
    shapes.push_back({4, 1500, 333, 16, 3, 0});
    shapes.push_back({1, 1, 32768, 32, 0, 0});
    shapes.push_back({1, 3, 20001, 64, 3, 0});
  }
  for (int kind = 0; kind < static_cast<int>(Kind::kNumKinds); ++kind) {
    std::string problem;
    for (const Shape& shape : shapes) {
      for (const bool with_local : {false, true}) {
        if (!problem.empty()) break;
        problem = problem_of(shape, static_cast<Kind>(kind), with_local, random);
        if (problem.empty()) continue;
        problem += fmt::format(
            " | {} heads, {} rows, {} columns, K {}, gap {}, offset {}, local {}", shape.heads,
            shape.tokens, shape.columns, shape.top_k, shape.gap, shape.offset, with_local);
      }
    }
    report.add(fmt::format("select, scores of kind {}", kind), problem.empty(), problem);
  }
}

}  // namespace msa::test
