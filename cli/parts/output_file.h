// A file that is written whole or not at all: the text goes into a new file beside it, which takes
// its name when everything is on the disk. Whatever goes wrong leaves the old file as it was.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace msa::cli {

/// Throws UsageError naming `option` when a file of this name cannot be written, before an hour of
/// work finds out: its folder is missing or may not be written, or it is a folder
/// or a device.
void check_writable(const std::string& option, const std::filesystem::path& file);

/// Throws UsageError naming `option`, file and reason.
void write_file(const std::string& option, const std::filesystem::path& file,
                std::string_view text);

}  // namespace msa::cli
