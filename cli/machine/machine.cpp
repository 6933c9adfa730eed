#include "cli/machine/machine.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "cli/parts/machine.h"
#include "runner/layers/memory.h"

namespace msa::cli {

namespace fs = std::filesystem;

MemoryState memory_state() {
  return {memory_bytes(),
          std::min(available_memory_bytes(), static_cast<double>(runner::available_bytes()))};
}

std::vector<BackendState> backend_states() {
  std::vector<BackendState> states;
  for (const Backend backend : {Backend::kReference, Backend::kCpu, Backend::kCuda}) {
    ContextOptions options;
    options.backend = backend;
    try {
      states.push_back({backend, true, Context(options).description()});
    } catch (const Error& error) {
      states.push_back({backend, false, error.what()});
    }
  }
  return states;
}

int64_t cache_bytes_per_token(const runner::ModelConfig& config) {
  int64_t values = 0;
  for (const runner::LayerKind kind : config.layers) {
    values += 2 * config.num_key_value_heads * config.head_dim;
    if (kind == runner::LayerKind::kSparseAttention) values += config.index_dim;
  }
  return values * static_cast<int64_t>(dtype_bytes(DType::kBFloat16));
}

GpuState gpu_state(const std::string& root) {
  std::error_code problem;
  if (fs::exists(fs::path(root) / "proc/driver/nvidia/version", problem) ||
      fs::exists(fs::path(root) / "dev/nvidia0", problem)) {
    return GpuState::kReady;
  }
  constexpr const char* kNvidia = "0x10de";
  for (const auto& device :
       fs::directory_iterator(fs::path(root) / "sys/bus/pci/devices", problem)) {
    std::string vendor;
    std::string kind;
    std::ifstream(device.path() / "vendor") >> vendor;
    std::ifstream(device.path() / "class") >> kind;
    const bool display = kind.rfind("0x03", 0) == 0;  // network cards bear the same vendor
    if (vendor == kNvidia && display) return GpuState::kNoDriver;
  }
  return GpuState::kNone;
}

}  // namespace msa::cli
