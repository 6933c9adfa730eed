// Recorded picks: the block ids that a model's index branch chose for the last queries of a prompt,
// as a benchmark reads them in place of made ones.
//
// The file is a safetensors file with one tensor for each sparse layer and metadata of text:
//
//   layer.L            I32 [Hkv, rows, K]   ascending, then -1
//   __metadata__       format "msa-picks", version "1", block_size, k_len (tokens of the prompt)
//
// Row t stands at position k_len - rows + t, as in a chunk of prefill.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace msa::cli {

struct Picks {
  int64_t block_size = 0;
  int64_t k_len = 0;
  int64_t num_groups = 0;
  int64_t num_rows = 0;
  int64_t top_k = 0;
  std::map<int64_t, std::vector<int32_t>> layers;  ///< [Hkv, rows, K]
};

std::vector<std::byte> picks_bytes(const Picks& picks);

/// Throws msa::Error that names what is wrong: other metadata, shapes that differ, a list that does
/// not ascend, an id without a visible token or none at all.
Picks read_picks(const std::filesystem::path& file);

}  // namespace msa::cli
