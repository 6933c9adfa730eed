#include "core/parallel.h"

#include <omp.h>

namespace msa::core {

ParallelFor openmp_parallel_for(int num_threads) {
  return [num_threads](int64_t num_tasks, const std::function<void(int64_t, int)>& body) {
    if (num_threads == 1 || num_tasks <= 1) {
      for (int64_t task = 0; task < num_tasks; ++task) body(task, 0);
      return;
    }
    FirstException failure;  // one that left the region would end the program
#pragma omp parallel for schedule(dynamic, 1) num_threads(num_threads)
    for (int64_t task = 0; task < num_tasks; ++task) {
      failure.guard([&] { body(task, omp_get_thread_num()); });
    }
    failure.rethrow();
  };
}

}  // namespace msa::core
