#include "cuda/report.h"

#include <cstdio>
#include <memory>

namespace msa::test {
namespace {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else {
      result += c == '\n' || c == '\t' ? ' ' : c;
    }
  }
  return result + '"';
}

}  // namespace

void Report::add(const std::string& name, bool ok, const std::string& message) {
  entries_.push_back({name, ok, message});
  if (!ok) ++failures_;
  std::printf("%-6s %s%s%s\n", ok ? "ok" : "FAILED", name.c_str(), message.empty() ? "" : ": ",
              message.c_str());
  std::fflush(stdout);
}

void Report::note(const std::string& text) const {
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

bool Report::write(const std::string& path) const {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "w"),
                                                             std::fclose);
  if (!file) return false;
  std::fputs("[\n", file.get());
  for (size_t n = 0; n < entries_.size(); ++n) {
    std::fprintf(file.get(), "  {\"name\": %s, \"ok\": %s, \"message\": %s}%s\n",
                 quoted(entries_[n].name).c_str(), entries_[n].ok ? "true" : "false",
                 quoted(entries_[n].message).c_str(), n + 1 < entries_.size() ? "," : "");
  }
  std::fputs("]\n", file.get());
  return std::ferror(file.get()) == 0;
}

}  // namespace msa::test
