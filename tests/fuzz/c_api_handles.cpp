#include "fuzz/c_api_handles.h"

#include <algorithm>

#include "fuzz/c_api_call.h"

namespace msa::fuzz {
namespace {

/// Runs the tasks from last to first under changing names, as a pool of three threads might.
void run_backwards(void*, int64_t num_tasks, msa_task run, void* loop) {
  for (int64_t task = num_tasks - 1; task >= 0; --task) {
    run(loop, task, static_cast<int32_t>(task % 3));
  }
}
void run_wrongly(void*, int64_t num_tasks, msa_task run, void* loop) {
  for (int64_t task = 1; task < num_tasks; ++task) run(loop, task, static_cast<int32_t>(task));
}

msa_context* make_context(msa_backend backend, int32_t num_threads, msa_parallel_for pool) {
  msa_context_options options = {};
  options.struct_size = sizeof options;
  options.backend = backend;
  options.num_threads = num_threads;
  options.parallel_for = pool;
  msa_context* context = nullptr;
  require(msa_context_create(&options, &context) == MSA_OK, "a context of reference and cpu");
  return context;
}

}  // namespace

const Contexts& contexts() {
  static const Contexts made = {.reference = make_context(MSA_BACKEND_REFERENCE, 3, run_backwards),
                                .cpu = make_context(MSA_BACKEND_CPU, 3, run_backwards),
                                .cpu_alone = make_context(MSA_BACKEND_CPU, 1, nullptr),
                                .cpu_wrong = make_context(MSA_BACKEND_CPU, 2, run_wrongly)};
  return made;
}

/// A life of sequences, of which some do not exist, with lengths of which some are impossible.
void fuzz_allocator(ByteReader& bytes) {
  msa_page_allocator* pages = nullptr;
  const int64_t num_pages = bytes.one_in(16) ? bytes.turning_point() : bytes.in_range(0, 40);
  const int64_t page_size = bytes.one_in(16) ? bytes.turning_point() : bytes.in_range(1, 8);
  check_status(msa_page_allocator_create(num_pages, page_size, &pages));
  require((pages == nullptr) ==
              (num_pages < 0 || num_pages > INT32_MAX || page_size < 1 || page_size > INT32_MAX),
          "an allocator of every size that is allowed");
  for (int64_t left = pages == nullptr ? 0 : bytes.in_range(0, 60); left > 0; --left) {
    const int64_t sequence = bytes.one_in(16) ? bytes.turning_point() : bytes.in_range(0, 5);
    int64_t length = 0;
    check_status(msa_sequence_length(pages, sequence, &length));
    const int64_t other = bytes.one_in(16) ? bytes.turning_point() : bytes.in_range(0, 60);
    // Fresh pages cost memory, so that a huge allocator is asked for few.
    const int64_t longest = num_pages > 4096 && page_size < 1 << 20 ? 1 << 16 : INT64_MAX;
    int64_t before = 0;
    check_status(msa_page_allocator_num_free(pages, &before));
    msa_status status = MSA_OK;
    switch (bytes.in_range(0, 4)) {
      case 0:
        status = msa_sequence_create(pages, &length);
        break;
      case 1:
        status = msa_sequence_fork(pages, sequence, other, &length);
        break;
      case 2:
        status = msa_sequence_release(pages, sequence);
        break;
      case 3: {
        msa_page_copy copy = {};
        status = msa_sequence_extend(pages, sequence, std::min(other, longest), &copy);
        break;
      }
      default:
        status = msa_sequence_truncate(pages, sequence, other);
    }
    check_status(status);
    int64_t num_free = 0;
    check_status(msa_page_allocator_num_free(pages, &num_free));
    require(status == MSA_OK || num_free == before, "a refused change of pages changes none");
    require(num_free >= 0 && num_free <= num_pages, "no page is lost or made");
    const int32_t* ids = nullptr;
    int64_t count = 0;
    if (msa_sequence_pages(pages, sequence, &ids, &count) != MSA_OK) continue;
    for (int64_t n = 0; n < count; ++n) require(ids[n] >= 0 && ids[n] < num_pages, "pages exist");
  }
  msa_page_allocator_destroy(pages);
}

void fuzz_questions(ByteReader& bytes) {
  Padded<msa_geometry> geometry;
  for (int64_t* field :
       {&geometry.args.num_q_heads, &geometry.args.num_kv_heads, &geometry.args.head_dim,
        &geometry.args.block_size, &geometry.args.top_k}) {
    *field = bytes.turning_point();
  }
  geometry.mutate(bytes);
  const auto op = static_cast<msa_op>(bytes.one_in(8) ? bytes.take<int32_t>()
                                                      : bytes.in_range(-1, MSA_SELECT_BLOCKS + 1));
  const auto dtype = static_cast<msa_dtype>(bytes.in_range(-1, 4));
  check_status(msa_supports(bytes.one_in(2) ? contexts().cpu : contexts().reference, op,
                            &geometry.args, dtype));
  require(msa_op_name(op) != nullptr && msa_status_name(op) != nullptr, "a name for every number");

  Padded<msa_context_options> options;
  options.args.backend = static_cast<msa_backend>(bytes.turning_point());
  options.args.num_threads = static_cast<int32_t>(bytes.turning_point());
  options.args.parallel_for = bytes.one_in(2) ? run_backwards : nullptr;
  options.mutate(bytes);
  msa_context* context = nullptr;
  const msa_status status = msa_context_create(&options.args, &context);
  check_status(status);
  require((status == MSA_OK) == (context != nullptr), "a context when and only when it is made");
  msa_context_destroy(context);
}

}  // namespace msa::fuzz
