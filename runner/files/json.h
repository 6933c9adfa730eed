// JSON from files that nobody has checked: limits on bytes and depth, valid UTF-8, no key twice in
// one object, and getters that name the key, what was got and what is allowed.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "runner/files/fail.h"

namespace msa::runner {

using Json = nlohmann::json;

inline constexpr int kMaxJsonDepth = 32;

/// Parses text; `what` heads the messages and `name` says which document it is.
Json parse_json(std::string_view what, std::string_view name, std::string_view text);

/// The same, and the root must be an object.
Json parse_json_object(std::string_view what, std::string_view name, std::string_view text);

/// All of a file of at most max_bytes.
std::string read_json_text(std::string_view what, const std::filesystem::path& file,
                           uintmax_t max_bytes);

/// A short description of a value for messages: "string \"x\"", "number 3", "object".
std::string describe_json(const Json& value);

/// An integer in [low, high]; anything else throws. `name` is the key for the message.
int64_t json_integer(std::string_view what, std::string_view name, const Json& value, int64_t low,
                     int64_t high);
/// A finite number above low and at most high.
double json_number(std::string_view what, std::string_view name, const Json& value, double low,
                   double high);
bool json_bool(std::string_view what, std::string_view name, const Json& value);
const std::string& json_string(std::string_view what, std::string_view name, const Json& value);

/// The value is exactly this string.
bool json_is(const Json& value, std::string_view text);

/// The member, or null when it is absent or JSON null.
const Json* json_member(const Json& object, const char* key);

}  // namespace msa::runner
