// parallel_for for bodies that may throw: the first exception comes out after all tasks are done.
#pragma once

#include <cstdint>
#include <exception>
#include <mutex>

#include "msa/context.h"

namespace msa::runner {

template <typename Body>
void for_each_task(const Context& context, int64_t num_tasks, const Body& body) {
  std::exception_ptr first;
  std::mutex mutex;
  context.parallel_for()(num_tasks, [&](int64_t task, int) {
    try {
      body(task);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
    }
  });
  if (first) std::rethrow_exception(first);
}

/// Tasks of `step` consecutive items each: body(begin, end).
template <typename Body>
void for_each_range(const Context& context, int64_t count, int64_t step, const Body& body) {
  for_each_task(context, (count + step - 1) / step, [&](int64_t task) {
    const int64_t begin = task * step;
    body(begin, begin + step < count ? begin + step : count);
  });
}

}  // namespace msa::runner
