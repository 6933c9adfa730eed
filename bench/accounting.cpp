#include "bench/accounting.h"

#include <algorithm>

namespace msa::bench {
namespace {

double bytes_of(DType type) { return static_cast<double>(dtype_bytes(type)); }

double real(int64_t count) { return static_cast<double>(count); }

/// The queries that rank blocks, with the keys that they see: those before them see at most K
/// blocks and choose them all.
std::vector<Request> ranked_part(const LayerShape& shape, const std::vector<Request>& requests) {
  std::vector<Request> ranked;
  for (const Request& request : requests) {
    const int64_t first = std::max(request.k_len - request.q_len, shape.top_k * shape.block_size);
    if (first < request.k_len) ranked.push_back({request.k_len - first, request.k_len});
  }
  return ranked;
}

double count_keys(const std::vector<Request>& requests) {
  double keys = 0;
  for (const Request& request : requests) keys += real(request.k_len);
  return keys;
}

/// q, out and lse.
double row_bytes(const LayerShape& shape, const std::vector<Request>& requests) {
  const double heads = real(count_queries(requests) * shape.q_heads);
  return heads * (2 * real(shape.head_dim) * bytes_of(shape.q_type) + sizeof(float));
}

double id_bytes(const LayerShape& shape, const std::vector<Request>& requests) {
  return real(count_queries(requests) * shape.kv_heads * shape.top_k) * sizeof(int32_t);
}

}  // namespace

Work& Work::operator+=(const Work& other) {
  flop += other.flop;
  bytes += other.bytes;
  return *this;
}

double visible_pairs(const std::vector<Request>& requests) {
  double pairs = 0;
  for (const Request& request : requests) {
    const double q = real(request.q_len);
    pairs += q * real(request.k_len - request.q_len) + q * (q + 1) / 2;
  }
  return pairs;
}

Work index_work(const LayerShape& shape, const std::vector<Request>& requests) {
  const double heads_dim = real(shape.kv_heads * shape.head_dim);
  const std::vector<Request> ranked = ranked_part(shape, requests);
  return {2 * heads_dim * visible_pairs(ranked),
          real(count_queries(ranked)) * heads_dim * bytes_of(shape.q_type) +
              count_keys(ranked) * real(shape.head_dim) * bytes_of(shape.kv_type) +
              id_bytes(shape, requests)};
}

Work dense_work(const LayerShape& shape, const std::vector<Request>& requests) {
  const double token_bytes = 2 * real(shape.kv_heads * shape.head_dim) * bytes_of(shape.kv_type);
  return {4 * real(shape.q_heads * shape.head_dim) * visible_pairs(requests),
          row_bytes(shape, requests) + count_keys(requests) * token_bytes};
}

Work append_work(const LayerShape& shape, const std::vector<Request>& requests) {
  const double values = real((2 * shape.kv_heads + 1) * shape.head_dim);
  return {0, real(count_queries(requests)) * values *
                 (bytes_of(shape.q_type) + bytes_of(shape.kv_type))};
}

Work attend_work(const LayerShape& shape, const std::vector<Request>& requests,
                 const std::vector<int32_t>& block_ids) {
  const int64_t num_queries = count_queries(requests);
  const int64_t block_size = shape.block_size;
  double attended = 0;  // tokens over queries and groups
  double read = 0;      // tokens of distinct blocks over requests and groups
  for (int64_t group = 0; group < shape.kv_heads; ++group) {
    int64_t row = group * num_queries;
    for (const Request& request : requests) {
      std::vector<char> seen(static_cast<size_t>(request.k_len / block_size + 1), 0);
      for (int64_t t = 0; t < request.q_len; ++t, ++row) {
        const int64_t visible = request.k_len - request.q_len + t + 1;
        for (int64_t n = 0; n < shape.top_k; ++n) {
          const int64_t id = block_ids[static_cast<size_t>(row * shape.top_k + n)];
          if (id < 0) break;
          attended += real(std::min(block_size, visible - id * block_size));
          seen[static_cast<size_t>(id)] = 1;
        }
      }
      for (size_t id = 0; id < seen.size(); ++id) {
        const int64_t begin = static_cast<int64_t>(id) * block_size;
        if (seen[id] != 0) read += real(std::min(block_size, request.k_len - begin));
      }
    }
  }
  const double token_bytes = 2 * real(shape.head_dim) * bytes_of(shape.kv_type);
  return {4 * real(shape.group_size() * shape.head_dim) * attended,
          row_bytes(shape, requests) + id_bytes(shape, requests) + read * token_bytes};
}

Work backward_work(const LayerShape& shape, const std::vector<Request>& requests,
                   const Work& forward) {
  const double rows = real(count_queries(requests) * shape.q_heads * shape.head_dim);
  const double keys = count_keys(requests) * real(2 * shape.kv_heads * shape.head_dim);
  return {2.5 * forward.flop,  // beside what the forward reads and lse: dout, dq, dk and dv
          forward.bytes + 2 * rows * bytes_of(shape.q_type) + keys * bytes_of(shape.kv_type)};
}

Work kl_work(const LayerShape& shape, const std::vector<Request>& requests, const Work& forward,
             bool listed) {
  const double group_dim = real(shape.group_size() * shape.head_dim);
  const double index_dim = real(shape.head_dim);
  const double num_queries = real(count_queries(requests));
  const double row = real(shape.q_heads * shape.head_dim) * bytes_of(shape.q_type) +
                     real(shape.q_heads) * sizeof(float);
  const double index_row = 2 * real(shape.kv_heads) * index_dim * bytes_of(shape.q_type) +
                           real(shape.kv_heads) * sizeof(float);
  // Of what the forward reads the keys alone, and the lists.
  const double ids = listed ? id_bytes(shape, requests) : 0;
  const double keys = (forward.bytes - row_bytes(shape, requests) - ids) / 2;
  return {forward.flop * (2 * group_dim + 6 * index_dim) / (4 * group_dim),
          num_queries * (row + index_row) + keys + ids +
              2 * count_keys(requests) * index_dim * bytes_of(shape.kv_type)};
}

double floor_seconds(const Work& work, double gflops, double gbytes_per_second) {
  return std::max(work.flop / gflops, work.bytes / gbytes_per_second) * 1e-9;
}

}  // namespace msa::bench
