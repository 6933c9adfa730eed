#include "tests/runner/plain_model.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace msa::runner::test {
namespace {

using Vector = std::vector<double>;

Vector multiply(const NamedTensor& matrix, const Vector& x) {
  const auto rows = static_cast<size_t>(matrix.shape[0]);
  Vector y(rows, 0.0);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < x.size(); ++c) {
      y[r] += static_cast<double>(matrix.values[r * x.size() + c]) * x[c];
    }
  }
  return y;
}

Vector norm(const NamedTensor& weight, const Vector& x) {
  double sum = 0;
  for (double value : x) sum += value * value;
  Vector y;
  for (size_t i = 0; i < x.size(); ++i) {
    y.push_back(x[i] / std::sqrt(sum / static_cast<double>(x.size()) + 1e-6) *
                (1 + static_cast<double>(weight.values[i])));
  }
  return y;
}

double dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

class PlainModel {
 public:
  PlainModel(const Json& config, const TensorMap& weights, bool dense)
      : config_(config), weights_(weights), dense_(dense) {}

  std::vector<Vector> logits(const std::vector<int32_t>& tokens) const {
    std::vector<Vector> x;
    for (int32_t token : tokens) x.push_back(embedding(token));
    for (size_t layer = 0; layer < size("num_hidden_layers"); ++layer) {
      attend(layer, x);
      for (Vector& row : x) feed_forward(layer, row);
    }
    const bool tied = config_.at("tie_word_embeddings").get<bool>();
    const NamedTensor& head = weight(tied ? "model.embed_tokens.weight" : "lm_head.weight");
    std::vector<Vector> result;
    for (const Vector& row : x) {
      result.push_back(multiply(head, norm(weight("model.norm.weight"), row)));
    }
    return result;
  }

 private:
  size_t size(const char* key) const { return config_.at(key).get<size_t>(); }
  const NamedTensor& weight(const std::string& name) const { return weights_.at(name); }

  Vector embedding(int32_t token) const {
    const NamedTensor& table = weight("model.embed_tokens.weight");
    const size_t hidden = size("hidden_size");
    const auto begin = table.values.begin() + static_cast<int64_t>(hidden) * token;
    return {begin, begin + static_cast<int64_t>(hidden)};
  }

  /// The heads of a projection, each with its norm (none for values) and RoPE at `position`.
  std::vector<Vector> heads(const std::string& part, const Vector& h, size_t dim,
                            const std::string& norm_name, size_t position) const {
    const Vector all = multiply(weight(part), h);
    std::vector<Vector> result;
    for (size_t begin = 0; begin < all.size(); begin += dim) {
      Vector head(all.begin() + static_cast<int64_t>(begin),
                  all.begin() + static_cast<int64_t>(begin + dim));
      if (!norm_name.empty()) head = turn(norm(weight(norm_name), head), position);
      result.push_back(std::move(head));
    }
    return result;
  }

  Vector turn(const Vector& x, size_t position) const {
    const Json& rope = config_.at("rope_parameters");
    const double theta = rope.at("rope_theta").get<double>();
    const auto rotary = static_cast<size_t>(static_cast<double>(size("head_dim")) *
                                            rope.at("partial_rotary_factor").get<double>());
    Vector y = x;
    for (size_t i = 0; i < rotary / 2; ++i) {
      const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(rotary);
      const double angle = static_cast<double>(position) * std::pow(theta, exponent);
      y[i] = x[i] * std::cos(angle) - x[i + rotary / 2] * std::sin(angle);
      y[i + rotary / 2] = x[i + rotary / 2] * std::cos(angle) + x[i] * std::sin(angle);
    }
    return y;
  }

  /// Blocks that query `i` of group `g` reads: its own, and the best of the others.
  std::vector<bool> select(const Vector& query, const std::vector<Vector>& keys, size_t i) const {
    const size_t block = size("index_block_size");
    const size_t local = i / block;
    Vector best(local + 1, -std::numeric_limits<double>::infinity());
    for (size_t j = 0; j <= i; ++j) {
      best[j / block] = std::max(best[j / block], dot(query, keys[j]));
    }
    std::vector<bool> chosen(local + 1, false);
    chosen[local] = true;
    for (size_t n = 1; n < size("index_topk_blocks"); ++n) {
      size_t top = local + 1;
      for (size_t b = 0; b < local; ++b) {
        if (!chosen[b] && (top > local || best[b] > best[top])) top = b;
      }
      if (top <= local) chosen[top] = true;
    }
    return chosen;
  }

  void attend(size_t layer, std::vector<Vector>& x) const {
    const std::string name = "model.layers." + std::to_string(layer) + ".";
    const std::string attention = name + "self_attn.";
    const size_t dim = size("head_dim");
    const size_t num_q = size("num_attention_heads");
    const size_t group = num_q / size("num_key_value_heads");
    const bool sparse = !dense_ && config_.at("layer_types").at(layer) == Json("minimax_m3_sparse");
    std::vector<std::vector<Vector>> q, k, v, index_q;
    std::vector<Vector> index_k;
    for (size_t i = 0; i < x.size(); ++i) {
      const Vector h = norm(weight(name + "input_layernorm.weight"), x[i]);
      q.push_back(heads(attention + "q_proj.weight", h, dim, attention + "q_norm.weight", i));
      k.push_back(heads(attention + "k_proj.weight", h, dim, attention + "k_norm.weight", i));
      v.push_back(heads(attention + "v_proj.weight", h, dim, "", i));
      if (!sparse) continue;
      const size_t index_dim = size("index_head_dim");
      const std::string index = attention + "indexer.";
      index_q.push_back(heads(index + "q_proj.weight", h, index_dim, index + "q_norm.weight", i));
      index_k.push_back(
          heads(index + "k_proj.weight", h, index_dim, index + "k_norm.weight", i)[0]);
    }
    for (size_t i = 0; i < x.size(); ++i) {
      Vector out;
      for (size_t head = 0; head < num_q; ++head) {
        const size_t g = head / group;
        std::vector<bool> chosen;
        if (sparse) chosen = select(index_q[i][g], index_k, i);
        Vector sum(dim, 0.0);
        double total = 0;
        for (size_t j = 0; j <= i; ++j) {
          if (sparse && !chosen[j / size("index_block_size")]) continue;
          const double weight_j =
              std::exp(dot(q[i][head], k[j][g]) / std::sqrt(static_cast<double>(dim)));
          total += weight_j;
          for (size_t d = 0; d < dim; ++d) sum[d] += weight_j * v[j][g][d];
        }
        for (double value : sum) out.push_back(value / total);
      }
      const Vector y = multiply(weight(attention + "o_proj.weight"), out);
      for (size_t d = 0; d < y.size(); ++d) x[i][d] += y[d];
    }
  }

  void feed_forward(size_t layer, Vector& x) const {
    const std::string name = "model.layers." + std::to_string(layer) + ".";
    const Vector h = norm(weight(name + "post_attention_layernorm.weight"), x);
    const Vector both = multiply(weight(name + "mlp.gate_up_proj.weight"), h);
    const size_t inner = both.size() / 2;
    Vector active;
    for (size_t i = 0; i < inner; ++i) {
      const double gate = std::min(both[i], 7.0);
      const double up = std::clamp(both[inner + i], -7.0, 7.0);
      active.push_back((up + 1) * gate / (1 + std::exp(-1.702 * gate)));
    }
    const Vector y = multiply(weight(name + "mlp.down_proj.weight"), active);
    for (size_t d = 0; d < y.size(); ++d) x[d] += y[d];
  }

  const Json& config_;
  const TensorMap& weights_;
  bool dense_;
};

}  // namespace

std::vector<std::vector<double>> plain_logits(const Json& config, const TensorMap& weights,
                                              const std::vector<int32_t>& tokens, bool dense) {
  return PlainModel(config, weights, dense).logits(tokens);
}

}  // namespace msa::runner::test
