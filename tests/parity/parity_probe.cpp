// The runner, opened for a comparison with another program: raw files in, raw files out.
//
//   parity_probe forward FOLDER --tokens FILE --rows N --ids FILE --logits FILE
//                [--generated FILE --generate N] [--feed FILE] [--chunk N]
//   parity_probe tokenize TOKENIZER.json TEXTS RESULTS
//
// forward reads tokens (int32) with float32 caches: the first N rows in chunks of --chunk, the
// others one at a time, as decode does. It writes the block ids that the index branch chose (int32
// [sparse layers, Hkv, rows, K]) and the logits of every row (float32 [rows, vocab]). With --feed,
// the attention of every sparse layer reads the ids of that file (same shape) instead of those
// chosen, which are still written: so the inputs of each layer are those of the other program, up
// to rounding. With --generate, greedy tokens follow the last row through generate(), and rows
// counts theirs too, but for the last token, which nothing reads.
//
// tokenize reads texts (uint32 count; for each uint32 bytes, then the bytes) and writes, for each,
// int32 number of ids, the ids, uint32 bytes, the bytes that they decode to; -1 ids for a refusal.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "runner/runner.h"

namespace {

using msa::runner::Decoder;
using msa::runner::DecoderOptions;
using msa::runner::LayerKind;
using msa::runner::Model;
using msa::runner::ModelConfig;
using msa::runner::Tokenizer;

[[noreturn]] void fail(const std::string& message) {
  throw std::runtime_error("[probe] " + message);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<int32_t> read_integers(const std::string& path) {
  const std::string bytes = read_file(path);
  if (bytes.size() % sizeof(int32_t) != 0) fail(path + " is no file of int32");
  std::vector<int32_t> values(bytes.size() / sizeof(int32_t));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

template <typename Element>
void write_vector(const std::string& path, const std::vector<Element>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(Element)));
  file.close();
  if (!file) fail("cannot write " + path);
}

/// int32 [sparse layers, Hkv, rows, K]: what the index branch chose, and what attention is to read.
class SelectionTape {
 public:
  SelectionTape(const ModelConfig& config, int64_t num_rows)
      : num_groups_(config.num_key_value_heads), num_rows_(num_rows), top_k_(config.top_k) {
    int64_t num_sparse = 0;
    for (LayerKind kind : config.layers) {
      ordinals_.push_back(kind == LayerKind::kSparseAttention ? num_sparse++ : -1);
    }
    chosen_.assign(static_cast<size_t>(num_sparse * num_groups_ * num_rows_ * top_k_), kNotSeen);
  }

  void feed(std::vector<int32_t> ids) {
    if (ids.size() != chosen_.size()) {
      fail("ids to feed: got " + std::to_string(ids.size()) + ", allowed " +
           std::to_string(chosen_.size()));
    }
    fed_ = std::move(ids);
  }

  void see(int64_t layer, int64_t first_position, int64_t num_tokens,
           const msa::MutableTensor& ids) {
    const int64_t ordinal = ordinals_.at(static_cast<size_t>(layer));
    if (ordinal < 0) fail("a selection in full-attention layer " + std::to_string(layer));
    if (ids.dtype != msa::DType::kInt32 || ids.rank != 3 || ids.shape[0] != num_groups_ ||
        ids.shape[1] != num_tokens || ids.shape[2] != top_k_) {
      fail("block ids: got " + msa::describe(ids));
    }
    for (int64_t group = 0; group < num_groups_; ++group) {
      for (int64_t t = 0; t < num_tokens; ++t) {
        const int64_t row = first_position + t;
        if (row >= num_rows_) continue;  // generate() may read the last token too
        int32_t* here = static_cast<int32_t*>(ids.data) + group * ids.stride[0] + t * ids.stride[1];
        const int64_t offset = ((ordinal * num_groups_ + group) * num_rows_ + row) * top_k_;
        std::copy_n(here, top_k_, chosen_.begin() + offset);
        if (!fed_.empty()) std::copy_n(fed_.begin() + offset, top_k_, here);
      }
    }
  }

  const std::vector<int32_t>& chosen() const {
    if (std::find(chosen_.begin(), chosen_.end(), kNotSeen) != chosen_.end()) {
      fail("the hook did not see every row of every sparse layer");
    }
    return chosen_;
  }

 private:
  static constexpr int32_t kNotSeen = -2;
  int64_t num_groups_, num_rows_, top_k_;
  std::vector<int64_t> ordinals_;
  std::vector<int32_t> chosen_, fed_;
};

struct ForwardOptions {
  std::string folder, tokens_file, ids_file, logits_file, generated_file, feed_file;
  int64_t rows_in_chunks = 0, chunk_tokens = 1024, num_generated = 0;
};

void forward(const ForwardOptions& options) {
  const msa::Context context;
  const auto model = Model::load(context, options.folder, {.with_tokenizer = false});
  const std::vector<int32_t> tokens = read_integers(options.tokens_file);
  const int64_t num_tokens = static_cast<int64_t>(tokens.size());
  if (options.rows_in_chunks < 1 || options.rows_in_chunks > num_tokens) fail("bad --rows");
  const int64_t num_rows = num_tokens + std::max<int64_t>(options.num_generated - 1, 0);
  const size_t vocab = static_cast<size_t>(model->config().vocab_size);

  SelectionTape tape(model->config(), num_rows);
  if (!options.feed_file.empty()) tape.feed(read_integers(options.feed_file));
  DecoderOptions decoder_options{.max_tokens = num_rows + 1,
                                 .chunk_tokens = options.chunk_tokens,
                                 .cache_dtype = msa::DType::kFloat32};
  decoder_options.selection_hook = [&tape](int64_t layer, int64_t first, int64_t count,
                                           const msa::MutableTensor& ids) {
    tape.see(layer, first, count, ids);
  };
  Decoder decoder(model, decoder_options);

  std::vector<float> logits(static_cast<size_t>(num_rows) * vocab);
  int64_t rows_seen = 0;
  decoder.append(std::span(tokens).first(static_cast<size_t>(options.rows_in_chunks)), {},
                 [&](int64_t first, int64_t count, const float* values) {
                   if (first != rows_seen) fail("logits of rows out of order");
                   std::copy_n(values, static_cast<size_t>(count) * vocab,
                               logits.begin() + first * static_cast<int64_t>(vocab));
                   rows_seen += count;
                 });
  const auto keep_logits = [&] {
    const std::span<const float> last = decoder.logits();
    if (last.size() != vocab) fail("logits of the last row have the wrong size");
    std::copy(last.begin(), last.end(), logits.begin() + rows_seen * static_cast<int64_t>(vocab));
    ++rows_seen;
  };
  for (int64_t t = options.rows_in_chunks; t < num_tokens; ++t) {
    decoder.append(std::span(tokens).subspan(static_cast<size_t>(t), 1));
    keep_logits();
  }
  if (options.num_generated > 0) {
    const auto generated =
        msa::runner::generate(decoder, {.max_new_tokens = options.num_generated});
    write_vector(options.generated_file, generated.tokens);
    logits.resize(static_cast<size_t>(num_tokens) * vocab);
  }
  if (rows_seen != num_tokens) fail("logits for " + std::to_string(rows_seen) + " rows");
  write_vector(options.ids_file, tape.chosen());
  write_vector(options.logits_file, logits);
}

void tokenize(const std::string& tokenizer_file, const std::string& texts_file,
              const std::string& results_file) {
  const Tokenizer tokenizer = Tokenizer::load(tokenizer_file);
  const std::string texts = read_file(texts_file);
  size_t place = 0;
  const auto take = [&](size_t count) {
    if (count > texts.size() - place) fail(texts_file + " ends early");
    place += count;
    return std::string_view(texts).substr(place - count, count);
  };
  const auto take_count = [&] {
    uint32_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  };
  std::string results;
  const auto put = [&results](const void* data, size_t bytes) {
    results.append(static_cast<const char*>(data), bytes);
  };
  const uint32_t num_texts = take_count();
  for (uint32_t i = 0; i < num_texts; ++i) {
    const std::string_view text = take(take_count());
    std::vector<int32_t> ids;
    try {
      ids = tokenizer.encode(text);
    } catch (const msa::Error&) {
      const int32_t refused = -1;
      put(&refused, sizeof refused);
      continue;
    }
    const int32_t num_ids = static_cast<int32_t>(ids.size());
    const std::string decoded = tokenizer.decode(ids);
    const uint32_t num_bytes = static_cast<uint32_t>(decoded.size());
    put(&num_ids, sizeof num_ids);
    put(ids.data(), ids.size() * sizeof(int32_t));
    put(&num_bytes, sizeof num_bytes);
    put(decoded.data(), decoded.size());
  }
  write_vector(results_file, std::vector<char>(results.begin(), results.end()));
}

int parse_and_run(int argc, char** argv) {
  CLI::App app("Opens the runner for a comparison with another program");
  app.require_subcommand(1);

  ForwardOptions options;
  CLI::App* forward_verb = app.add_subcommand("forward", "block ids, logits, greedy tokens");
  forward_verb->add_option("folder", options.folder)->required();
  forward_verb->add_option("--tokens", options.tokens_file)->required();
  forward_verb->add_option("--rows", options.rows_in_chunks, "rows read in chunks")->required();
  forward_verb->add_option("--ids", options.ids_file)->required();
  forward_verb->add_option("--logits", options.logits_file)->required();
  forward_verb->add_option("--chunk", options.chunk_tokens);
  forward_verb->add_option("--feed", options.feed_file);
  CLI::Option* generated =
      forward_verb->add_option("--generated", options.generated_file, "file of greedy tokens");
  forward_verb->add_option("--generate", options.num_generated)->needs(generated);
  forward_verb->callback([&options] { forward(options); });

  std::string tokenizer_file, texts_file, results_file;
  CLI::App* tokenize_verb = app.add_subcommand("tokenize", "encode and decode texts");
  tokenize_verb->add_option("tokenizer", tokenizer_file)->required();
  tokenize_verb->add_option("texts", texts_file)->required();
  tokenize_verb->add_option("results", results_file)->required();
  tokenize_verb->callback([&] { tokenize(tokenizer_file, texts_file, results_file); });

  CLI11_PARSE(app, argc, argv);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return parse_and_run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
