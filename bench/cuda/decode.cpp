// cuda_decode_bench: times of decode and of the selection over given scores, 64/4 heads, D 128,
// blocks of 128, bf16.
//
//   cuda_decode_bench [--select ROWSxCOLUMNSxK,...] [--decode BATCHxQUERIESxKEYS,...]
//                     [--dense BATCHxQUERIESxKEYS,...] [--suite bench/suites/decode.csv]
//                     [--queries 1,8] [--repeats N] [--stages N] [--attention 0|1] [--json FILE]
//
// A decode step is index and attention of one layer on paged caches whose pages lie in random
// order; random picks follow from random index keys. Times are medians of a CUDA graph: of one step
// alone after the L2 was flushed ("cold"), and of ten steps in a row that take turns among as many
// sets of caches as exceed the L2 several times ("in a row", for each step). Bytes are index keys
// and the union of the selected blocks, once. --attention 0: the prefill kernels for attention.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/host/decode.h"
#include "cuda/host/device.h"
#include "cuda/random_fill.h"
#include "cuda/sm90/select_blocks/launch.h"
#include "msa/msa.h"

namespace {

using msa::DType;
using msa::MutableTensor;
using msa::Tensor;

constexpr int64_t kHeads = 64;
constexpr int64_t kGroups = 4;
constexpr int64_t kDim = 128;
constexpr int64_t kBlock = 128;
constexpr int64_t kTopK = 16;
constexpr size_t kFlushBytes = size_t{256} << 20;
constexpr int kSteps = 10;

void check(cudaError_t error) { msa::cuda::check_cuda("bench", error); }

std::string format(const char* pattern, auto... values) {
  char text[512];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

class Memory {
 public:
  explicit Memory(size_t bytes) { check(cudaMalloc(&data_, std::max<size_t>(bytes, 256))); }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

/// Medians of what a stream does, by events.
class Timer {
 public:
  Timer() : flush_(kFlushBytes) {
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    check(cudaEventCreate(&begin_));
    check(cudaEventCreate(&end_));
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  template <typename Body>
  double median_us(int repeats, bool cold, const Body& body) {
    std::vector<float> times;
    for (int n = 0; n <= repeats; ++n) {  // the first is the warm-up
      if (cold) check(cudaMemsetAsync(flush_.data(), n, kFlushBytes, stream));
      check(cudaEventRecord(begin_, stream));
      body();
      check(cudaEventRecord(end_, stream));
      check(cudaEventSynchronize(end_));
      float ms = 0;
      check(cudaEventElapsedTime(&ms, begin_, end_));
      if (n > 0) times.push_back(ms * 1e3f);
    }
    std::sort(times.begin(), times.end());
    return static_cast<double>(times[times.size() / 2]);
  }
  template <typename Body>
  double graph_us(int repeats, bool cold, const Body& body) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    body();
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&executable, graph, 0));
    const double us = median_us(repeats, cold, [&] { check(cudaGraphLaunch(executable, stream)); });
    check(cudaGraphExecDestroy(executable));
    check(cudaGraphDestroy(graph));
    return us;
  }
  cudaStream_t stream = nullptr;

 private:
  Memory flush_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

/// One layer's caches and one step's queries and outputs.
class Step {
 public:
  Step(const std::vector<int32_t>& lengths, int64_t queries, uint64_t seed) {
    const auto batch = static_cast<int64_t>(lengths.size());
    const int32_t longest = *std::max_element(lengths.begin(), lengths.end());
    const int64_t rows = batch * queries;
    const int64_t max_pages = (longest + kBlock - 1) / kBlock;
    int64_t pages = 0;
    for (const int32_t length : lengths) pages += (length + kBlock - 1) / kBlock;
    std::vector<int32_t> numbers(static_cast<size_t>(pages));
    for (int64_t n = 0; n < pages; ++n) numbers[static_cast<size_t>(n)] = static_cast<int32_t>(n);
    std::mt19937_64 random(seed);
    std::shuffle(numbers.begin(), numbers.end(), random);
    std::vector<int32_t> table(static_cast<size_t>(batch * max_pages), -1);
    std::vector<int32_t> ends = {0};
    size_t next = 0;
    for (int64_t r = 0; r < batch; ++r) {
      ends.push_back(static_cast<int32_t>((r + 1) * queries));
      const int64_t used = (lengths[static_cast<size_t>(r)] + kBlock - 1) / kBlock;
      for (int64_t n = 0; n < used; ++n)
        table[static_cast<size_t>(r * max_pages + n)] = numbers[next++];
    }
    const auto type = DType::kBFloat16;
    const auto normal = [&](int64_t count) {
      void* data = allocate(static_cast<size_t>(count) * 2);
      msa::test::fill_normal(data, type, count, seed++ * 7919);
      return data;
    };
    const auto ints = [&](const std::vector<int32_t>& values) {
      void* data = allocate(values.size() * 4);
      check(cudaMemcpy(data, values.data(), values.size() * 4, cudaMemcpyHostToDevice));
      return data;
    };
    index.sequences.cu_seqlens_q = Tensor(ints(ends), DType::kInt32, {batch + 1});
    index.sequences.page_table = Tensor(ints(table), DType::kInt32, {batch, max_pages});
    index.sequences.kv_lens = Tensor(ints(lengths), DType::kInt32, {batch});
    index.max_query_length = queries;
    index.q_idx = Tensor(normal(rows * kGroups * kDim), type, {rows, kGroups, kDim});
    index.k_idx = Tensor(normal(pages * kBlock * kDim), type, {pages, kBlock, kDim});
    ids_.resize(static_cast<size_t>(kGroups * rows * kTopK));
    index.block_ids =
        MutableTensor(allocate(ids_.size() * 4), DType::kInt32, {kGroups, rows, kTopK});
    attend.sequences = index.sequences;
    attend.max_query_length = queries;
    attend.q = Tensor(normal(rows * kHeads * kDim), type, {rows, kHeads, kDim});
    // Pages hold the heads one after the other (HND), as serving engines lay them.
    const std::initializer_list<int64_t> shape = {pages, kBlock, kGroups, kDim};
    const std::initializer_list<int64_t> strides = {kGroups * kBlock * kDim, kDim, kBlock * kDim,
                                                    1};
    attend.k = Tensor(normal(pages * kBlock * kGroups * kDim), type, shape, strides);
    attend.v = Tensor(normal(pages * kBlock * kGroups * kDim), type, shape, strides);
    attend.block_ids = index.block_ids;
    attend.out = MutableTensor(allocate(static_cast<size_t>(rows * kHeads * kDim) * 2), type,
                               {rows, kHeads, kDim});
    attend.lse = MutableTensor(allocate(static_cast<size_t>(rows * kHeads) * 4), DType::kFloat32,
                               {rows, kHeads});
    check(cudaDeviceSynchronize());
  }

  /// Index keys and the union of the selected blocks of each request and group.
  double bytes(const std::vector<int32_t>& lengths, int64_t queries) {
    check(cudaMemcpy(ids_.data(), index.block_ids.data, ids_.size() * 4, cudaMemcpyDeviceToHost));
    const auto batch = static_cast<int64_t>(lengths.size());
    double sum = 0;
    for (int64_t r = 0; r < batch; ++r) {
      sum += static_cast<double>(lengths[static_cast<size_t>(r)]) * kDim * 2;
      for (int64_t g = 0; g < kGroups; ++g) {
        std::set<int32_t> blocks;
        for (int64_t n = 0; n < queries * kTopK; ++n) {
          blocks.insert(ids_[static_cast<size_t>(((g * batch + r) * queries) * kTopK + n)]);
        }
        blocks.erase(-1);
        sum += static_cast<double>(blocks.size()) * kBlock * kDim * 4;
      }
    }
    return sum;
  }

  msa::IndexForwardArgs index;
  msa::AttentionForwardArgs attend;

 private:
  void* allocate(size_t bytes) {
    memory_.push_back(std::make_unique<Memory>(bytes));
    return memory_.back()->data();
  }
  std::vector<std::unique_ptr<Memory>> memory_;
  std::vector<int32_t> ids_;
};

struct DecodeTimes {
  double index_us, attend_us, cold_us, row_us, bytes;
};

DecodeTimes time_decode(const msa::Context& context, Timer& timer,
                        const std::vector<int32_t>& lengths, int64_t queries, int repeats) {
  double tokens = 0;
  for (const int32_t length : lengths) tokens += length;
  const double cache_bytes = tokens * (kGroups * kDim * 4 + kDim * 2);
  const int sets = static_cast<int>(std::clamp(300e6 / cache_bytes + 1, 1.0, double{kSteps}));
  std::vector<std::unique_ptr<Step>> steps;
  for (int n = 0; n < sets; ++n) {
    steps.push_back(std::make_unique<Step>(lengths, queries, static_cast<uint64_t>(n) * 100 + 1));
  }
  const size_t workspace_bytes =
      std::max(index_forward_workspace_size(context, steps[0]->index),
               attention_forward_workspace_size(context, steps[0]->attend));
  const Memory workspace(workspace_bytes);
  const msa::Workspace space = {workspace.data(), workspace_bytes, timer.stream};
  const auto index = [&](int n) {
    index_forward(context, steps[static_cast<size_t>(n % sets)]->index, space);
  };
  const auto attend = [&](int n) {
    attention_forward(context, steps[static_cast<size_t>(n % sets)]->attend, space);
  };
  DecodeTimes times{};
  times.index_us = timer.graph_us(repeats, true, [&] { index(0); });
  times.bytes = steps[0]->bytes(lengths, queries);
  times.attend_us = timer.graph_us(repeats, true, [&] { attend(0); });
  times.cold_us = timer.graph_us(repeats, true, [&] {
    index(0);
    attend(0);
  });
  times.row_us = timer.graph_us(repeats, true, [&] {
    for (int n = 0; n < kSteps; ++n) {
      index(n);
      attend(n);
    }
  }) / kSteps;
  return times;
}

/// Lengths that vary by up to a quarter around the nominal one, with its mean.
std::vector<int32_t> varied(int64_t batch, int64_t nominal) {
  std::vector<int32_t> lengths;
  for (int64_t r = 0; r < batch; ++r) {
    const double place =
        batch > 1 ? 2.0 * static_cast<double>(r) / static_cast<double>(batch - 1) - 1 : 0;
    lengths.push_back(static_cast<int32_t>(static_cast<double>(nominal) * (1 + 0.25 * place)));
  }
  std::mt19937 random(3);
  std::shuffle(lengths.begin(), lengths.end(), random);
  return lengths;
}

class Lines {
 public:
  void add(const std::string& line) { lines_.push_back(line); }
  bool write(const std::string& path) const {
    std::ofstream file(path);
    file << "[\n";
    for (size_t n = 0; n < lines_.size(); ++n) {
      file << "  " << lines_[n] << (n + 1 < lines_.size() ? ",\n" : "\n");
    }
    file << "]\n";
    return file.good();
  }

 private:
  std::vector<std::string> lines_;
};

void report(const char* kind, int64_t batch, int64_t queries, int64_t keys, long weight,
            const DecodeTimes& times, Lines& lines) {
  const double floor_us = times.bytes / 4.3e6;
  const double allowed = 1.35 * std::max(floor_us, 8.0);
  std::printf(
      "%-6s %4ld x %2ld x %7ld: index %8.2f attend %8.2f cold %8.2f in a row %8.2f us | bytes/4.3 "
      "%8.2f, in a row / allowed %.2f\n",
      kind, static_cast<long>(batch), static_cast<long>(queries), static_cast<long>(keys),
      times.index_us, times.attend_us, times.cold_us, times.row_us, floor_us,
      times.row_us / allowed);
  std::fflush(stdout);
  lines.add(
      format("{\"kind\": \"%s\", \"batch\": %ld, \"queries\": %ld, \"keys\": %ld, \"weight\": %ld, "
             "\"index_us\": %.2f, \"attend_us\": %.2f, \"cold_us\": %.2f, \"in_a_row_us\": %.2f, "
             "\"bytes\": %.0f, \"floor_us\": %.2f, \"allowed_us\": %.2f}",
             kind, static_cast<long>(batch), static_cast<long>(queries), static_cast<long>(keys),
             weight, times.index_us, times.attend_us, times.cold_us, times.row_us, times.bytes,
             floor_us, allowed));
}

void time_dense(const msa::Context& context, Timer& timer, int64_t batch, int64_t queries,
                int64_t keys, int repeats, Lines& lines) {
  const std::vector<int32_t> lengths(static_cast<size_t>(batch), static_cast<int32_t>(keys));
  const Step step(lengths, queries, 1);
  msa::DenseAttentionForwardArgs args;
  args.q = step.attend.q;
  args.k = step.attend.k;
  args.v = step.attend.v;
  args.sequences = step.attend.sequences;
  args.max_query_length = queries;
  args.out = step.attend.out;
  args.lse = step.attend.lse;
  const size_t bytes = dense_attention_forward_workspace_size(context, args);
  const Memory workspace(bytes);
  const double us = timer.graph_us(repeats, true, [&] {
    dense_attention_forward(context, args, {workspace.data(), bytes, timer.stream});
  });
  const double read = static_cast<double>(batch * keys * kGroups * kDim * 4);
  std::printf("dense  %4ld x %2ld x %7ld: %8.2f us, %.2f TB/s\n", static_cast<long>(batch),
              static_cast<long>(queries), static_cast<long>(keys), us, read / us * 1e-6);
  std::fflush(stdout);
  lines.add(
      format("{\"kind\": \"dense\", \"batch\": %ld, \"queries\": %ld, \"keys\": %ld, "
             "\"us\": %.2f, \"tb_s\": %.3f}",
             static_cast<long>(batch), static_cast<long>(queries), static_cast<long>(keys), us,
             read / us * 1e-6));
}

void time_select(Timer& timer, int64_t rows, int64_t columns, int64_t top_k, int repeats,
                 Lines& lines) {
  const auto count = rows * columns;
  const Memory scores(static_cast<size_t>(count) * 4);
  const Memory copy(static_cast<size_t>(count) * 4);
  const Memory ids(static_cast<size_t>(rows * top_k) * 4);
  // Pairs of normal bfloat16 numbers are normal floats, with the second as their last bits.
  msa::test::fill_normal(scores.data(), DType::kBFloat16, count * 2, 5);
  check(cudaDeviceSynchronize());
  msa::core::SelectBlocksParams op;
  op.scores = static_cast<const float*>(scores.data());
  op.score_head_stride = count;
  op.score_token_stride = columns;
  op.num_kv_heads = 1;
  op.num_query_tokens = rows;
  op.max_blocks = columns;
  op.block_ids = {static_cast<int32_t*>(ids.data()), rows * top_k, top_k, top_k};
  const auto params = msa::cuda::select_kernel_params(op);
  const int multiprocessors = msa::cuda::multiprocessors();
  const double us = timer.graph_us(repeats, true, [&] {
    check(msa::cuda::launch_select_blocks(params, multiprocessors, timer.stream));
  });
  const double copy_us = timer.median_us(repeats, true, [&] {
    check(cudaMemcpyAsync(copy.data(), scores.data(), static_cast<size_t>(count) * 4,
                          cudaMemcpyDeviceToDevice, timer.stream));
  });
  const double bytes = static_cast<double>(count) * 4;
  std::printf(
      "select %7ld x %5ld k %2ld: %9.2f us, %.2f TB/s; copy %9.2f us, %.2f TB/s read + write\n",
      static_cast<long>(rows), static_cast<long>(columns), static_cast<long>(top_k), us,
      bytes / us * 1e-6, copy_us, 2 * bytes / copy_us * 1e-6);
  std::fflush(stdout);
  lines.add(
      format("{\"kind\": \"select\", \"rows\": %ld, \"columns\": %ld, \"top_k\": %ld, "
             "\"us\": %.2f, \"tb_s\": %.3f, \"copy_us\": %.2f, \"copy_tb_s\": %.3f}",
             static_cast<long>(rows), static_cast<long>(columns), static_cast<long>(top_k), us,
             bytes / us * 1e-6, copy_us, 2 * bytes / copy_us * 1e-6));
}

std::vector<std::vector<int64_t>> triples(const std::string& text) {
  std::vector<std::vector<int64_t>> result;
  std::stringstream list(text);
  for (std::string item; std::getline(list, item, ',');) {
    long a = 0, b = 0, c = 0;
    if (std::sscanf(item.c_str(), "%ldx%ldx%ld", &a, &b, &c) == 3) result.push_back({a, b, c});
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  std::string json_path, suite_path, decode, select, dense;
  std::vector<int64_t> queries = {1, 8};
  int repeats = 11;
  for (int n = 1; n + 1 < argc; n += 2) {
    const std::string value = argv[n + 1];
    if (std::strcmp(argv[n], "--select") == 0) {
      select = value;
    } else if (std::strcmp(argv[n], "--decode") == 0) {
      decode = value;
    } else if (std::strcmp(argv[n], "--dense") == 0) {
      dense = value;
    } else if (std::strcmp(argv[n], "--suite") == 0) {
      suite_path = value;
    } else if (std::strcmp(argv[n], "--json") == 0) {
      json_path = value;
    } else if (std::strcmp(argv[n], "--repeats") == 0) {
      repeats = std::max(1, std::atoi(value.c_str()));
    } else if (std::strcmp(argv[n], "--stages") == 0) {
      msa::cuda::decode_tuning().attention_stages = std::atoi(value.c_str());
    } else if (std::strcmp(argv[n], "--attention") == 0) {
      msa::cuda::decode_tuning().attention = value == "1";
    } else if (std::strcmp(argv[n], "--queries") == 0) {
      queries.clear();
      std::stringstream list(value);
      for (std::string item; std::getline(list, item, ',');)
        queries.push_back(std::atol(item.c_str()));
    } else {
      std::fprintf(stderr, "unknown option %s\n", argv[n]);
      return 2;
    }
  }
  Lines lines;
  int status = 0;
  try {
    const msa::Context context({.backend = msa::Backend::kCuda});
    std::printf("%s\n", context.description().c_str());
    Timer timer;
    for (const auto& shape : triples(select)) {
      time_select(timer, shape[0], shape[1], shape[2], repeats, lines);
    }
    for (const auto& shape : triples(decode)) {
      const std::vector<int32_t> lengths(static_cast<size_t>(shape[0]),
                                         static_cast<int32_t>(shape[2]));
      report("table", shape[0], shape[1], shape[2], 0,
             time_decode(context, timer, lengths, shape[1], repeats), lines);
    }
    for (const auto& shape : triples(dense)) {
      time_dense(context, timer, shape[0], shape[1], shape[2], repeats, lines);
    }
    std::ifstream suite(suite_path);
    std::string line;
    while (!suite_path.empty() && std::getline(suite, line)) {
      long batch = 0, keys = 0, weight = 0;
      if (std::sscanf(line.c_str(), "%ld,%ld,%ld", &batch, &keys, &weight) != 3) continue;
      for (const int64_t count : queries) {
        report("suite", batch, count, keys, weight,
               time_decode(context, timer, varied(batch, keys), count, repeats), lines);
      }
      if (!json_path.empty()) lines.write(json_path);  // what there is, should time run out
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    status = 1;
  }
  if (!json_path.empty() && !lines.write(json_path)) {
    std::fprintf(stderr, "cannot write %s\n", json_path.c_str());
    return 1;
  }
  return status;
}
