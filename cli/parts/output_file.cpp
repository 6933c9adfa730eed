#include "cli/parts/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "cli/parts/usage_error.h"

namespace msa::cli {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& option, const fs::path& file,
                         const std::string& reason) {
  throw UsageError(fmt::format("{}: cannot write {}: {}", option, file.string(), reason));
}

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

/// The file that is removed again unless it was given its name.
class Temporary {
 public:
  explicit Temporary(const fs::path& file)
      : path_(file.string() + fmt::format(".{}.new", getpid())),
        descriptor_(open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {}
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary() {
    if (descriptor_ < 0) return;
    close(descriptor_);
    if (!named_) unlink(path_.c_str());
  }

  bool exists() const { return descriptor_ >= 0; }
  bool write_all(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t written = ::write(descriptor_, text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return false;
      text.remove_prefix(static_cast<size_t>(written));
    }
    return fsync(descriptor_) == 0;
  }
  bool take_name(const fs::path& file) {
    named_ = std::rename(path_.c_str(), file.c_str()) == 0;
    return named_;
  }

 private:
  std::string path_;
  int descriptor_;
  bool named_ = false;
};

}  // namespace

void check_writable(const std::string& option, const fs::path& file) {
  std::error_code ignored;
  if (fs::exists(file, ignored) && !fs::is_regular_file(file, ignored)) {
    refuse(option, file, "it is there and no regular file");
  }
  const fs::path folder = folder_of(file);
  if (!fs::is_directory(folder, ignored)) {
    refuse(option, file, fmt::format("there is no folder {}", folder.string()));
  }
  if (access(folder.c_str(), W_OK | X_OK) != 0) refuse(option, file, std::strerror(errno));
}

void write_file(const std::string& option, const fs::path& file, std::string_view text) {
  check_writable(option, file);
  std::error_code absent;  // a link stays a link: what it leads to is replaced
  const fs::path target = fs::canonical(file, absent);
  Temporary temporary(absent ? file : target);
  if (!temporary.exists() || !temporary.write_all(text) ||
      !temporary.take_name(absent ? file : target)) {
    refuse(option, file, std::strerror(errno));
  }
}

}  // namespace msa::cli
