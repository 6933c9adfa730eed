// Copy engine and swizzle, the three wgmma forms, softmax in fragments, the order of partial rows,
// and the candidate lists, for every size that the kernels use.
#include "cuda/primitives.h"

#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include "core/element.h"
#include "cuda/device/lists.h"
#include "cuda/device_memory.h"
#include "cuda/host/tensor_map.h"
#include "cuda/sm90/attention_forward/gather.cuh"

namespace msa::test {
namespace {

using namespace msa::cuda;  // NOLINT: everything under test

/// 1. A tile through the copy engine, and the raw bytes of shared memory out again.
template <typename Traits>
__global__ void copy_tile(const __grid_constant__ CUtensorMap map, int token, int head, int page,
                          uint16_t* raw) {
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ uint64_t full;
  if (threadIdx.x == 0) {
    mbarrier_init(&full, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect(&full, Traits::kKeyBytes);
    for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
      tma_load_4d(shared + column * Traits::kBlock * 2, &map, &full, column, token, head, page);
    }
  }
  __syncthreads();
  mbarrier_wait(&full, 0);
  for (int i = threadIdx.x; i < Traits::kKeyBytes / 2; i += blockDim.x) {
    raw[i] = reinterpret_cast<uint16_t*>(shared)[i];
  }
}

/// 2. A 64-row tile gathered as boxes of G rows from tokens 3 n + 1.
template <typename Traits>
__global__ void gather_tile(const __grid_constant__ CUtensorMap map, int group_size, int head,
                            uint16_t* raw) {
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ uint64_t full;
  if (threadIdx.x == 0) {
    mbarrier_init(&full, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect(&full, Traits::kQueryBytes);
    for (int n = 0; n < kTileRows / group_size; ++n) {
      for (int column = 0; column < Traits::kDim; column += kPanelColumns) {
        tma_load_3d(shared + column * kTileRows * 2 + n * group_size * kSwizzleBytes, &map, &full,
                    column, head, 3 * n + 1);
      }
    }
  }
  __syncthreads();
  mbarrier_wait(&full, 0);
  for (int i = threadIdx.x; i < Traits::kQueryBytes / 2; i += blockDim.x) {
    raw[i] = reinterpret_cast<uint16_t*>(shared)[i];
  }
}

/// Puts a row-major matrix into shared memory in the swizzled layout, by ordinary stores.
__device__ void place_tile(uint8_t* shared, const uint16_t* matrix, int rows, int columns) {
  for (int i = threadIdx.x; i < rows * columns; i += blockDim.x) {
    *reinterpret_cast<uint16_t*>(shared + swizzled_offset(rows, i / columns, i % columns)) =
        matrix[i];
  }
}

/// 3. a [64, D] b [B, D]^T three ways: both from shared memory; a from registers; and then
/// softmax rows times values [B, D], written in the order of partial rows.
template <typename Traits>
__global__ void __launch_bounds__(128, 1)
    products(const uint16_t* a, const uint16_t* b, const uint16_t* v, float scale,
             float* from_shared, float* from_registers, uint16_t* partial, float* lse2) {
  using Element = typename Traits::Element;
  extern __shared__ __align__(1024) uint8_t shared[];
  uint8_t* queries = shared;
  uint8_t* keys = queries + Traits::kQueryBytes;
  uint8_t* values = keys + Traits::kKeyBytes;
  place_tile(queries, a, kTileRows, Traits::kDim);
  place_tile(keys, b, Traits::kBlock, Traits::kDim);
  place_tile(values, v, Traits::kBlock, Traits::kDim);
  fence_async_proxy();
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.x);
  {
    float again[Traits::kBlock / 2];
    uint32_t q[Traits::kDim / 16][4];
#pragma unroll
    for (int k = 0; k < Traits::kDim / 16; ++k) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        q[k][r] = *reinterpret_cast<const uint32_t*>(a + operand_row(thread, r) * Traits::kDim +
                                                     k * 16 + operand_column(thread, r));
      }
    }
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < Traits::kDim / 16; ++k) {
      Wgmma<Element, Traits::kBlock>::register_rows(
          again, q[k], row_operand(shared_address(keys), Traits::kBlock, k * 16), k > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(again);
#pragma unroll
    for (int i = 0; i < Traits::kBlock / 2; ++i) {
      from_registers[accumulator_row(thread, i) * Traits::kBlock + accumulator_column(thread, i)] =
          again[i];
    }
  }

  float scores[Traits::kBlock / 2];
  multiply_keys<Traits>(scores, shared_address(queries), shared_address(keys));
#pragma unroll
  for (int i = 0; i < Traits::kBlock / 2; ++i) {
    from_shared[accumulator_row(thread, i) * Traits::kBlock + accumulator_column(thread, i)] =
        scores[i];
  }
  uint32_t weights[Traits::kBlock / 16][4];
  float largest2[2];
  float sum[2];
  float out[Traits::kDim / 2];
  softmax_tile<Element>(scores, scale * kLog2E, weights, largest2, sum);
  multiply_values<Traits>(out, weights, shared_address(values));
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = accumulator_row(thread, 2 * half);
    store_partial<Traits>(out, half, 1.0f / sum[half], partial + row * Traits::kDim);
    if (thread % 4 == 0) lse2[row] = largest2[half] + __log2f(sum[half]);
  }
}

/// 4. One warp, 32 rows: the best `kept` of `count` scores each.
__global__ void lists_of_rows(const float* scores, int count, int kept, int32_t* ids) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto* words = reinterpret_cast<uint32_t*>(shared);
  const int slots = list_slots(kept);
  const CandidateLists<32> lists = {words, words + 32 * slots, nullptr, slots, kept};
  const int row = static_cast<int>(threadIdx.x);
  ListState list = clear_list(lists, row);
  for (int block = 0; block < count; ++block) {
    const uint32_t key = ordered_score(__float_as_uint(scores[row * count + block]));
    if (key <= list.threshold) continue;
    if (list.threshold == kNoCandidate) {
      append_entry(lists, row, list, key, block, 0);
    } else {
      replace_worst(lists, row, list, key, block, 0);
    }
  }
  const int entries = list_count(lists, list);
  for (int n = 0; n < kept; ++n) {
    const int slot = lists.first_slot() + n;
    ids[row * kept + n] =
        n < entries ? static_cast<int32_t>(lists.ids[lists.place(slot, row)]) : -1;
  }
}

std::vector<uint16_t> random_elements(std::mt19937& random, DType dtype, size_t count,
                                      float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<uint16_t> values(count);
  for (size_t i = 0; i < count; ++i) {
    core::store_element(values.data(), dtype, static_cast<int64_t>(i), normal(random));
  }
  return values;
}

void finish() {
  check_cuda("primitives", cudaGetLastError());
  check_cuda("primitives", cudaDeviceSynchronize());
}

template <typename Kernel>
void allow_shared(Kernel kernel, int bytes) {
  check_cuda("primitives",
             cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

std::string first_difference(size_t wrong, size_t total, const std::string& where) {
  return wrong == 0
             ? ""
             : std::to_string(wrong) + " of " + std::to_string(total) + " wrong, first at " + where;
}

template <typename Traits>
void check_copies(Report& report, const std::string& name, DType dtype, std::mt19937& random) {
  constexpr int kTokens = 5 * Traits::kBlock;
  constexpr int kHeads = 16;
  const auto host = random_elements(random, dtype, size_t{kTokens} * kHeads * Traits::kDim, 1);
  DeviceMemory device(host.size() * 2);
  device.upload(host.data(), host.size() * 2);
  DeviceMemory raw(Traits::kKeyBytes);

  // Tokens from no multiple of anything, then across the end of the tensor: zeros.
  core::KeyParams keys;
  keys.data = device.data();
  keys.dtype = dtype;
  keys.token_stride = kHeads * Traits::kDim;
  keys.head_stride = Traits::kDim;
  keys.num_rows = kTokens;
  const CUtensorMap map =
      key_map("primitives", "k", keys, {}, kHeads, Traits::kDim, Traits::kBlock);
  allow_shared(copy_tile<Traits>, Traits::kKeyBytes + 1024);
  for (const int token : {37, kTokens - Traits::kBlock / 2}) {
    copy_tile<Traits>
        <<<1, 128, Traits::kKeyBytes>>>(map, token, 3, 0, static_cast<uint16_t*>(raw.data()));
    finish();
    const auto got = raw.download<uint16_t>(Traits::kKeyBytes / 2);
    size_t wrong = 0;
    std::string where;
    for (int row = 0; row < Traits::kBlock; ++row) {
      for (int column = 0; column < Traits::kDim; ++column) {
        const size_t at = (static_cast<size_t>(token + row) * kHeads + 3) * Traits::kDim +
                          static_cast<size_t>(column);
        const uint16_t expected = token + row < kTokens ? host[at] : uint16_t{0};
        const int place = swizzled_offset(Traits::kBlock, row, column) / 2;
        if (got[static_cast<size_t>(place)] != expected && wrong++ == 0) {
          where = "row " + std::to_string(row) + " column " + std::to_string(column);
        }
      }
    }
    report.add(name + " copy of a block at token " + std::to_string(token), wrong == 0,
               first_difference(wrong, got.size(), where));
  }

  for (int group_size = 1; group_size <= 16; group_size *= 2) {
    core::AttentionForwardParams params;
    params.q = device.data();
    params.q_dtype = dtype;
    params.q_token_stride = kHeads * Traits::kDim;
    params.q_head_stride = Traits::kDim;
    params.num_q_heads = kHeads;
    params.head_dim = Traits::kDim;
    params.sequences.num_query_tokens = kTokens;
    const CUtensorMap q_map = query_map("primitives", params, group_size, 1);
    const int head = kHeads - group_size;
    DeviceMemory tile(Traits::kQueryBytes);
    gather_tile<Traits><<<1, 128, Traits::kQueryBytes>>>(q_map, group_size, head,
                                                         static_cast<uint16_t*>(tile.data()));
    finish();
    const auto got = tile.download<uint16_t>(Traits::kQueryBytes / 2);
    size_t wrong = 0;
    std::string where;
    for (int row = 0; row < kTileRows; ++row) {
      for (int column = 0; column < Traits::kDim; ++column) {
        const int token = 3 * (row / group_size) + 1;
        const size_t at =
            (static_cast<size_t>(token) * kHeads + static_cast<size_t>(head + row % group_size)) *
                Traits::kDim +
            static_cast<size_t>(column);
        const int place = swizzled_offset(kTileRows, row, column) / 2;
        if (got[static_cast<size_t>(place)] != host[at] && wrong++ == 0) {
          where = "row " + std::to_string(row) + " column " + std::to_string(column);
        }
      }
    }
    report.add(name + " gather of " + std::to_string(group_size) + " heads a query", wrong == 0,
               first_difference(wrong, got.size(), where));
  }
}

template <typename Traits>
void check_products(Report& report, const std::string& name, DType dtype, std::mt19937& random) {
  constexpr int kD = Traits::kDim;
  constexpr int kB = Traits::kBlock;
  const auto a = random_elements(random, dtype, size_t{kTileRows} * kD, 1);
  const auto b = random_elements(random, dtype, size_t{kB} * kD, 1);
  const auto v = random_elements(random, dtype, size_t{kB} * kD, 1);
  DeviceMemory da(a.size() * 2), db(b.size() * 2), dv(v.size() * 2);
  da.upload(a.data(), a.size() * 2);
  db.upload(b.data(), b.size() * 2);
  dv.upload(v.data(), v.size() * 2);
  DeviceMemory shared_scores(kTileRows * kB * 4), register_scores(kTileRows * kB * 4);
  DeviceMemory partial(kTileRows * kD * 2), lse2(kTileRows * 4);
  const float scale = 1.0f / std::sqrt(static_cast<float>(kD));
  constexpr int kBytes = Traits::kQueryBytes + 2 * Traits::kKeyBytes;
  allow_shared(products<Traits>, kBytes);
  products<Traits><<<1, 128, kBytes>>>(
      static_cast<uint16_t*>(da.data()), static_cast<uint16_t*>(db.data()),
      static_cast<uint16_t*>(dv.data()), scale, static_cast<float*>(shared_scores.data()),
      static_cast<float*>(register_scores.data()), static_cast<uint16_t*>(partial.data()),
      static_cast<float*>(lse2.data()));
  finish();
  const auto got_shared = shared_scores.download<float>(kTileRows * kB);
  const auto got_registers = register_scores.download<float>(kTileRows * kB);
  const auto got_partial = partial.download<uint16_t>(kTileRows * kD);
  const auto got_lse2 = lse2.download<float>(kTileRows);
  double worst[4] = {};
  for (int row = 0; row < kTileRows; ++row) {
    std::vector<double> dots(kB);
    double largest = -1e300;
    for (int j = 0; j < kB; ++j) {
      for (int d = 0; d < kD; ++d) {
        dots[static_cast<size_t>(j)] +=
            static_cast<double>(core::load_element(a.data(), dtype, row * kD + d)) *
            static_cast<double>(core::load_element(b.data(), dtype, j * kD + d));
      }
      const double dot = dots[static_cast<size_t>(j)];
      const auto at = static_cast<size_t>(row * kB + j);
      worst[0] = std::max(worst[0], std::abs(dot - static_cast<double>(got_shared[at])));
      worst[1] = std::max(worst[1], std::abs(dot - static_cast<double>(got_registers[at])));
      largest = std::max(largest, dot * static_cast<double>(scale));
    }
    double sum = 0;
    for (const double dot : dots) sum += std::exp(dot * static_cast<double>(scale) - largest);
    worst[3] =
        std::max(worst[3], std::abs((largest + std::log(sum)) / std::log(2.0) -
                                    static_cast<double>(got_lse2[static_cast<size_t>(row)])));
    for (int d = 0; d < kD; ++d) {
      double out = 0;
      for (int j = 0; j < kB; ++j) {
        out += std::exp(dots[static_cast<size_t>(j)] * static_cast<double>(scale) - largest) / sum *
               static_cast<double>(core::load_element(v.data(), dtype, j * kD + d));
      }
      const float got = core::load_element(got_partial.data(), dtype, row * kD + partial_place(d));
      worst[2] = std::max(worst[2], std::abs(out - static_cast<double>(got)));
    }
  }
  const double bounds[4] = {1e-4 * kD / 16, 1e-4 * kD / 16, 1e-2, 1e-4};
  const char* names[4] = {"scores, both from shared memory", "scores, queries from registers",
                          "softmax and values", "lse"};
  for (int i = 0; i < 4; ++i) {
    char text[64];
    std::snprintf(text, sizeof text, "largest error %.3g, allowed %.3g", worst[i], bounds[i]);
    report.add(name + " " + names[i], worst[i] <= bounds[i], text);  // false for NaN
  }
}

void check_lists(Report& report, std::mt19937& random) {
  for (const int top_k : {1, 4, 8, 16, 32}) {
    constexpr int kCount = 300;
    const int kept = top_k - 1;
    constexpr int kRows = 32;
    std::vector<float> scores(kRows * kCount);
    for (float& score : scores) {  // many ties, both zeros, both infinities
      const int draw = std::uniform_int_distribution<int>(-6, 6)(random);
      score = draw == 6 ? INFINITY : draw == -6 ? -INFINITY : static_cast<float>(draw) * 0.5f;
      if (draw == 0 && random() % 2 == 0) score = -0.0f;
    }
    for (int b = 0; b < kCount; ++b) {  // every block enters, none does, all are equal
      scores[static_cast<size_t>(b)] = static_cast<float>(b) - 150;
      scores[static_cast<size_t>(kCount + b)] = static_cast<float>(150 - b);
      scores[static_cast<size_t>(2 * kCount + b)] = -INFINITY;
    }
    DeviceMemory device(scores.size() * 4), ids(kRows * 32 * 4);
    device.upload(scores.data(), scores.size() * 4);
    lists_of_rows<<<1, 32, kRows * 32 * 8>>>(static_cast<float*>(device.data()), kCount, kept,
                                             static_cast<int32_t*>(ids.data()));
    finish();
    const auto got = ids.download<int32_t>(static_cast<size_t>(kRows * std::max(kept, 1)));
    size_t wrong = 0;
    for (int row = 0; row < kRows; ++row) {
      std::vector<bool> taken(kCount);
      for (int n = 0; n < kept; ++n) {
        int best = -1;
        for (int b = 0; b < kCount; ++b) {
          if (!taken[static_cast<size_t>(b)] &&
              (best < 0 || scores[static_cast<size_t>(row * kCount + b)] >
                               scores[static_cast<size_t>(row * kCount + best)])) {
            best = b;
          }
        }
        taken[static_cast<size_t>(best)] = true;
      }
      int n = 0;
      for (int b = 0; b < kCount; ++b) {
        if (!taken[static_cast<size_t>(b)]) continue;
        if (got[static_cast<size_t>(row * kept + n++)] != b) ++wrong;
      }
    }
    report.add("lists with top-k " + std::to_string(top_k), wrong == 0,
               first_difference(wrong, static_cast<size_t>(kRows * kept), "some row"));
  }
}

template <typename Element, int kDim, int kBlock>
void check_size(Report& report, DType dtype, std::mt19937& random) {
  using Traits = AttentionTraits<Element, kDim, kBlock>;
  const std::string name = std::string(dtype_name(dtype)) + " D " + std::to_string(kDim) + " B " +
                           std::to_string(kBlock);
  check_copies<Traits>(report, name, dtype, random);
  check_products<Traits>(report, name, dtype, random);
}

}  // namespace

void check_primitives(Report& report) {
  std::mt19937 random(5);
  check_lists(report, random);
  check_size<__nv_bfloat16, 128, 128>(report, DType::kBFloat16, random);
  check_size<__nv_bfloat16, 64, 64>(report, DType::kBFloat16, random);
  check_size<__half, 128, 64>(report, DType::kFloat16, random);
  check_size<__half, 64, 128>(report, DType::kFloat16, random);
}

}  // namespace msa::test
