// Where the tool finds what it was not told: the shipped model and the project's own texts. It
// looks beside the program first (a build folder in the project, or an installation), then in the
// folder that the program was built from. No environment variable decides.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace msa::cli {

/// The project's folder, or share/msa of an installation. Throws UsageError naming where it looked.
std::filesystem::path project_root();
/// models/msa-mini below one of these. Throws UsageError naming where it looked.
std::filesystem::path default_model_folder();
/// conformance/pack below one of these. Throws UsageError naming where it looked.
std::filesystem::path default_pack_folder();
/// bench/suites below one of these. Throws UsageError naming where it looked.
std::filesystem::path default_suites_folder();

/// The first of `candidates` that has `marker` in it, for tests.
std::filesystem::path first_with(const std::vector<std::filesystem::path>& candidates,
                                 const std::filesystem::path& marker, const std::string& what,
                                 const std::string& option);

}  // namespace msa::cli
