// Adds the planes of the parts up, in their order, and writes the gradients of keys.
//
// A task is 256 keys of one request and head: bound by memory, 4 bytes read for each part, head and
// element.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/key_gradients.cpp"
#include "cpu/targets.h"
// Targets come first: this header includes the file once for each.
#include "hwy/foreach_target.h"

#include "cpu/key_gradients.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::cpu::HWY_NAMESPACE {

/// Keys [begin, end) of the pack and one head of the output, from planes [0, num_parts).
void merge_keys(const KeyGradients& gradients, int64_t num_parts, int64_t head, int64_t begin,
                int64_t end) {
  const Floats d;
  const KeyPlanes& planes = gradients.planes;
  const int64_t first_head = gradients.over_heads ? 0 : head;
  const int64_t past_head = gradients.over_heads ? planes.num_heads : head + 1;
  for (int64_t key = begin; key < end; ++key) {
    float* const sums = planes.row(0, first_head, key);
    if (num_parts == 0) {
      std::memset(sums, 0, static_cast<size_t>(planes.columns) * sizeof(float));
    }
    for (int64_t part = 0; part < num_parts; ++part) {
      for (int64_t from = first_head; from < past_head; ++from) {
        const float* more = planes.row(part, from, key);
        if (more == sums) continue;
        for (int64_t c = 0; c < planes.columns; c += static_cast<int64_t>(kLanes)) {
          hn::StoreU(hn::Add(hn::LoadU(d, sums + c), hn::LoadU(d, more + c)), d, sums + c);
        }
      }
    }
    store_row(sums, gradients.factor, static_cast<size_t>(gradients.dim), gradients.to.data,
              gradients.to.dtype, gradients.to.offset(key, head));
  }
}

}  // namespace msa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa::cpu {
namespace {

HWY_EXPORT(merge_keys);

constexpr int64_t kMergeKeys = 256;

}  // namespace

TaskTable gradient_tasks(const core::SequenceParams& sequences, const GradientPlan& plan,
                         int64_t num_kv_heads, int64_t* task_begin) {
  TaskTable tasks(task_begin, 0);
  for (int64_t r = 0; r < sequences.batch; ++r) {
    tasks.append(plan.num_parts(sequences.query_length(r)) * num_kv_heads);
  }
  return tasks;
}

GradientTask gradient_task(const core::SequenceParams& sequences, const GradientPlan& plan,
                           int64_t num_kv_heads, const TaskTable& tasks, int64_t task) {
  int64_t within = 0;
  const Request request = request_at(sequences, tasks.find(task, &within));
  return {request, within % num_kv_heads, within / num_kv_heads,
          plan.num_parts(request.num_queries)};
}

void write_key_gradients(const KeyGradients& gradients, const core::SequenceParams& sequences,
                         const GradientPlan& plan, int64_t* task_begin,
                         const core::RunContext& run) {
  const int64_t heads = gradients.over_heads ? 1 : gradients.planes.num_heads;
  TaskTable tasks(task_begin, 0);
  for (int64_t r = 0; r < sequences.batch; ++r) {
    tasks.append(divide_up(sequences.key_length(r), kMergeKeys) * heads);
  }
  const auto kernel = HWY_DYNAMIC_DISPATCH(merge_keys);
  (*run.parallel_for)(tasks.total(), [&](int64_t task, int) {
    int64_t within = 0;
    const Request request = request_at(sequences, tasks.find(task, &within));
    const int64_t first = sequences.cu_seqlens_k[request.index];
    const int64_t begin = first + within / heads * kMergeKeys;
    kernel(gradients, plan.num_parts(request.num_queries), within % heads, begin,
           std::min(begin + kMergeKeys, first + request.num_keys));
  });
  write_zero_rows(gradients.to, sequences.cu_seqlens_k[sequences.batch], gradients.planes.num_keys,
                  heads, gradients.dim);
}

void write_zero_rows(const core::RowsParams<void*>& to, int64_t begin, int64_t end,
                     int64_t num_heads, int64_t dim) {
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t h = 0; h < num_heads; ++h) {
      const int64_t offset = to.offset(t, h);
      for (int64_t d = 0; d < dim; ++d) core::store_element(to.data, to.dtype, offset + d, 0);
    }
  }
}

}  // namespace msa::cpu
#endif  // HWY_ONCE
