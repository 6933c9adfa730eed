#include "cuda/emulation/emulation.h"

#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace msa::cuda::emulation {
namespace {

constexpr size_t kStackBytes = size_t{1} << 17;

/// A meeting point of `size` fibers. Values of two meetings are kept: a fiber can be in the next
/// one while another still reads this one's.
struct Meeting {
  unsigned size = 0;
  unsigned arrived = 0;
  unsigned number = 0;
  uint64_t values[2][32] = {};
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(kStackBytes);
  bool done = false;
  const Meeting* waits_for = nullptr;
  const std::function<bool()>* waits_until = nullptr;
  unsigned number = 0;
};

ucontext_t scheduler;
std::vector<Fiber> fibers;
std::vector<Meeting> warps;
Meeting block;
unsigned running = 0;
const std::function<void()>* body = nullptr;
std::exception_ptr failure;

std::mt19937& order() {
  static std::mt19937 random;
  return random;
}

void yield() { swapcontext(&fibers[running].context, &scheduler); }

void arrive(Meeting& meeting) {
  Fiber& fiber = fibers[running];
  fiber.number = meeting.number;
  fiber.waits_for = &meeting;
  if (++meeting.arrived == meeting.size) {
    meeting.arrived = 0;
    ++meeting.number;
  }
  yield();
}

void start_fiber() {
  try {
    (*body)();
  } catch (...) {
    failure = std::current_exception();
  }
  fibers[running].done = true;
  yield();
}

/// Apart, because a function that getcontext may return to twice must hold nothing else.
[[gnu::noinline]] void prepare(Fiber& fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, start_fiber, 0);
}

bool can_run(const Fiber& fiber) {
  if (fiber.done) return false;
  if (fiber.waits_until != nullptr) return (*fiber.waits_until)();
  return fiber.waits_for == nullptr || fiber.waits_for->number != fiber.number;
}

void run_block(unsigned threads) {
  fibers.clear();
  fibers.resize(threads);
  warps.assign((threads + 31) / 32, Meeting{.size = 32});
  block = {.size = threads};
  for (Fiber& fiber : fibers) prepare(fiber);
  std::vector<unsigned> turns(threads);
  std::iota(turns.begin(), turns.end(), 0u);
  unsigned left = threads;
  while (left > 0) {
    std::shuffle(turns.begin(), turns.end(), order());
    bool moved = false;
    for (const unsigned turn : turns) {
      if (!can_run(fibers[turn])) continue;
      moved = true;
      running = turn;
      threadIdx = dim3(turn);
      fibers[turn].waits_for = nullptr;
      fibers[turn].waits_until = nullptr;
      swapcontext(&scheduler, &fibers[turn].context);
      if (failure != nullptr) std::rethrow_exception(std::exchange(failure, nullptr));
      if (fibers[turn].done) --left;
    }
    if (!moved) throw std::runtime_error("threads wait for others that never come");
  }
}

}  // namespace

void set_seed(unsigned seed) { order().seed(seed); }

void run_grid(dim3 grid, unsigned threads, const std::function<void()>& thread_body) {
  body = &thread_body;
  gridDim = grid;
  blockDim = dim3(threads);
  std::vector<unsigned> blocks(size_t{grid.x} * grid.y);
  std::iota(blocks.begin(), blocks.end(), 0u);
  std::shuffle(blocks.begin(), blocks.end(), order());
  for (const unsigned n : blocks) {
    blockIdx = dim3(n % grid.x, n / grid.x);
    run_block(threads);
  }
}

void sync_block() { arrive(block); }

void wait_until(const std::function<bool()>& ready) {
  if (ready()) return;
  fibers[running].waits_until = &ready;
  yield();
}

Lanes exchange(uint64_t mine) {
  Meeting& warp = warps[threadIdx.x / 32];
  uint64_t* values = warp.values[warp.number % 2];
  values[threadIdx.x % 32] = mine;
  arrive(warp);
  Lanes lanes;
  std::copy_n(values, 32, lanes.of);
  return lanes;
}

}  // namespace msa::cuda::emulation
