#include "runner/layers/memory.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

#include "runner/files/fail.h"

namespace msa::runner {
namespace {

constexpr size_t kAlignment = 64;

[[noreturn]] void out_of_memory(std::string_view what, size_t wanted, const std::string& allowed) {
  throw Error(ErrorCode::kOutOfMemory, fmt::format("[memory] no room for {}: got {} bytes wanted, "
                                                   "allowed {}",
                                                   what, wanted, allowed));
}

/// One number from a file such as /sys/fs/cgroup/memory.max; `otherwise` where there is none.
uint64_t number_in(const char* path, uint64_t otherwise) {
  std::ifstream stream(path);
  uint64_t value = 0;
  return stream >> value ? value : otherwise;
}

}  // namespace

uint64_t available_bytes() {
  constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();
  uint64_t available = kUnlimited;
  std::ifstream stream("/proc/meminfo");
  std::string key;
  uint64_t kibibytes = 0;
  std::string unit;
  while (stream >> key >> kibibytes && std::getline(stream, unit)) {
    if (key == "MemAvailable:") available = kibibytes * 1024;
  }
  const uint64_t most = number_in("/sys/fs/cgroup/memory.max", kUnlimited);
  if (most != kUnlimited) {
    const uint64_t used = number_in("/sys/fs/cgroup/memory.current", 0);
    available = std::min(available, most > used ? most - used : 0);
  }
  return available;
}

void check_room(std::string_view what, size_t bytes) {
  void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) out_of_memory(what, bytes, "what the process may map");
  ::munmap(mapped, bytes);
}

size_t stack_bytes(int num_threads) {
  size_t stack = size_t{8} << 20;
  pthread_attr_t defaults;
  if (::pthread_attr_init(&defaults) == 0) {
    ::pthread_attr_getstacksize(&defaults, &stack);
    ::pthread_attr_destroy(&defaults);
  }
  return stack * static_cast<size_t>(num_threads);
}

void Buffer::Free::operator()(void* data) const { std::free(data); }

void Buffer::grow(std::string_view what, size_t bytes) {
  if (bytes <= bytes_) return;
  if (bytes > std::numeric_limits<size_t>::max() / 2) out_of_memory(what, bytes, "less");
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  std::unique_ptr<void, Free> fresh(std::aligned_alloc(kAlignment, rounded));
  if (!fresh) out_of_memory(what, bytes, "what the machine has");
  std::memset(fresh.get(), 0, rounded);
  data_ = std::move(fresh);
  bytes_ = rounded;
}

LazyMemory::LazyMemory(std::string_view what, size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  const uint64_t available = available_bytes();
  if (bytes > available) out_of_memory(what, bytes, fmt::format("at most {}", available));
  void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) out_of_memory(what, bytes, "what the process may map");
  data_ = static_cast<std::byte*>(mapped);
}

LazyMemory::LazyMemory(LazyMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

LazyMemory& LazyMemory::operator=(LazyMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

LazyMemory::~LazyMemory() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace msa::runner
