#include "cli/inspect/picks.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

#include "runner/files/fail.h"
#include "runner/files/safetensors.h"

namespace msa::cli {
namespace {

using runner::fail;
using runner::quote;
using runner::require;
using runner::StoredTensor;

constexpr const char* kWhat = "picks";
constexpr const char* kFormat = "msa-picks";
constexpr const char* kPrefix = "layer.";

/// -1 for anything but a whole number.
int64_t whole_number(std::string_view text) {
  int64_t number = -1;
  const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  return problem == std::errc() && stop == text.data() + text.size() ? number : -1;
}

int64_t number_of(const runner::Metadata& metadata, const char* key) {
  const auto found = metadata.find(key);
  const int64_t number = found == metadata.end() ? -1 : whole_number(found->second);
  require(number > 0, kWhat, "metadata {} is wrong: got {}, allowed a number above 0", key,
          found == metadata.end() ? "none" : quote(found->second));
  return number;
}

void check_text(const runner::Metadata& metadata, const char* key, const char* wanted) {
  const auto found = metadata.find(key);
  require(found != metadata.end() && found->second == wanted, kWhat,
          "metadata {} is wrong: got {}, allowed {}", key,
          found == metadata.end() ? "none" : quote(found->second), quote(wanted));
}

/// Ascending ids of visible blocks, then -1; never empty.
void check_list(const Picks& picks, const std::string& name, const int32_t* list, int64_t row) {
  const int64_t position = picks.k_len - picks.num_rows + row;
  int64_t last = -1;
  bool ended = false;
  for (int64_t n = 0; n < picks.top_k; ++n) {
    const int64_t id = list[n];
    const bool good =
        ended || id == -1 ? id == -1 && n > 0 : id > last && id <= position / picks.block_size;
    require(good, kWhat,
            "{} has a wrong list at row {}: got {} after {}, allowed ascending ids up to {}, then "
            "-1",
            name, row, id, last, position / picks.block_size);
    ended = id == -1;
    if (!ended) last = id;
  }
}

}  // namespace

std::vector<std::byte> picks_bytes(const Picks& picks) {
  nlohmann::json header = {{"__metadata__",
                            {{"format", kFormat},
                             {"version", "1"},
                             {"block_size", std::to_string(picks.block_size)},
                             {"k_len", std::to_string(picks.k_len)}}}};
  size_t end = 0;
  for (const auto& [layer, ids] : picks.layers) {
    const size_t begin = end;
    end += ids.size() * sizeof(int32_t);
    header[fmt::format("{}{}", kPrefix, layer)] = {
        {"dtype", "I32"},
        {"shape", {picks.num_groups, picks.num_rows, picks.top_k}},
        {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::vector<std::byte> bytes(8 + text.size() + end);
  for (size_t n = 0; n < 8; ++n) {
    bytes[n] = static_cast<std::byte>(static_cast<uint64_t>(text.size()) >> (8 * n) & 0xFF);
  }
  std::memcpy(bytes.data() + 8, text.data(), text.size());
  size_t at = 8 + text.size();
  for (const auto& [layer, ids] : picks.layers) {
    std::memcpy(bytes.data() + at, ids.data(), ids.size() * sizeof(int32_t));
    at += ids.size() * sizeof(int32_t);
  }
  return bytes;
}

Picks read_picks(const std::filesystem::path& file) {
  const runner::MappedFile mapped(file);
  const std::string file_name = file.filename().string();
  runner::Metadata metadata;
  const auto tensors =
      runner::parse_safetensors(file_name, mapped.data(), mapped.size(), &metadata);
  check_text(metadata, "format", kFormat);
  check_text(metadata, "version", "1");
  Picks picks;
  picks.block_size = number_of(metadata, "block_size");
  picks.k_len = number_of(metadata, "k_len");
  require(!tensors.empty(), kWhat, "{} has no layer: got no tensor, allowed layer.0 and so on",
          quote(file_name));
  for (const auto& [name, tensor] : tensors) {
    const bool named = name.rfind(kPrefix, 0) == 0;
    const int64_t layer = named ? whole_number(name.substr(std::strlen(kPrefix))) : -1;
    require(layer >= 0, kWhat, "a tensor has a wrong name: got {}, allowed layer.0 and so on",
            quote(name));
    require(tensor.dtype == "I32" && tensor.shape.size() == 3, kWhat,
            "{} is wrong: got {} of rank {}, allowed I32 [Hkv, rows, K]", name, tensor.dtype,
            tensor.shape.size());
    const bool first = picks.layers.empty();
    if (first) {
      picks.num_groups = tensor.shape[0];
      picks.num_rows = tensor.shape[1];
      picks.top_k = tensor.shape[2];
    }
    const bool same = tensor.shape[0] == picks.num_groups && tensor.shape[1] == picks.num_rows &&
                      tensor.shape[2] == picks.top_k;
    require(same && tensor.bytes > 0 && picks.num_rows <= picks.k_len, kWhat,
            "{} has a wrong shape: got [{}, {}, {}], allowed the same for all layers, at least one "
            "element, at most k_len = {} rows",
            name, tensor.shape[0], tensor.shape[1], tensor.shape[2], picks.k_len);
    std::vector<int32_t>& ids = picks.layers[layer];
    ids.resize(tensor.bytes / sizeof(int32_t));
    std::memcpy(ids.data(), tensor.data, tensor.bytes);
    for (int64_t list = 0; list < picks.num_groups * picks.num_rows; ++list) {
      check_list(picks, name, ids.data() + list * picks.top_k, list % picks.num_rows);
    }
  }
  return picks;
}

}  // namespace msa::cli
