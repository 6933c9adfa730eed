// Contexts, the caller's thread pool, and the capability query.
#include <memory>
#include <utility>

#include "c_api/guard.h"
#include "core/parallel.h"

namespace msa::c_api {
namespace {

constexpr const char* kOp = "context";
constexpr const char* kSupports = "supports";

static_assert(MSA_INDEX_FORWARD == static_cast<int>(Op::kIndexForward));
static_assert(MSA_ATTENTION_FORWARD == static_cast<int>(Op::kAttentionForward));
static_assert(MSA_DENSE_ATTENTION_FORWARD == static_cast<int>(Op::kDenseAttentionForward));
static_assert(MSA_INDEX_CANDIDATES == static_cast<int>(Op::kIndexCandidates));
static_assert(MSA_MERGE_CANDIDATES == static_cast<int>(Op::kMergeCandidates));
static_assert(MSA_MERGE_STATES == static_cast<int>(Op::kMergeStates));
static_assert(MSA_CACHE_APPEND == static_cast<int>(Op::kCacheAppend));
static_assert(MSA_COPY_PAGES == static_cast<int>(Op::kCopyPages));
static_assert(MSA_ATTENTION_BACKWARD == static_cast<int>(Op::kAttentionBackward));
static_assert(MSA_DENSE_ATTENTION_BACKWARD == static_cast<int>(Op::kDenseAttentionBackward));
static_assert(MSA_KL_FORWARD_BACKWARD == static_cast<int>(Op::kKlForwardBackward));
static_assert(MSA_RECALL == static_cast<int>(Op::kRecall));
static_assert(MSA_SELECT_BLOCKS == static_cast<int>(Op::kSelectBlocks));

/// C counts from 1 because 0 is the default.
std::optional<Backend> backend_of(msa_backend backend) {
  switch (backend) {
    case MSA_BACKEND_DEFAULT:
      return std::nullopt;
    case MSA_BACKEND_REFERENCE:
      return Backend::kReference;
    case MSA_BACKEND_CPU:
      return Backend::kCpu;
    case MSA_BACKEND_CUDA:
      return Backend::kCuda;
    default:
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("[{}] backend is unknown: got {}, allowed 0 to 3", kOp, backend));
  }
}

/// One parallel loop while the caller's pool runs it.
struct Loop {
  const std::function<void(int64_t, int)>& body;
  int64_t num_tasks;
  int num_workers;
  core::FirstException failure = {};
  std::atomic<int64_t> num_done = 0;

  void run(int64_t task, int32_t worker) noexcept {
    failure.guard([&] {
      core::check(task >= 0 && task < num_tasks, kOp,
                  "parallel_for ran a task that is none: got {}, allowed 0 to {}", task,
                  num_tasks - 1);
      core::check(worker >= 0 && worker < num_workers, kOp,
                  "parallel_for named a worker that is none: got {}, allowed 0 to {}", worker,
                  num_workers - 1);
      body(task, worker);
    });
    num_done.fetch_add(1, std::memory_order_relaxed);
  }
};

extern "C" void run_task(void* loop, int64_t task, int32_t worker) {
  static_cast<Loop*>(loop)->run(task, worker);
}

ParallelFor pool_of(msa_parallel_for parallel_for, void* pool, int num_workers) {
  return [=](int64_t num_tasks, const std::function<void(int64_t, int)>& body) {
    if (num_tasks <= 0) return;
    Loop loop = {body, num_tasks, num_workers};
    parallel_for(pool, num_tasks, run_task, &loop);
    loop.failure.rethrow();
    core::check(loop.num_done == num_tasks, kOp,
                "parallel_for did not run every task once: got {} runs, allowed {}",
                loop.num_done.load(), num_tasks);
  };
}

Context make_context(const msa_context_options* given) {
  if (given == nullptr) return Context();
  const msa_context_options known = read_struct(kOp, "options", given);
  ContextOptions options = {.backend = backend_of(known.backend), .num_threads = known.num_threads};
  if (known.parallel_for != nullptr) {
    // The pool is told the number of threads of the context, whatever it comes from.
    options.num_threads = Context(options).num_threads();
    options.parallel_for = pool_of(known.parallel_for, known.pool, options.num_threads);
  }
  return Context(std::move(options));
}

}  // namespace
}  // namespace msa::c_api

using msa::c_api::check_pointer;
using msa::c_api::guarded;

msa_status msa_context_create(const msa_context_options* options, msa_context** context) {
  return guarded([&] {
    check_pointer(msa::c_api::kOp, "context", context);
    *context = nullptr;
    auto made = std::make_unique<msa_context>(
        msa_context{.context = msa::c_api::make_context(options), .description = {}});
    made->description = made->context.description();
    *context = made.release();
  });
}

void msa_context_destroy(msa_context* context) { delete context; }

msa_backend msa_context_backend(const msa_context* context) {
  if (context == nullptr) return MSA_BACKEND_DEFAULT;
  return static_cast<msa_backend>(context->context.backend()) + 1;
}

int32_t msa_context_num_threads(const msa_context* context) {
  return context == nullptr ? 0 : context->context.num_threads();
}

const char* msa_context_description(const msa_context* context) {
  return context == nullptr ? "" : context->description.c_str();
}

const char* msa_op_name(msa_op op) { return msa::op_name(static_cast<msa::Op>(op)); }

msa_status msa_supports(const msa_context* context, msa_op op, const msa_geometry* geometry,
                        msa_dtype dtype) {
  return guarded([&] {
    const msa::Context& known = msa::c_api::context_of(msa::c_api::kSupports, context);
    const msa_geometry sizes = msa::c_api::read_struct(msa::c_api::kSupports, "geometry", geometry);
    msa::core::check(op >= MSA_INDEX_FORWARD && op <= MSA_SELECT_BLOCKS, msa::c_api::kSupports,
                     "op is unknown: got {}, allowed 0 to {}", op,
                     static_cast<int>(MSA_SELECT_BLOCKS));
    msa::core::check_supported(known, static_cast<msa::Op>(op),
                               {.num_q_heads = sizes.num_q_heads,
                                .num_kv_heads = sizes.num_kv_heads,
                                .head_dim = sizes.head_dim,
                                .block_size = sizes.block_size,
                                .top_k = sizes.top_k},
                               static_cast<msa::DType>(dtype));
  });
}
