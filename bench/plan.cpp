#include "bench/plan.h"

#include <algorithm>
#include <cmath>

namespace msa::bench {
namespace {

/// The tiles in the middle of equal parts; each counts for its part.
std::vector<Piece> sampled_tiles(const std::vector<Request>& requests, int64_t num_queries,
                                 const PlanOptions& options) {
  std::vector<Piece> tiles;
  const auto queries = static_cast<double>(num_queries);
  const auto chunk = static_cast<double>(options.chunk);
  const double part = queries / static_cast<double>(options.samples);
  for (int64_t n = 0; n < options.samples; ++n) {
    const double middle = (static_cast<double>(n) + 0.5) * part;
    const auto begin = static_cast<int64_t>(std::llround(middle - chunk / 2));
    tiles.push_back({slice(requests, begin, begin + options.chunk), part / chunk, 0});
  }
  return tiles;
}

}  // namespace

int64_t count_queries(const std::vector<Request>& requests) {
  int64_t queries = 0;
  for (const Request& request : requests) queries += request.q_len;
  return queries;
}

std::vector<Request> slice(const std::vector<Request>& requests, int64_t begin, int64_t end) {
  std::vector<Request> part;
  int64_t first = 0;  // packed row of the request's first query
  for (const Request& request : requests) {
    const int64_t from = std::max(begin - first, int64_t{0});
    const int64_t to = std::min(end - first, request.q_len);
    if (from < to) part.push_back({to - from, request.k_len - request.q_len + to});
    first += request.q_len;
  }
  return part;
}

Plan plan_calls(const std::vector<Request>& requests, const PlanOptions& options) {
  Plan plan;
  plan.num_queries = count_queries(requests);
  plan.tile_queries = std::min(options.chunk, plan.num_queries);
  const int64_t num_calls = (plan.num_queries + options.chunk - 1) / options.chunk;
  const bool many = num_calls > options.samples;
  std::vector<Piece> tiles;
  if (many) tiles = sampled_tiles(requests, plan.num_queries, options);
  if (many && !options.whole) {
    plan.sampled = true;
    plan.measured_queries = options.samples * options.chunk;
    plan.pieces = std::move(tiles);
    return plan;
  }
  plan.checks_sampling = many;
  plan.measured_queries = plan.num_queries;
  // Each sampled tile runs right after the calls that it lies among, so that a machine that slows
  // down for a while slows both.
  size_t next_tile = 0;
  for (int64_t begin = 0; begin < plan.num_queries; begin += options.chunk) {
    const int64_t end = std::min(begin + options.chunk, plan.num_queries);
    plan.pieces.push_back({slice(requests, begin, end), 1, 0});
    while (next_tile < tiles.size() &&
           (static_cast<double>(next_tile) + 0.5) * static_cast<double>(plan.num_queries) <=
               static_cast<double>(end) * static_cast<double>(options.samples)) {
      Piece& tile = tiles[next_tile++];
      plan.pieces.push_back({std::move(tile.requests), 0, tile.weight});
    }
  }
  return plan;
}

}  // namespace msa::bench
