#include "cli/parts/places.h"

#include <fmt/format.h>

#include <system_error>

#include "cli/parts/embedded.h"
#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

namespace fs = std::filesystem;

/// build/release/bin/msa stands three levels below the project.
constexpr int kMostLevels = 3;

std::vector<fs::path> candidates() {
  std::vector<fs::path> folders;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    // bin/msa of an installation, then any folder above a build folder in the project.
    fs::path folder = program.parent_path();
    folders.push_back(folder.parent_path() / "share" / "msa");
    for (int level = 0; level < kMostLevels; ++level)
      folders.push_back(folder = folder.parent_path());
  }
  folders.emplace_back(embedded_source_root());
  return folders;
}

}  // namespace

fs::path first_with(const std::vector<fs::path>& candidates, const fs::path& marker,
                    const std::string& what, const std::string& option) {
  std::string looked;
  for (const fs::path& folder : candidates) {
    std::error_code error;
    if (fs::exists(folder / marker, error)) return folder;
    looked += (looked.empty() ? "" : ", ") + folder.string();
  }
  throw UsageError(
      fmt::format("no {}: found no {} in {}; give {}", what, marker.string(), looked, option));
}

fs::path project_root() {
  return first_with(candidates(), "include/msa/msa.h", "haystack", "text files with --file");
}

fs::path default_model_folder() {
  const fs::path marker = "models/msa-mini/config.json";
  return first_with(candidates(), marker, "model", "a model folder with --model") /
         marker.parent_path();
}

fs::path default_pack_folder() {
  const fs::path marker = "conformance/pack/index.json";
  return first_with(candidates(), marker, "conformance pack", "a folder with --pack") /
         marker.parent_path();
}

fs::path default_suites_folder() {
  const fs::path marker = "bench/suites/prefill.csv";
  return first_with(candidates(), marker, "suites", "a file with --suite") / marker.parent_path();
}

}  // namespace msa::cli
