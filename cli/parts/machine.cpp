#include "cli/parts/machine.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <fstream>
#include <string_view>

#include "cli/parts/text.h"

namespace msa::cli {
namespace {

/// What follows the colon of the first line of `file` that starts with `name`; empty without one.
std::string value_in(const char* file, std::string_view name) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind(name, 0) != 0) continue;
    const size_t colon = line.find(':');
    if (colon != std::string::npos) return std::string(trim(line.substr(colon + 1)));
  }
  return "";
}

double of_pages(int pages_name) {
  return static_cast<double>(sysconf(pages_name)) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

}  // namespace

std::string cpu_name() {
  const std::string name = value_in("/proc/cpuinfo", "model name");
  utsname names{};
  if (!name.empty()) return name;
  return uname(&names) == 0 ? names.machine : "unknown";
}

double memory_bytes() { return of_pages(_SC_PHYS_PAGES); }

double available_memory_bytes() {
  const std::string text = value_in("/proc/meminfo", "MemAvailable");  // "123456 kB"
  int64_t kilobytes = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), kilobytes);
  if (error != std::errc() || end == text.data()) return of_pages(_SC_AVPHYS_PAGES);
  return static_cast<double>(kilobytes) * 1024;
}

}  // namespace msa::cli
