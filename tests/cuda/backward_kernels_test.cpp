// All kernels of attention's backward, run on the host (emulation.h) with stand-ins for the copy
// engine, the barriers and the tensor cores, against the reference: requests of all lengths, rows
// without a position, hostile ids, NaN wherever no token lies.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/element.h"
#include "cuda/host/backward_params.h"
#include "cuda/host/config.h"
#include "cuda/sm90/attention_backward/finish.cu"
#include "cuda/sm90/attention_backward/visit_blocks.cuh"
#include "cuda/sm90/attention_forward/plan.cu"
#include "library/cases.h"
#include "library/compare.h"

namespace msa::cuda {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Shape {
  DType dtype;
  int64_t kv_heads, group, dim, block, top_k;
  bool with_dlse;
};

test::CaseSpec make_spec(const Shape& shape) {
  test::CaseSpec spec;
  spec.q_dtype = spec.kv_dtype = shape.dtype;
  spec.kv_heads = shape.kv_heads;
  spec.group = shape.group;
  spec.head_dim = spec.index_dim = shape.dim;
  spec.block_size = shape.block;
  spec.top_k = shape.top_k;
  spec.q_lens = {21, 1, 0, 10, 30};
  spec.k_lens = {330, 200, 0, 10, 17};  // 13 rows of the last have no position
  spec.padded_rows = 3;
  spec.stride_gap = 8;
  spec.seed = 5;
  return spec;
}

/// Any blocks, in any order, with repeats, ids out of range and early ends.
std::vector<int32_t> make_ids(const test::CaseSpec& spec, int64_t rows, std::mt19937& random) {
  std::vector<int32_t> ids;
  const auto blocks = static_cast<uint32_t>(330 / spec.block_size + 2);
  for (int64_t n = 0; n < spec.kv_heads * rows * spec.top_k; ++n) {
    const uint32_t kind = random() % 16;
    int32_t id = static_cast<int32_t>(random() % blocks);
    if (kind == 0) id = -1;
    if (kind == 1) id = std::numeric_limits<int32_t>::max();
    if (kind == 2) id = -2;
    ids.push_back(id);
  }
  return ids;
}

/// Rows of 16-bit elements with the strides of a packed tensor.
struct Rows {
  test::Buffer buffer;
  int64_t heads, dim;
  Rows(DType dtype, int64_t rows, int64_t num_heads, int64_t width) : heads(num_heads), dim(width) {
    buffer.allocate(dtype, rows * heads * dim);
  }
  MutableTensor view() {
    const auto rows = static_cast<int64_t>(buffer.bytes.size()) / 2 / heads / dim;
    return {buffer.bytes.data(), buffer.dtype, {rows, heads, dim}};
  }
  template <typename Pointer>
  core::RowsParams<Pointer> params() {
    return {buffer.bytes.data(), buffer.dtype, heads * dim, dim};
  }
  std::vector<float> floats() const {
    std::vector<float> values;
    for (size_t n = 0; n < buffer.bytes.size() / 2; ++n) {
      values.push_back(buffer.get(static_cast<int64_t>(n)));
    }
    return values;
  }
};

CUtensorMap view_map(const Tensor& view, int64_t box_heads, int64_t box_tokens, bool heads_first) {
  CUtensorMap map;
  map.data = static_cast<const uint16_t*>(view.data);
  map.extents[0] = view.shape[2];
  map.box[0] = kPanelColumns;
  const int heads = heads_first ? 1 : 2;
  map.extents[heads] = view.shape[1];
  map.strides[heads] = view.stride[1];
  map.box[heads] = box_heads;
  map.extents[3 - heads] = view.shape[0];
  map.strides[3 - heads] = view.stride[0];
  map.box[3 - heads] = box_tokens;
  return map;
}

template <typename Traits>
void run_visits(const BackwardKernelParams& params, const CUtensorMap (&maps)[4]) {
  // Not zeros, and no barrier that could be waited for.
  std::fill_n(emulation::shared_memory(), emulation::kSharedBytes, uint8_t{0xFF});
  launch_overlapped(sm90_attention_backward<Traits>, 3, BackwardLayout<Traits>::kThreads, 0,
                    nullptr, maps[0], maps[1], maps[2], maps[3], params);
}

template <typename Element>
void run_visits_of(const BackwardKernelParams& params, const CUtensorMap (&maps)[4]) {
  const bool wide = params.plan.op.head_dim == 128;
  if (params.plan.op.block_size == 128) {
    wide ? run_visits<BackwardTraits<Element, 128, 128>>(params, maps)
         : run_visits<BackwardTraits<Element, 64, 128>>(params, maps);
  } else {
    wide ? run_visits<BackwardTraits<Element, 128, 64>>(params, maps)
         : run_visits<BackwardTraits<Element, 64, 64>>(params, maps);
  }
}

void check(const Shape& shape, unsigned seed) {
  emulation::set_seed(seed);
  const test::Case batch(make_spec(shape));
  const Context reference({.backend = Backend::kReference, .num_threads = 2});
  const int64_t rows = batch.num_rows;
  const int64_t keys = batch.k.shape[0];
  const int64_t heads = shape.kv_heads * shape.group;
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const std::vector<int32_t> ids = make_ids(batch.spec, rows, random);

  // The forward, and the law.
  AttentionBackwardArgs args;
  args.q = batch.q;
  args.k = batch.k;
  args.v = batch.v;
  args.sequences = batch.sequences;
  args.block_size = shape.block;
  args.block_ids = Tensor(ids.data(), DType::kInt32, {shape.kv_heads, rows, shape.top_k});
  Rows out(shape.dtype, rows, heads, shape.dim);
  Rows dout(shape.dtype, rows, heads, shape.dim);
  std::vector<float> lse(static_cast<size_t>(rows * heads), kNaN);
  std::vector<float> dlse(lse.size());
  for (int64_t n = 0; n < rows * heads * shape.dim; ++n) dout.buffer.set(n, normal(random));
  for (float& value : dlse) value = normal(random);
  AttentionForwardArgs forward;
  forward.q = args.q;
  forward.k = args.k;
  forward.v = args.v;
  forward.sequences = args.sequences;
  forward.block_size = args.block_size;
  forward.block_ids = args.block_ids;
  forward.out = out.view();
  forward.lse = MutableTensor(lse.data(), DType::kFloat32, {rows, heads});
  attention_forward(reference, forward, {});
  args.out = out.view();
  args.lse = Tensor(lse.data(), DType::kFloat32, {rows, heads});
  args.dout = dout.view();
  if (shape.with_dlse) args.dlse = Tensor(dlse.data(), DType::kFloat32, {rows, heads});
  Rows law[3] = {Rows(shape.dtype, rows, heads, shape.dim),
                 Rows(shape.dtype, keys, shape.kv_heads, shape.dim),
                 Rows(shape.dtype, keys, shape.kv_heads, shape.dim)};
  args.dq = law[0].view();
  args.dk = law[1].view();
  args.dv = law[2].view();
  attention_backward(reference, args, {});

  // The kernels, in two plans.
  Rows got[3] = {Rows(shape.dtype, rows, heads, shape.dim),
                 Rows(shape.dtype, keys, shape.kv_heads, shape.dim),
                 Rows(shape.dtype, keys, shape.kv_heads, shape.dim)};
  core::AttentionBackwardParams op;
  core::AttentionForwardParams& f = op.forward;
  f.q = batch.q.data;
  f.q_dtype = shape.dtype;
  f.q_token_stride = batch.q.stride[0];
  f.q_head_stride = batch.q.stride[1];
  f.k = {batch.k.data, shape.dtype, 0, batch.k.stride[0], batch.k.stride[1], keys};
  f.v = {batch.v.data, shape.dtype, 0, batch.v.stride[0], batch.v.stride[1], keys};
  f.sequences.cu_seqlens_q = static_cast<const int32_t*>(batch.sequences.cu_seqlens_q.data);
  f.sequences.cu_seqlens_k = static_cast<const int32_t*>(batch.sequences.cu_seqlens_k.data);
  f.sequences.batch = batch.sequences.cu_seqlens_q.shape[0] - 1;
  f.sequences.num_query_tokens = rows;
  f.num_q_heads = heads;
  f.num_kv_heads = shape.kv_heads;
  f.head_dim = shape.dim;
  f.block_size = shape.block;
  f.scale = 1 / std::sqrt(static_cast<float>(shape.dim));
  f.block_ids = {ids.data(), rows * shape.top_k, shape.top_k, shape.top_k};
  op.out = out.params<const void*>();
  op.dout = dout.params<const void*>();
  op.lse = {lse.data(), DType::kFloat32, heads, 1};
  if (shape.with_dlse) op.dlse = {dlse.data(), DType::kFloat32, heads, 1};
  backward_tuning() = {.most_chunk_rows = 32, .most_plan_chunks = 2, .item_visits = 32};
  BackwardKernelParams params;
  const size_t bytes = backward_kernel_params(op, nullptr, &params);
  std::vector<float> workspace(bytes / sizeof(float) + 64, kNaN);
  const auto address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(workspace.data()));
  backward_kernel_params(
      op, reinterpret_cast<char*>(workspace.data()) + (round_up(address, 256) - address), &params);
  const int64_t key_sums = keys * shape.kv_heads * shape.dim;
  ASSERT_EQ(launch_backward_zero(params.dk_sums, key_sums, nullptr), cudaSuccess);
  ASSERT_EQ(launch_backward_zero(params.dv_sums, key_sums, nullptr), cudaSuccess);
  const Tensor douts(dout.buffer.bytes.data(), shape.dtype, {rows, heads, shape.dim});
  const CUtensorMap maps[4] = {
      view_map(batch.q, shape.group, 1, true), view_map(douts, shape.group, 1, true),
      view_map(batch.k, 1, shape.block, false), view_map(batch.v, 1, shape.block, false)};
  AttentionKernelParams& plan = params.plan;
  const int64_t plan_rows = pick_backward_config(op).plan_rows();
  ASSERT_LT(plan_rows, rows);  // two plans
  for (plan.plan_begin = 0; plan.plan_begin < rows; plan.plan_begin = plan.plan_end) {
    plan.plan_end = std::min(rows, plan.plan_begin + plan_rows);
    const int64_t count = plan.plan_end - plan.plan_begin;
    params.num_passes = static_cast<int>(ceil_div(count, plan.chunk_rows)) * plan.num_ranges;
    ASSERT_EQ(launch_backward_zero(params.dq_sums, count * heads * shape.dim, nullptr),
              cudaSuccess);
    ASSERT_EQ(launch_backward_statistics(params, shape.dtype, nullptr), cudaSuccess);
    ASSERT_EQ(launch_attention_plan(plan, nullptr), cudaSuccess);
    shape.dtype == DType::kBFloat16 ? run_visits_of<__nv_bfloat16>(params, maps)
                                    : run_visits_of<__half>(params, maps);
    FinishParams finish = {params.dq_sums,
                           got[0].params<void*>(),
                           plan.plan_begin,
                           count,
                           static_cast<int>(shape.kv_heads),
                           static_cast<int>(shape.group),
                           static_cast<int>(shape.dim),
                           f.scale};
    ASSERT_EQ(launch_backward_finish(finish, nullptr), cudaSuccess);
  }
  for (int n = 1; n < 3; ++n) {
    FinishParams finish = {n == 1 ? params.dk_sums : params.dv_sums,
                           got[n].params<void*>(),
                           0,
                           keys,
                           static_cast<int>(shape.kv_heads),
                           1,
                           static_cast<int>(shape.dim),
                           n == 1 ? f.scale : 1.0f};
    ASSERT_EQ(launch_backward_finish(finish, nullptr), cudaSuccess);
  }
  const char* names[3] = {"dq", "dk", "dv"};
  for (int n = 0; n < 3; ++n) {
    const test::Comparison result =
        test::compare(got[n].floats(), law[n].floats(), {5e-2, 2e-2, 1e-2});
    EXPECT_TRUE(result.ok) << names[n] << ": " << result.message;
  }
}

TEST(BackwardKernels, GradientsAreTheReferences) {
  unsigned seed = 1;
  for (const Shape& shape : {Shape{DType::kBFloat16, 2, 16, 128, 128, 3, false},
                             Shape{DType::kBFloat16, 1, 8, 64, 128, 3, true},
                             Shape{DType::kFloat16, 1, 4, 128, 64, 5, true},
                             Shape{DType::kFloat16, 2, 1, 64, 64, 5, false}}) {
    SCOPED_TRACE(seed);
    check(shape, seed++);
    if (HasFatalFailure()) return;
  }
}

TEST(BackwardKernels, PlacesOfSumsAreAPermutation) {
  for (const int heads : {1, 2, 16}) {
    for (const int dim : {64, 128}) {
      std::vector<int> seen(static_cast<size_t>(heads * dim), 0);
      for (int head = 0; head < heads; ++head) {
        for (int column = 0; column < dim; ++column) {
          ++seen[static_cast<size_t>(sum_place(heads, head, column))];
        }
      }
      EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), heads * dim);
    }
  }
}

}  // namespace
}  // namespace msa::cuda
