#include "runner/files/json.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <unordered_set>
#include <vector>

namespace msa::runner {

std::string read_json_text(std::string_view what, const std::filesystem::path& file,
                           uintmax_t max_bytes) {
  std::error_code problem;
  const uintmax_t bytes = std::filesystem::file_size(file, problem);
  if (problem) {
    fail(what, "cannot read the file: got {} for {}, allowed a readable file", problem.message(),
         quote(file.string()));
  }
  require(bytes <= max_bytes, what, "{} is too large: got {} bytes, allowed at most {}",
          file.filename().string(), bytes, max_bytes);
  std::string text(static_cast<size_t>(bytes), '\0');
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!stream || stream.gcount() != static_cast<std::streamsize>(bytes)) {
    fail(what, "cannot read the file: got {} for {}, allowed a readable file",
         errno != 0 ? std::strerror(errno) : "too few bytes", quote(file.string()));
  }
  return text;
}

Json parse_json(std::string_view what, std::string_view name, std::string_view text) {
  // Keys seen so far in each open object; nlohmann-json itself keeps the last of equal keys.
  std::vector<std::unordered_set<std::string>> keys;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      require(depth < kMaxJsonDepth, what, "{} nests too deeply: got more than {}, allowed {}",
              name, kMaxJsonDepth, kMaxJsonDepth);
      if (event == Event::object_start) keys.emplace_back();
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key) {
      const auto& key = value.get_ref<const std::string&>();
      require(keys.back().insert(key).second, what,
              "{} has a key twice in one object: got {} again, allowed once", name, quote(key));
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::parse_error& error) {
    fail(what, "{} is not JSON: got an error at byte {}, allowed valid JSON in UTF-8", name,
         error.byte);
  } catch (const Json::exception&) {  // a number outside the range of double
    fail(what, "{} is not JSON: got a number out of range, allowed finite numbers", name);
  }
}

Json parse_json_object(std::string_view what, std::string_view name, std::string_view text) {
  Json root = parse_json(what, name, text);
  require(root.is_object(), what, "{} has the wrong root: got {}, allowed an object", name,
          root.type_name());
  return root;
}

std::string describe_json(const Json& value) {
  if (value.is_string()) return quote(value.get_ref<const std::string&>());
  if (value.is_structured()) {
    return fmt::format("{} of {}", value.type_name(), value.size());
  }
  return value.dump();
}

int64_t json_integer(std::string_view what, std::string_view name, const Json& value, int64_t low,
                     int64_t high) {
  const bool fits =
      value.is_number_integer() &&
      !(value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) &&
      value.get<int64_t>() >= low && value.get<int64_t>() <= high;
  if (!fits) {
    fail(what, "{} is wrong: got {}, allowed an integer from {} to {}", name, describe_json(value),
         low, high);
  }
  return value.get<int64_t>();
}

double json_number(std::string_view what, std::string_view name, const Json& value, double low,
                   double high) {
  const bool fits = value.is_number() && std::isfinite(value.get<double>()) &&
                    value.get<double>() > low && value.get<double>() <= high;
  if (!fits) {
    fail(what, "{} is wrong: got {}, allowed a number above {} and at most {}", name,
         describe_json(value), low, high);
  }
  return value.get<double>();
}

bool json_bool(std::string_view what, std::string_view name, const Json& value) {
  if (!value.is_boolean()) {
    fail(what, "{} is wrong: got {}, allowed true or false", name, describe_json(value));
  }
  return value.get<bool>();
}

const std::string& json_string(std::string_view what, std::string_view name, const Json& value) {
  if (!value.is_string()) {
    fail(what, "{} is wrong: got {}, allowed a string", name, describe_json(value));
  }
  return value.get_ref<const std::string&>();
}

bool json_is(const Json& value, std::string_view text) {
  return value.is_string() && value.get_ref<const std::string&>() == text;
}

const Json* json_member(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

}  // namespace msa::runner
