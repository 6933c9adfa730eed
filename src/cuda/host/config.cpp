#include "cuda/host/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "cuda/device/layout.h"
#include "cuda/sm90/attention_forward/params.h"
#include "cuda/sm90/index_forward/params.h"

namespace msa::cuda {
namespace {

constexpr int kIndexTileRows = kIndexRows;
constexpr int kMultiprocessors = 132;                  // of the H100 and H200 in SXM form
constexpr int64_t kPartialBytes = int64_t{576} << 20;  // of one of two buffers
constexpr int64_t kMostListPlaces = int64_t{1} << 24;  // of all bins' own lists
constexpr int64_t kPlanBytes = int64_t{1} << 28;
constexpr int64_t kSumBytes = int64_t{1} << 30;  // of dq in float32, while a plan is computed

/// Upper bound that the shapes give: all requests together, in blocks.
int64_t all_requests(const core::SequenceParams& s, int64_t key_rows, int64_t block_size) {
  return s.paged() ? s.batch * s.max_pages : key_rows / block_size + s.batch;
}

/// Into how many pieces the keys of the longest tile are cut so that all are done first. In units
/// of one tile and block (1.2 us of tensor cores): a thread block costs its piece and three units
/// to start and to end; the merge costs three and one for every 8192 rows. Tiles are as long as
/// `longest` blocks down to `span` less.
int pick_splits(int64_t tiles, int64_t longest, int64_t span, int grain) {
  constexpr double kOverhead = 3;
  const double shortest = static_cast<double>(std::max<int64_t>(longest - span, 0));
  const double mean = (static_cast<double>(longest) + shortest) / 2;
  int best = 1;
  double least = 0;
  for (int splits = 1; splits <= kMaxSegments; ++splits) {
    const double size = piece_blocks(static_cast<int>(longest), splits, grain);
    const bool even = static_cast<double>(span) < size;  // all tiles have as many pieces
    const double pieces =
        std::ceil(static_cast<double>(tiles) * (even ? std::ceil(mean / size) : mean / size + 0.5));
    double time = size + kOverhead;
    if (even) {
      time *= std::ceil(pieces / kMultiprocessors);
    } else if (pieces > kMultiprocessors) {
      const double work = static_cast<double>(tiles) * mean + pieces * kOverhead;
      time = std::max(time, work / kMultiprocessors + 0.1 * size);
    }
    if (splits > 1) time += 3 + static_cast<double>(tiles) / 32;
    if (splits == 1 || time < least) {
      least = time;
      best = splits;
    }
  }
  return best;
}

}  // namespace

AttentionTuning& attention_tuning() {
  static AttentionTuning tuning;
  return tuning;
}

IndexConfig pick_index_config(const core::IndexForwardParams& params) {
  IndexConfig config;
  const core::SequenceParams& s = params.sequences;
  config.tile_queries = static_cast<int>(kIndexTileRows / params.num_kv_heads);
  // Every request, and the rows past the last one, may end with a part of a tile.
  config.num_tiles = static_cast<int>(s.num_query_tokens / config.tile_queries + s.batch + 1);
  const int64_t num_kept = params.block_ids.data != nullptr ? params.block_ids.top_k - 1 : 0;
  config.slots = list_slots(static_cast<int>(num_kept));
  // Lengths are on the device: requests of one size are the guess.
  const int64_t requests = std::max<int64_t>(s.batch, 1);
  const int64_t tiles =
      requests * ceil_div(ceil_div(s.num_query_tokens, requests), config.tile_queries);
  const int64_t blocks =
      s.paged() ? s.max_pages : ceil_div(params.k_idx.num_rows, requests * params.block_size);
  config.even_splits = pick_splits(tiles, blocks, s.num_query_tokens / requests / params.block_size,
                                   params.lse_idx != nullptr ? kMinSegmentBlocks : 1);
  config.splits = config.even_splits;
  if (config.even_splits > 1) {  // the device knows the lengths and shares the work by them
    config.wanted_blocks = static_cast<int>(round_up(tiles * config.even_splits, kMultiprocessors));
    if (s.batch > 1) config.splits = std::min(2 * config.even_splits, kMaxSegments);
  }
  return config;
}

std::string IndexConfig::describe() const {
  return fmt::format("index_forward: {} tiles of {} queries, keys split by {}, {} slots", num_tiles,
                     tile_queries, splits, slots);
}

AttentionConfig pick_attention_config(const core::AttentionForwardParams& params) {
  AttentionConfig config;
  const core::SequenceParams& s = params.sequences;
  const int64_t group_size = params.group_size();
  const int64_t top_k = std::max<int64_t>(params.block_ids.top_k, 1);
  const int64_t rows = std::max<int64_t>(s.num_query_tokens, 1);

  // As many groups at once as keep the chunk's queries in L2, then as many rows as fit: a pass
  // costs some 35 us whatever it holds, more than hiding the merge of a small one saves.
  const int64_t row_bytes = top_k * group_size * (params.head_dim * 2 + 4);
  const int64_t most =
      std::min(attention_tuning().most_chunk_rows, kPartialBytes / row_bytes / 128 * 128);
  int64_t groups = params.num_kv_heads;
  while (groups > 1 && rows * groups > most) groups /= 2;
  const int64_t chunks = ceil_div(rows * groups, most);
  config.groups_per_pass = static_cast<int>(groups);
  config.chunk_rows = static_cast<int>(
      chunks == 1 ? round_up(rows, 32) : std::min(most, round_up(ceil_div(rows, chunks), 128)));

  config.visits_per_pass = int64_t{config.chunk_rows} * groups * top_k;
  config.partial_buffers = rows > config.chunk_rows || groups < params.num_kv_heads ? 2 : 1;
  // An item keeps a multiprocessor for 17 us at 64 visits of 16 heads: too long for the end of a
  // small pass. A tile is never cut.
  config.item_visits =
      config.visits_per_pass >= int64_t{8} * kMultiprocessors * kItemVisits
          ? kItemVisits
          : static_cast<int>(std::max<int64_t>(kItemVisits / 2, kTileRows / group_size));
  config.bins_per_pass =
      2 * std::max<int64_t>(groups * all_requests(s, params.k.num_rows, params.block_size), 1);
  if (config.partial_buffers == 1 && attention_tuning().own_lists) {
    const int shift =
        std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(rows - 1))));
    if (config.bins_per_pass <= kMostListPlaces >> shift) config.list_shift = shift;
  }
  config.list_places =
      config.list_shift > 0 ? config.bins_per_pass << config.list_shift : config.visits_per_pass;
  config.items_per_pass = std::min(config.bins_per_pass, config.visits_per_pass) +
                          config.visits_per_pass / config.item_visits + 1;

  // Picks are bits of 16 in an entry, so a tile has at most 16 queries: G 8 and 16.
  const bool tiles = attention_tuning().query_tiles && group_size >= 8;
  const int64_t tile_queries = int64_t{2} * kTileRows / group_size;
  const int64_t passes_per_chunk = params.num_kv_heads / groups;
  const int64_t plan_bytes =
      passes_per_chunk * (config.bins_per_pass * 4 + config.list_places * 4 +
                          config.items_per_pass * static_cast<int64_t>(sizeof(Item))) +
      config.chunk_rows * params.num_kv_heads *
          (8 +
           (tiles ? (int64_t{4} * kTileEntries + int64_t{sizeof(QueryTile)}) / tile_queries : 0));
  config.chunks_per_plan = static_cast<int>(
      std::clamp<int64_t>(kPlanBytes / plan_bytes, 1, ceil_div(rows, config.chunk_rows)));
  if (tiles) {  // every request may begin and end with a part of a tile
    const int64_t plan_rows = int64_t{config.chunks_per_plan} * config.chunk_rows;
    config.tile_capacity = (plan_rows / tile_queries + 2 * s.batch + 2) * params.num_kv_heads;
  }
  return config;
}

std::string AttentionConfig::describe() const {
  return fmt::format(
      "attention_forward: chunks of {} rows, {} groups a pass, {} chunks a plan, {} partial "
      "buffers, {}, room for {} query tiles",
      chunk_rows, groups_per_pass, chunks_per_plan, partial_buffers,
      list_shift > 0 ? fmt::format("lists of {} visits", 1 << list_shift) : "packed lists",
      tile_capacity);
}

UntriedOps& untried_ops() {
  static UntriedOps ops;
  return ops;
}

BackwardTuning& backward_tuning() {
  static BackwardTuning tuning;
  return tuning;
}

BackwardConfig pick_backward_config(const core::AttentionBackwardParams& params) {
  BackwardConfig result;
  AttentionConfig& config = result.attention;
  const core::AttentionForwardParams& f = params.forward;
  const core::SequenceParams& s = f.sequences;
  const int64_t top_k = std::max<int64_t>(f.block_ids.top_k, 1);
  const int64_t rows = std::max<int64_t>(s.num_query_tokens, 1);

  // A pass is what L2 should hold. All passes of a plan are one launch, so small ones cost nothing
  // but shorter lists.
  const BackwardTuning& tuning = backward_tuning();
  const int64_t most = tuning.most_chunk_rows;
  int64_t groups = f.num_kv_heads;
  while (groups > 1 && rows * groups > most) groups /= 2;
  config.groups_per_pass = static_cast<int>(groups);
  const int64_t chunks = ceil_div(rows * groups, most);
  config.chunk_rows = static_cast<int>(
      chunks == 1 ? round_up(rows, 32) : std::min(most, round_up(ceil_div(rows, chunks), 128)));
  config.visits_per_pass = int64_t{config.chunk_rows} * groups * top_k;
  config.list_places = config.visits_per_pass;

  // Few rows: shorter items, so that there are some for every multiprocessor. A tile is never cut.
  const int64_t tile_visits = kTileRows / f.group_size();
  const bool many =
      rows * f.num_kv_heads * top_k >= int64_t{16} * kMultiprocessors * tuning.item_visits;
  config.item_visits = static_cast<int>(
      std::max<int64_t>(many ? tuning.item_visits : tuning.item_visits / 4, tile_visits));
  config.bins_per_pass =
      2 * std::max<int64_t>(groups * all_requests(s, f.k.num_rows, f.block_size), 1);
  config.items_per_pass = std::min(config.bins_per_pass, config.visits_per_pass) +
                          config.visits_per_pass / config.item_visits + 1;

  const int64_t plan_bytes = f.num_kv_heads / groups *
                             (config.bins_per_pass * 4 + config.list_places * 4 +
                              config.items_per_pass * static_cast<int64_t>(sizeof(Item)));
  const int64_t sum_bytes = config.chunk_rows * f.num_q_heads * f.head_dim * 4;
  config.chunks_per_plan = static_cast<int>(std::clamp<int64_t>(
      std::min({kPlanBytes / plan_bytes, kSumBytes / sum_bytes, tuning.most_plan_chunks}), 1,
      ceil_div(rows, config.chunk_rows)));
  return result;
}

std::string BackwardConfig::describe() const {
  return fmt::format(
      "attention_backward: chunks of {} rows, {} groups a pass, {} chunks a plan, items of {} "
      "visits",
      attention.chunk_rows, attention.groups_per_pass, attention.chunks_per_plan,
      attention.item_visits);
}

}  // namespace msa::cuda
