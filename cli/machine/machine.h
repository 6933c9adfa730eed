// What machine this is, for `msa info`, which tells it, and `msa doctor`, which judges it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "msa/msa.h"
#include "runner/config.h"

namespace msa::cli {

struct MemoryState {
  double total = 0;      ///< bytes of the machine
  double available = 0;  ///< that a process may still take: of the machine and of its control group
};
MemoryState memory_state();

struct BackendState {
  Backend backend = Backend::kCpu;
  bool usable = false;
  std::string text;  ///< its description, or why it cannot be used
};
std::vector<BackendState> backend_states();

/// K and V of every layer, and index-K of the sparse ones, in bfloat16.
int64_t cache_bytes_per_token(const runner::ModelConfig& config);

/// What the machine has for the cuda backend, whatever was built.
enum class GpuState {
  kNone,      ///< no NVIDIA device on the bus
  kNoDriver,  ///< a device without its driver
  kReady,     ///< device and driver
};
/// `root` stands for "/" in tests.
GpuState gpu_state(const std::string& root = "/");

}  // namespace msa::cli
