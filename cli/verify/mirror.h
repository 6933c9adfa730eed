// Memory of a case where the backend can read it: the host's own, or a copy on the device.
#pragma once

#include <cstddef>

#include "msa/context.h"

namespace msa::cli {

class Mirror {
 public:
  /// Of `bytes` at `host`, which outlive it. What lies there is copied.
  Mirror(const Context& context, std::byte* host, size_t bytes);
  Mirror(const Mirror&) = delete;
  Mirror& operator=(const Mirror&) = delete;
  ~Mirror();  // NOLINT(performance-trivially-destructible): frees memory in the cuda build

  std::byte* data() const { return data_; }
  void upload() const;    // host to device
  void download() const;  // device to host; waits until the op is done, and reports its errors

 private:
  [[maybe_unused]] std::byte* host_;  // only the cuda build moves anything
  [[maybe_unused]] size_t bytes_;
  std::byte* data_;
};

}  // namespace msa::cli
