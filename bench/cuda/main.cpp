// cuda_bench: times of the cuda backend at MiniMax-M3's shape (64/4 heads, D 128, block 128, K 16).
//
//   cuda_bench [--table 8192,32768,131072,1048576] [--suite bench/suites/prefill.csv] [--repeats N]
//              [--part both|index|attend|dense|backward] [--json FILE]
//              [--tiles 0|1] [--stay 0|1] [--own-lists 0|1] [--chunk ROWS]
//              [--share PERCENT] [--item-visits N]
//
// The table: one causal prefill; from 256K on in chunks of 32K queries. "index" is from q_idx and
// k_idx to ids, "attend" from ids to out and lse with the reverse index and the merge, each
// alone, L2 flushed. The suite: index and attend with random picks against the time that the FLOP
// and bytes of the shape allow. The options from --tiles on set what AttentionTuning compares.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/host/config.h"
#include "cuda/layer.h"

namespace {

using msa::bench::Layer;
using msa::bench::Shape;

constexpr long kChunk = 32768;
constexpr long kChunkedFrom = 262144;

class Json {
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

std::string format(const char* pattern, auto... values) {
  char text[1024];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

struct Sum {
  double index_ms = 0;
  double attend_ms[3] = {};  // random, keep 0.9, sink
  double index_flop = 0;
  double attend_flop = 0;
  size_t workspace = 0;
};

/// Which ops are timed; the others' times are 0.
struct Parts {
  bool index = true;
  bool attend = true;
  bool dense = false;
  bool backward = false;
};

/// Gradients of attention, 10 Hq D FLOP for each attended key. No GPU had run them when this was
/// written: the benchmark turns the op on.
void backward_table(const msa::Context& context, const std::vector<long>& sizes, int repeats,
                    Json& json) {
  msa::cuda::untried_ops().attention_backward = true;
  const msa::cuda::BackwardTuning& tuning = msa::cuda::backward_tuning();
  for (const long size : sizes) {
    const Shape shape{{static_cast<int32_t>(size)}, {static_cast<int32_t>(size)}};
    for (const double keep : {0.0, 0.9}) {
      Layer layer(context, shape);
      layer.set_picks(keep, false, 11);
      const double ms = layer.backward_ms(repeats);
      const double tf = shape.backward_flop() / ms * 1e-9;
      const double gib = static_cast<double>(layer.backward_workspace_bytes()) / (1 << 30);
      std::printf("%9ld backward, keep %.1f %10.3f ms %6.0f TFLOP/s %6.2f GiB\n", size, keep, ms,
                  tf, gib);
      std::fflush(stdout);
      json.add(format(
          "{\"n\": %ld, \"keep\": %.1f, \"backward_ms\": %.4f, \"backward_tf\": %.1f, "
          "\"workspace_gib\": %.3f, \"chunk\": %ld, \"item_visits\": %d}",
          size, keep, ms, tf, gib, static_cast<long>(tuning.most_chunk_rows), tuning.item_visits));
    }
  }
}

void dense_table(const msa::Context& context, const std::vector<long>& sizes, int repeats,
                 Json& json) {
  for (const long size : sizes) {
    const Shape shape{{static_cast<int32_t>(size)}, {static_cast<int32_t>(size)}};
    Layer layer(context, shape);
    const double ms = layer.dense_ms(repeats);
    const double flop = 128.0 * 128.0 * static_cast<double>(size) * static_cast<double>(size);
    std::printf("%9ld dense %10.3f ms %6.0f TFLOP/s\n", size, ms, flop / ms * 1e-9);
    std::fflush(stdout);
    json.add(
        format("{\"n\": %ld, \"dense_ms\": %.4f, \"dense_tf\": %.1f}", size, ms, flop / ms * 1e-9));
  }
}

void table(const msa::Context& context, const std::vector<long>& sizes, Parts parts, int repeats,
           Json& json) {
  std::printf("%9s %10s %6s | %10s %6s | %10s %6s | %10s %6s | %10s %6s\n", "N", "index ms", "TF",
              "random ms", "TF", "keep.9 ms", "TF", "sink ms", "TF", "layer ms", "GiB");
  const msa::cuda::AttentionTuning& tuning = msa::cuda::attention_tuning();
  for (const long size : sizes) {
    Sum sum;
    const long step = size >= kChunkedFrom ? kChunk : size;
    for (long end = step; end <= size; end += step) {
      const Shape shape{{static_cast<int32_t>(step)}, {static_cast<int32_t>(end)}};
      Layer layer(context, shape);
      const int n = size >= kChunkedFrom ? 1 : repeats;
      if (parts.index) sum.index_ms += layer.index_ms(n);
      sum.index_flop += shape.index_flop();
      sum.attend_flop += shape.attend_flop();
      sum.workspace = layer.workspace_bytes();
      for (int kind = 0; parts.attend && kind < 3; ++kind) {
        layer.set_picks(kind == 1 ? 0.9 : 0.0, kind == 2, 11);
        sum.attend_ms[kind] += layer.attend_ms(n);
      }
    }
    const auto tf = [](double flop, double ms) { return ms > 0 ? flop / ms * 1e-9 : 0; };
    const double gib = static_cast<double>(sum.workspace) / (1 << 30);
    std::printf("%9ld %10.3f %6.0f | %10.3f %6.0f | %10.3f %6.0f | %10.3f %6.0f | %10.3f %6.2f\n",
                size, sum.index_ms, tf(sum.index_flop, sum.index_ms), sum.attend_ms[0],
                tf(sum.attend_flop, sum.attend_ms[0]), sum.attend_ms[1],
                tf(sum.attend_flop, sum.attend_ms[1]), sum.attend_ms[2],
                tf(sum.attend_flop, sum.attend_ms[2]), sum.index_ms + sum.attend_ms[0], gib);
    std::fflush(stdout);
    json.add(format(
        "{\"n\": %ld, \"index_ms\": %.4f, \"index_tf\": %.1f, \"attend_random_ms\": "
        "%.4f, \"attend_random_tf\": %.1f, \"attend_keep09_ms\": %.4f, \"attend_keep09_tf\": %.1f, "
        "\"attend_sink_ms\": %.4f, \"attend_sink_tf\": %.1f, \"workspace_bytes\": %zu, "
        "\"tiles\": %d, \"stay\": %d, \"chunk_rows\": "
        "%ld, \"merge_share\": %d}",
        size, sum.index_ms, tf(sum.index_flop, sum.index_ms), sum.attend_ms[0],
        tf(sum.attend_flop, sum.attend_ms[0]), sum.attend_ms[1],
        tf(sum.attend_flop, sum.attend_ms[1]), sum.attend_ms[2],
        tf(sum.attend_flop, sum.attend_ms[2]), sum.workspace, tuning.query_tiles ? 1 : 0,
        tuning.queries_stay ? 1 : 0, static_cast<long>(tuning.most_chunk_rows),
        tuning.merge_share));
  }
}

/// Queries split evenly, key lengths falling linearly from the longest to half of it.
Shape suite_shape(long batch, long queries, long longest) {
  Shape shape;
  for (long r = 0; r < batch; ++r) {
    const long q = queries / batch + (r < queries % batch ? 1 : 0);
    const double fall =
        batch > 1 ? 0.5 * static_cast<double>(r) / static_cast<double>(batch - 1) : 0;
    const long k = static_cast<long>(static_cast<double>(longest) * (1 - fall));
    shape.q_lens.push_back(static_cast<int32_t>(q));
    shape.k_lens.push_back(static_cast<int32_t>(k < q ? q : k));
  }
  return shape;
}

bool suite(const msa::Context& context, const std::string& path, Parts parts, int repeats,
           Json& json) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    return false;
  }
  std::printf("%5s %7s %7s %6s %10s %10s %10s %7s\n", "batch", "queries", "longest", "weight",
              "index us", "attend us", "allowed us", "ratio");
  double weighted = 0;
  double weights = 0;
  int over = 0;
  while (std::getline(file, line)) {
    long values[4] = {};
    if (std::sscanf(line.c_str(), "%ld,%ld,%ld,%ld", &values[0], &values[1], &values[2],
                    &values[3]) != 4) {
      continue;
    }
    const Shape shape = suite_shape(values[0], values[1], values[2]);
    Layer layer(context, shape);
    if (parts.attend) layer.set_picks(0, false, 11);
    const double index_us = parts.index ? layer.index_ms(repeats) * 1e3 : 0;
    const double attend_us = parts.attend ? layer.attend_ms(repeats) * 1e3 : 0;
    const double compute = shape.index_flop() / 560e12 + shape.attend_flop() / 330e12;
    const double allowed = 1.5e6 * std::max(compute, shape.bytes() / 4.3e12) + 15;
    const double ratio = (index_us + attend_us) / allowed;
    over += ratio > 1 ? 1 : 0;
    weighted += static_cast<double>(values[3]) * (index_us + attend_us);
    weights += static_cast<double>(values[3]);
    std::printf("%5ld %7ld %7ld %6ld %10.1f %10.1f %10.1f %7.2f\n", values[0], values[1], values[2],
                values[3], index_us, attend_us, allowed, ratio);
    std::fflush(stdout);
    json.add(
        format("{\"batch\": %ld, \"queries\": %ld, \"longest\": %ld, \"weight\": %ld, "
               "\"index_us\": %.2f, \"attend_us\": %.2f, \"allowed_us\": %.2f}",
               values[0], values[1], values[2], values[3], index_us, attend_us, allowed));
  }
  std::printf("weighted mean %.1f us, %d rows above what is allowed\n", weighted / weights, over);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<long> sizes;
  std::string suite_path;
  std::string json_path;
  int repeats = 7;
  Parts parts;
  for (int n = 1; n < argc; n += 2) {
    if (n + 1 >= argc) {
      std::fputs(
          "usage: cuda_bench [--table SIZES] [--suite CSV] [--repeats N] "
          "[--part both|index|attend|dense|backward] [--tiles 0|1] [--stay 0|1] [--chunk ROWS] "
          "[--own-lists 0|1] [--share PERCENT] [--item-visits N] [--json FILE]\n",
          stderr);
      return 2;
    }
    const std::string value = argv[n + 1];
    if (std::strcmp(argv[n], "--table") == 0) {
      std::stringstream list(value);
      for (std::string size; std::getline(list, size, ',');)
        sizes.push_back(std::atol(size.c_str()));
    } else if (std::strcmp(argv[n], "--suite") == 0) {
      suite_path = value;
    } else if (std::strcmp(argv[n], "--json") == 0) {
      json_path = value;
    } else if (std::strcmp(argv[n], "--part") == 0 &&
               (value == "both" || value == "index" || value == "attend" || value == "dense" ||
                value == "backward")) {
      parts = {value == "both" || value == "index", value == "both" || value == "attend",
               value == "dense", value == "backward"};
    } else if (std::strcmp(argv[n], "--tiles") == 0) {
      msa::cuda::attention_tuning().query_tiles = value == "1";
    } else if (std::strcmp(argv[n], "--stay") == 0) {
      msa::cuda::attention_tuning().queries_stay = value == "1";
    } else if (std::strcmp(argv[n], "--chunk") == 0) {
      msa::cuda::attention_tuning().most_chunk_rows = std::max(128, std::atoi(value.c_str()));
      msa::cuda::backward_tuning().most_chunk_rows = std::max(128, std::atoi(value.c_str()));
    } else if (std::strcmp(argv[n], "--item-visits") == 0) {
      msa::cuda::backward_tuning().item_visits = std::clamp(std::atoi(value.c_str()), 64, 255);
    } else if (std::strcmp(argv[n], "--own-lists") == 0) {
      msa::cuda::attention_tuning().own_lists = value == "1";
    } else if (std::strcmp(argv[n], "--share") == 0) {
      msa::cuda::attention_tuning().merge_share = std::max(0, std::atoi(value.c_str()));
    } else if (std::strcmp(argv[n], "--repeats") == 0) {
      repeats = std::max(1, std::atoi(value.c_str()));
    } else {
      std::fprintf(stderr, "unknown option %s\n", argv[n]);
      return 2;
    }
  }
  try {
    const msa::Context context({.backend = msa::Backend::kCuda});
    std::printf("%s\n", context.description().c_str());
    Json json;
    if (parts.backward) {
      backward_table(context, sizes, repeats, json);
    } else if (parts.dense) {
      dense_table(context, sizes, repeats, json);
    } else if (!sizes.empty()) {
      table(context, sizes, parts, repeats, json);
    }
    if (!suite_path.empty() && !suite(context, suite_path, parts, repeats, json)) return 1;
    if (!json_path.empty() && !json.write(json_path)) {
      std::fprintf(stderr, "cannot write %s\n", json_path.c_str());
      return 1;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
