#include "runner/forward.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "runner/layers/parallel.h"

namespace msa::runner {
namespace {

constexpr int64_t kRowsPerTask = 16;
constexpr size_t kMaxLogitBytes = 16 << 20;  // of one call of a sink
/// What compiled layers may take between the check for room and the start of the threads.
constexpr size_t kKernelBytes = size_t{32} << 20;

double now_us() {
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Room for `rows` rows of `width` elements of 4 bytes, as linear layers want it.
void grow_rows(Buffer& buffer, int64_t rows, int64_t width) {
  buffer.grow("activations",
              static_cast<size_t>(Linear::padded_rows(rows)) * static_cast<size_t>(width) * 4);
}

}  // namespace

Forward::Forward(const LoadedModel& model, const DecoderOptions& options)
    : model_(model),
      options_(options),
      rotary_(model.config().rotary_dim, model.config().rope_theta) {}

void Forward::lap(double& field) {
  const double now = now_us();
  field += now - lap_start_us_;
  lap_start_us_ = now;
}

bool Forward::selects(int64_t layer) const {
  return options_.attention == AttentionMode::kSparse &&
         model_.config().layers[static_cast<size_t>(layer)] == LayerKind::kSparseAttention;
}

void Forward::grow(int64_t num_tokens) {
  const ModelConfig& config = model_.config();
  const int64_t q_width = config.num_attention_heads * config.head_dim;
  const int64_t kv_width = config.num_key_value_heads * config.head_dim;
  grow_rows(x_, num_tokens, config.hidden_size);
  grow_rows(normed_, num_tokens, config.hidden_size);
  grow_rows(qkv_, num_tokens, q_width + 2 * kv_width);
  grow_rows(index_, num_tokens, (config.num_key_value_heads + 1) * config.index_dim);
  grow_rows(attention_, num_tokens, q_width);
  grow_rows(gate_up_, num_tokens, 2 * config.intermediate_size);
  grow_rows(activation_, num_tokens, config.intermediate_size);
  grow_rows(block_ids_, num_tokens, config.num_key_value_heads * config.top_k);
  grow_rows(cosines_, num_tokens, rotary_.num_pairs());
  grow_rows(sines_, num_tokens, rotary_.num_pairs());
  if (!started_) {
    check_room("threads", kKernelBytes + stack_bytes(model_.context().num_threads() - 1));
    started_ = true;
  }
}

void Forward::embed(std::span<const int32_t> tokens) {
  const auto hidden = static_cast<size_t>(model_.config().hidden_size);
  const float* table = model_.weights().embedding.data();
  for (size_t row = 0; row < tokens.size(); ++row) {
    std::memcpy(x_.as<float>() + row * hidden, table + static_cast<size_t>(tokens[row]) * hidden,
                hidden * sizeof(float));
  }
}

void Forward::fill_angles(const Chunk& chunk) {
  const int64_t pairs = rotary_.num_pairs();
  for_each_range(model_.context(), chunk.num_tokens, kRowsPerTask, [&](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      rotary_.fill(chunk.first_position + row, cosines_.as<float>() + row * pairs,
                   sines_.as<float>() + row * pairs);
    }
  });
}

void Forward::norm_rows(const std::vector<float>& weight, int64_t first_row, int64_t num_rows) {
  const int64_t hidden = model_.config().hidden_size;
  const auto eps = static_cast<float>(model_.config().rms_norm_eps);
  for_each_range(model_.context(), num_rows, kRowsPerTask, [&](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      const int64_t at = (first_row + row) * hidden;
      rms_norm(x_.as<float>() + at, weight.data(), hidden, eps, normed_.as<float>() + at);
    }
  });
}

/// q, k and v of every row, side by side in qkv_.
void Forward::project(int64_t layer, const Chunk& chunk) {
  const ModelConfig& config = model_.config();
  const LayerWeights& weights = model_.weights().layers[static_cast<size_t>(layer)];
  const int64_t dim = config.head_dim;
  const int64_t num_q = config.num_attention_heads;
  const int64_t num_kv = config.num_key_value_heads;
  const int64_t width = (num_q + 2 * num_kv) * dim;
  const int64_t pairs = rotary_.num_pairs();
  const auto eps = static_cast<float>(config.rms_norm_eps);
  lap(timings_.other_us);
  weights.qkv.run(model_.context(), normed_.as<float>(), chunk.num_tokens, qkv_.as<float>());
  lap(timings_.linear_us);
  for_each_range(model_.context(), chunk.num_tokens, kRowsPerTask, [&](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      const float* cosines = cosines_.as<float>() + row * pairs;
      const float* sines = sines_.as<float>() + row * pairs;
      float* q = qkv_.as<float>() + row * width;
      for (int64_t head = 0; head < num_q + num_kv; ++head) {
        float* x = q + head * dim;
        rms_norm(x, (head < num_q ? weights.q_norm : weights.k_norm).data(), dim, eps, x);
        rotate(x, cosines, sines, pairs);
      }
    }
  });
}

/// The same for the index branch: its queries and its key, side by side in index_.
void Forward::project_index(int64_t layer, const Chunk& chunk) {
  const ModelConfig& config = model_.config();
  const LayerWeights& weights = model_.weights().layers[static_cast<size_t>(layer)];
  const int64_t dim = config.index_dim;
  const int64_t num_heads = config.num_key_value_heads;
  const int64_t pairs = rotary_.num_pairs();
  const auto eps = static_cast<float>(config.rms_norm_eps);
  lap(timings_.other_us);
  weights.index.run(model_.context(), normed_.as<float>(), chunk.num_tokens, index_.as<float>());
  lap(timings_.linear_us);
  for_each_range(model_.context(), chunk.num_tokens, kRowsPerTask, [&](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      float* q = index_.as<float>() + row * (num_heads + 1) * dim;
      for (int64_t head = 0; head <= num_heads; ++head) {
        float* x = q + head * dim;
        rms_norm(x, (head < num_heads ? weights.index_q_norm : weights.index_k_norm).data(), dim,
                 eps, x);
        rotate(x, cosines_.as<float>() + row * pairs, sines_.as<float>() + row * pairs, pairs);
      }
    }
  });
}

/// k, v and index key of the chunk go to their pages.
void Forward::append(int64_t layer, const Chunk& chunk, PagedCaches& caches) {
  const ModelConfig& config = model_.config();
  const int64_t num_q = config.num_attention_heads;
  const int64_t num_kv = config.num_key_value_heads;
  const int64_t dim = config.head_dim;
  const int64_t width = (num_q + 2 * num_kv) * dim;
  const int32_t cu_seqlens_q[2] = {0, static_cast<int32_t>(chunk.num_tokens)};
  const int32_t kv_lens[1] = {static_cast<int32_t>(chunk.key_length)};
  const float* k = qkv_.as<float>() + num_q * dim;
  CacheAppendArgs args;
  args.k = {k, DType::kFloat32, {chunk.num_tokens, num_kv, dim}, {width, dim, 1}};
  args.v = {k + num_kv * dim, DType::kFloat32, {chunk.num_tokens, num_kv, dim}, {width, dim, 1}};
  if (selects(layer)) {
    args.k_idx = {index_.as<float>() + num_kv * config.index_dim,
                  DType::kFloat32,
                  {chunk.num_tokens, config.index_dim},
                  {(num_kv + 1) * config.index_dim, 1}};
  }
  args.sequences = {.cu_seqlens_q = {cu_seqlens_q, DType::kInt32, {2}},
                    .cu_seqlens_k = {},
                    .page_table = caches.page_table(),
                    .kv_lens = {kv_lens, DType::kInt32, {1}}};
  args.cache = caches.layer(layer);
  cache_append(model_.context(), args);
}

/// Attention of the rows from first_row on, and its output projection added to x.
void Forward::attend(int64_t layer, const Chunk& chunk, int64_t first_row, PagedCaches& caches) {
  const Context& context = model_.context();
  const ModelConfig& config = model_.config();
  const int64_t num_rows = chunk.num_tokens - first_row;
  const int64_t num_q = config.num_attention_heads;
  const int64_t num_kv = config.num_key_value_heads;
  const int64_t dim = config.head_dim;
  const int64_t qkv_width = (num_q + 2 * num_kv) * dim;
  const int32_t cu_seqlens_q[2] = {0, static_cast<int32_t>(num_rows)};
  const int32_t kv_lens[1] = {static_cast<int32_t>(chunk.key_length)};
  const Sequences sequences = {.cu_seqlens_q = {cu_seqlens_q, DType::kInt32, {2}},
                               .cu_seqlens_k = {},
                               .page_table = caches.page_table(),
                               .kv_lens = {kv_lens, DType::kInt32, {1}}};
  const Tensor q = {qkv_.as<float>() + first_row * qkv_width,
                    DType::kFloat32,
                    {num_rows, num_q, dim},
                    {qkv_width, dim, 1}};
  const CacheViews cache = caches.layer(layer);
  float* attended = attention_.as<float>() + first_row * num_q * dim;
  const MutableTensor out = {attended, DType::kFloat32, {num_rows, num_q, dim}};
  const auto workspace = [this](size_t bytes) {
    workspace_.grow("the workspace of attention", bytes);
    return Workspace{workspace_.data(), workspace_.bytes()};
  };

  lap(timings_.other_us);
  if (selects(layer)) {
    const int64_t index_dim = config.index_dim;
    const int64_t index_width = (num_kv + 1) * index_dim;
    const MutableTensor ids = {block_ids_.data(), DType::kInt32, {num_kv, num_rows, config.top_k}};
    IndexForwardArgs index;
    index.q_idx = {index_.as<float>() + first_row * index_width,
                   DType::kFloat32,
                   {num_rows, num_kv, index_dim},
                   {index_width, index_dim, 1}};
    index.k_idx = cache.k_idx;
    index.sequences = sequences;
    index.block_size = config.block_size;
    index.block_ids = ids;
    index_forward(context, index, workspace(index_forward_workspace_size(context, index)));
    lap(timings_.index_us);
    if (options_.selection_hook) {
      options_.selection_hook(layer, chunk.first_position + first_row, num_rows, ids);
      lap(timings_.other_us);
    }
    if (options_.selection_probe) {
      options_.selection_probe({.layer = layer,
                                .first_position = chunk.first_position + first_row,
                                .num_tokens = num_rows,
                                .q = q,
                                .k = cache.k,
                                .page_table = sequences.page_table,
                                .block_ids = ids});
      lap(timings_.other_us);
    }
    AttentionForwardArgs args;
    args.q = q;
    args.k = cache.k;
    args.v = cache.v;
    args.sequences = sequences;
    args.block_size = config.block_size;
    args.block_ids = ids;
    args.out = out;
    attention_forward(context, args, workspace(attention_forward_workspace_size(context, args)));
    lap(timings_.attention_us);
  } else {
    DenseAttentionForwardArgs args;
    args.q = q;
    args.k = cache.k;
    args.v = cache.v;
    args.sequences = sequences;
    args.out = out;
    dense_attention_forward(context, args,
                            workspace(dense_attention_forward_workspace_size(context, args)));
    lap(timings_.dense_attention_us);
  }
  model_.weights().layers[static_cast<size_t>(layer)].output.run(
      context, attended, num_rows, x_.as<float>() + first_row * config.hidden_size, true);
  lap(timings_.linear_us);
}

void Forward::feed_forward(int64_t layer, int64_t first_row, int64_t num_rows) {
  const ModelConfig& config = model_.config();
  const LayerWeights& weights = model_.weights().layers[static_cast<size_t>(layer)];
  const int64_t inner = config.intermediate_size;
  const auto alpha = static_cast<float>(config.swiglu_alpha);
  const auto limit = static_cast<float>(config.swiglu_limit);
  norm_rows(weights.post_attention_norm, first_row, num_rows);
  lap(timings_.other_us);
  weights.gate_up.run(model_.context(), normed_.as<float>() + first_row * config.hidden_size,
                      num_rows, gate_up_.as<float>());
  lap(timings_.linear_us);
  for_each_range(model_.context(), num_rows, kRowsPerTask, [&](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      swiglu(gate_up_.as<float>() + row * 2 * inner, inner, alpha, limit,
             activation_.as<float>() + row * inner);
    }
  });
  lap(timings_.other_us);
  weights.down.run(model_.context(), activation_.as<float>(), num_rows,
                   x_.as<float>() + first_row * config.hidden_size, true);
  lap(timings_.linear_us);
}

void Forward::make_logits(const Chunk& chunk, LogitRows rows, const LogitsSink& sink) {
  const ModelConfig& config = model_.config();
  const Linear& head = model_.weights().lm_head;
  const int64_t first = rows == LogitRows::kAll ? 0 : chunk.num_tokens - 1;
  norm_rows(model_.weights().final_norm, first, chunk.num_tokens - first);
  const auto row_bytes = static_cast<size_t>(config.vocab_size) * sizeof(float);
  // A multiple of the padding of linear layers, so that only the last call has padded rows.
  const auto most =
      static_cast<int64_t>(std::max<size_t>(kMaxLogitBytes / row_bytes, 16)) / 16 * 16;
  grow_rows(logits_, std::min(most, chunk.num_tokens - first), config.vocab_size);
  for (int64_t row = first; row < chunk.num_tokens; row += most) {
    const int64_t count = std::min(most, chunk.num_tokens - row);
    lap(timings_.other_us);
    head.run(model_.context(), normed_.as<float>() + row * config.hidden_size, count,
             logits_.as<float>());
    lap(timings_.linear_us);
    if (rows == LogitRows::kAll) sink(chunk.first_position + row, count, logits_.as<float>());
    last_logits_ = logits_.as<float>() + (count - 1) * config.vocab_size;
  }
  lap(timings_.other_us);
}

void Forward::run(std::span<const int32_t> tokens, int64_t first_position, LogitRows rows,
                  const LogitsSink& sink, PagedCaches& caches) {
  lap_start_us_ = now_us();
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  const Chunk chunk = {num_tokens, first_position, first_position + num_tokens};
  grow(num_tokens);
  embed(tokens);
  fill_angles(chunk);
  const int64_t num_layers = model_.config().num_hidden_layers;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const bool is_last = layer + 1 == num_layers;
    const bool whole =
        !is_last || rows == LogitRows::kAll || options_.selection_hook || options_.selection_probe;
    const int64_t first_row = whole ? 0 : rows == LogitRows::kLast ? num_tokens - 1 : num_tokens;
    norm_rows(model_.weights().layers[static_cast<size_t>(layer)].input_norm, 0, num_tokens);
    project(layer, chunk);
    if (selects(layer)) project_index(layer, chunk);
    append(layer, chunk, caches);
    if (first_row == num_tokens) continue;
    attend(layer, chunk, first_row, caches);
    feed_forward(layer, first_row, num_tokens - first_row);
  }
  if (rows != LogitRows::kNone) make_logits(chunk, rows, sink);
  lap(timings_.other_us);
}

const float* Forward::last_logits() const { return last_logits_; }

size_t Forward::workspace_bytes() const {
  size_t bytes = 0;
  for (const Buffer* buffer : {&x_, &normed_, &qkv_, &index_, &attention_, &gate_up_, &activation_,
                               &block_ids_, &cosines_, &sines_, &workspace_, &logits_}) {
    bytes += buffer->bytes();
  }
  return bytes;
}

}  // namespace msa::runner
