// Memory that says what it wanted when there is none, and memory that is only taken when touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

namespace msa::runner {

/// Throws kOutOfMemory unless the process may map `bytes` more at this moment. For code that ends
/// the process instead of saying so when it gets no memory: oneDNN where it compiles kernels, and
/// OpenMP where it starts threads.
void check_room(std::string_view what, size_t bytes);
/// What the stacks of so many threads take.
size_t stack_bytes(int num_threads);

/// Bytes that this process may still take: what the kernel calls available, and what the control
/// group leaves. Unknown counts as unlimited.
uint64_t available_bytes();

/// Zeroed bytes, 64-byte aligned. Growing forgets the contents.
class Buffer {
 public:
  Buffer() = default;
  /// Throws kOutOfMemory naming `what` and the bytes wanted.
  void grow(std::string_view what, size_t bytes);
  void* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }
  template <typename Element>
  Element* as() const {
    return static_cast<Element*>(data_.get());
  }

 private:
  struct Free {
    void operator()(void* data) const;
  };
  std::unique_ptr<void, Free> data_;
  size_t bytes_ = 0;
};

/// Address space for `bytes`, zero until written; the machine gives each page of it at first touch.
/// Throws kOutOfMemory when the machine does not have as much free now, so that a long prompt fails
/// before it starts and not in its middle.
class LazyMemory {
 public:
  LazyMemory() = default;
  LazyMemory(std::string_view what, size_t bytes);
  LazyMemory(LazyMemory&& other) noexcept;
  LazyMemory& operator=(LazyMemory&& other) noexcept;
  ~LazyMemory();
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace msa::runner
