#include "cli/verify/run_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "cli/verify/mirror.h"
#include "runner/files/json.h"

namespace msa::cli {
namespace {

using Names = std::vector<std::string>;

constexpr const char* kWhat = "conformance pack";
constexpr size_t kGuardBytes = 64;
constexpr int kGuard = 0x5A;
constexpr int kPattern = 0xC7;  // as float a finite number, as id a negative one: never a result

bool contains(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Guarded memory: guard, body, guard. The op gets `address`, the case reads and writes `body`.
class Guarded {
 public:
  Guarded(const Context& context, std::string name, size_t bytes)
      : name_(std::move(name)),
        bytes_(bytes),
        memory_(filled(bytes)),
        mirror_(context, memory_.data(), bytes + 2 * kGuardBytes) {}
  std::byte* body() const { return memory_.data() + kGuardBytes; }
  std::byte* address() const { return mirror_.data() + kGuardBytes; }
  size_t bytes() const { return bytes_; }
  void upload() const { mirror_.upload(); }
  /// After the op: brings the body back.
  void check() const {
    mirror_.download();
    const auto untouched = [](const std::byte* bytes) {
      return std::all_of(bytes, bytes + kGuardBytes,
                         [](std::byte value) { return value == std::byte{kGuard}; });
    };
    if (!untouched(memory_.data())) throw CaseError(name_ + ": written before its first byte");
    if (!untouched(body() + bytes_)) throw CaseError(name_ + ": written past its last byte");
  }

 private:
  static AlignedBytes filled(size_t bytes) {
    AlignedBytes memory(bytes + 2 * kGuardBytes);
    std::memset(memory.data(), kGuard, bytes + 2 * kGuardBytes);
    std::memset(memory.data() + kGuardBytes, kPattern, bytes);
    return memory;
  }

  std::string name_;
  size_t bytes_;
  AlignedBytes memory_;
  Mirror mirror_;
};

class CaseRun {
 public:
  CaseRun(const Pack& pack, const PackCase& item, const Context& context, const Names& outputs)
      : pack_(pack), item_(item), context_(context), wanted_(outputs) {
    for (const auto& entry : item.inputs) {
      const LoadedInput& loaded = inputs_[entry.first] =
          from_pack([&] { return load_input(pack, entry.first, entry.second); });
      const AlignedBytes& memory = *loaded.memory;
      const Mirror& mirror =
          mirrors_.try_emplace(entry.first, context, memory.data(), memory.bytes()).first->second;
      addresses_[entry.first] =
          mirror.data() + (static_cast<const std::byte*>(loaded.view.data) - memory.data());
    }
  }

  /// An absent view where the case has no such input.
  Tensor input(const std::string& name) const {
    const auto found = inputs_.find(name);
    if (found == inputs_.end()) return {};
    Tensor view = found->second.view;
    view.data = addresses_.at(name);
    return view;
  }

  MutableTensor output(const std::string& name, DType dtype, const std::vector<int64_t>& shape) {
    if (!contains(wanted_, name)) return {};
    int64_t count = 1;
    for (const int64_t extent : shape) {
      if (extent < 0 || extent > kMostElements || count * extent > kMostElements) {
        throw CaseError(fmt::format("{}: too large for a case", name));
      }
      count *= extent;
    }
    const size_t bytes = static_cast<size_t>(count) * dtype_bytes(dtype);
    const auto [slot, fresh] = outputs_.try_emplace(name, context_, name, bytes);
    MutableTensor view;
    view.data = slot->second.address();
    view.dtype = dtype;
    view.rank = static_cast<int>(shape.size());
    int64_t step = 1;
    for (size_t axis = shape.size(); axis-- > 0;) {
      view.shape[axis] = shape[axis];
      view.stride[axis] = step;
      step *= shape[axis];
    }
    views_[name] = view;
    return view;
  }

  /// An input that the op changes: an output that begins as a copy of it.
  MutableTensor changed(const std::string& name) {
    const Tensor before = input(name);
    if (!before.present() || !contains(wanted_, name)) return {};
    const MutableTensor view =
        output(name, before.dtype, {before.shape.begin(), before.shape.begin() + before.rank});
    const Guarded& copy = outputs_.at(name);
    std::memcpy(copy.body(), inputs_.at(name).view.data, copy.bytes());
    copy.upload();
    return view;
  }

  Sequences sequences() const {
    return {.cu_seqlens_q = input("cu_seqlens_q"),
            .cu_seqlens_k = input("cu_seqlens_k"),
            .page_table = input("page_table"),
            .kv_lens = input("kv_lens")};
  }

  int64_t integer(const char* key, int64_t most) const {
    const runner::Json* value = runner::json_member(item_.arguments, key);
    if (value == nullptr) return 0;
    return from_pack([&] { return runner::json_integer(kWhat, key, *value, 0, most); });
  }
  std::string word(const char* key) const {
    const runner::Json* value = runner::json_member(item_.arguments, key);
    if (value == nullptr) return "";
    return from_pack([&] { return runner::json_string(kWhat, key, *value); });
  }
  std::optional<float> scale() const {
    const runner::Json* value = runner::json_member(item_.arguments, "scale");
    if (value == nullptr) return {};
    if (runner::json_is(*value, "inf")) return std::numeric_limits<float>::infinity();
    if (runner::json_is(*value, "nan")) return std::numeric_limits<float>::quiet_NaN();
    if (!value->is_number()) throw CaseError("scale: no number");
    return value->get<float>();
  }
  double real(const char* key) const {
    const runner::Json* value = runner::json_member(item_.arguments, key);
    if (value == nullptr || !value->is_number()) throw CaseError(fmt::format("{}: no number", key));
    return value->get<double>();
  }
  BlockIdLayout id_layout() const {
    return word("id_layout") == "token_major" ? BlockIdLayout::kTokenMajor
                                              : BlockIdLayout::kHeadMajor;
  }
  int64_t expected_extent(const std::string& name, size_t axis) const {
    const auto found = item_.expect.find(name);
    if (found == item_.expect.end()) return 1;
    const std::vector<int64_t> shape =
        from_pack([&] { return pack_.tensor(found->second.tensor).shape; });
    return axis < shape.size() ? shape[axis] : 1;
  }

  /// Calls the op with a workspace of `bytes`.
  void run(size_t bytes, const std::function<void(Workspace)>& op) const {
    const Guarded workspace(context_, "workspace", bytes);
    op({.data = workspace.address(), .bytes = bytes, .stream = nullptr});
    workspace.check();
  }

  const Context& context() const { return context_; }

  CaseResults results() const {
    CaseResults results;
    for (const auto& [name, memory] : outputs_) {
      memory.check();
      const MutableTensor& view = views_.at(name);
      runner::StoredTensor stored;
      stored.shape.assign(view.shape.begin(), view.shape.begin() + view.rank);
      stored.data = memory.body();
      stored.bytes = memory.bytes();
      stored.dtype = view.dtype == DType::kInt32      ? "I32"
                     : view.dtype == DType::kFloat32  ? "F32"
                     : view.dtype == DType::kBFloat16 ? "BF16"
                                                      : "F16";
      results[name] = {stored.shape, to_doubles(name, stored)};
    }
    return results;
  }

 private:
  static constexpr int64_t kMostElements = int64_t{1} << 28;

  const Pack& pack_;
  const PackCase& item_;
  const Context& context_;
  const Names& wanted_;
  std::map<std::string, LoadedInput> inputs_;
  std::map<std::string, Mirror> mirrors_;
  std::map<std::string, const void*> addresses_;  // of the inputs' first elements, for the op
  std::map<std::string, Guarded> outputs_;
  std::map<std::string, MutableTensor> views_;
};

constexpr int64_t kMostTokens = 1 << 20;
constexpr int64_t kMostBlocks = 4096;

void index_forward_case(CaseRun& run) {
  IndexForwardArgs args;
  args.q_idx = run.input("q_idx");
  args.k_idx = run.input("k_idx");
  args.sequences = run.sequences();
  args.block_size = run.integer("block_size", kMostTokens);
  args.scale = run.scale();
  args.block_id_layout = run.id_layout();
  if (run.word("lse_scope") == "visible") args.lse_scope = IndexLseScope::kVisible;
  const int64_t rows = args.q_idx.shape[0];
  const int64_t groups = args.q_idx.shape[1];
  const int64_t top_k = run.integer("top_k", kMostBlocks);
  const bool head_major = args.block_id_layout == BlockIdLayout::kHeadMajor;
  args.block_ids = run.output("block_ids", DType::kInt32,
                              {head_major ? groups : rows, head_major ? rows : groups, top_k});
  args.block_scores = run.output("block_scores", DType::kFloat32,
                                 {groups, rows, run.expected_extent("block_scores", 2)});
  args.lse_idx = run.output("lse_idx", DType::kFloat32, {groups, rows});
  run.run(index_forward_workspace_size(run.context(), args),
          [&](Workspace workspace) { index_forward(run.context(), args, workspace); });
}

template <typename Args>
void fill_attention(CaseRun& run, Args& args) {
  args.q = run.input("q");
  args.k = run.input("k");
  args.v = run.input("v");
  args.sequences = run.sequences();
  args.scale = run.scale();
  const int64_t rows = args.q.shape[0];
  const int64_t heads = args.q.shape[1];
  args.out = run.output("out", args.q.dtype, {rows, heads, args.q.shape[2]});
  args.lse = run.output("lse", DType::kFloat32, {rows, heads});
}

void attention_forward_case(CaseRun& run) {
  AttentionForwardArgs args;
  fill_attention(run, args);
  args.block_size = run.integer("block_size", kMostTokens);
  args.block_ids = run.input("block_ids");
  args.block_id_layout = run.id_layout();
  run.run(attention_forward_workspace_size(run.context(), args),
          [&](Workspace workspace) { attention_forward(run.context(), args, workspace); });
}

void dense_attention_forward_case(CaseRun& run) {
  DenseAttentionForwardArgs args;
  fill_attention(run, args);
  run.run(dense_attention_forward_workspace_size(run.context(), args),
          [&](Workspace workspace) { dense_attention_forward(run.context(), args, workspace); });
}

CacheViews caches_of(CaseRun& run) {
  return {.k = run.changed("cache_k"),
          .v = run.changed("cache_v"),
          .k_idx = run.changed("cache_k_idx")};
}

void cache_append_case(CaseRun& run) {
  CacheAppendArgs args;
  args.k = run.input("k");
  args.v = run.input("v");
  args.k_idx = run.input("k_idx");
  args.sequences = run.sequences();
  args.cache = caches_of(run);
  cache_append(run.context(), args);
}

void copy_pages_case(CaseRun& run) {
  CopyPagesArgs args;
  args.pages = run.input("pages");
  args.cache = caches_of(run);
  copy_pages(run.context(), args);
}

void merge_states_case(CaseRun& run) {
  MergeStatesArgs args;
  args.out_a = run.input("out_a");
  args.lse_a = run.input("lse_a");
  args.out_b = run.input("out_b");
  args.lse_b = run.input("lse_b");
  const Tensor& part = args.out_a;
  args.out = run.output("out", part.dtype, {part.shape[0], part.shape[1], part.shape[2]});
  args.lse = run.output("lse", DType::kFloat32, {part.shape[0], part.shape[1]});
  merge_states(run.context(), args);
}

void index_candidates_case(CaseRun& run) {
  IndexCandidatesArgs args;
  args.q_idx = run.input("q_idx");
  args.k_idx = run.input("k_idx");
  args.sequences = run.sequences();
  args.block_size = run.integer("block_size", kMostTokens);
  args.blocks = {run.integer("begin", kMostTokens), run.integer("end", kMostTokens)};
  const std::vector<int64_t> shape = {args.q_idx.shape[1], args.q_idx.shape[0],
                                      run.integer("top_k", kMostBlocks)};
  args.candidate_ids = run.output("candidate_ids", DType::kInt32, shape);
  args.candidate_scores = run.output("candidate_scores", DType::kFloat32, shape);
  run.run(index_candidates_workspace_size(run.context(), args),
          [&](Workspace workspace) { index_candidates(run.context(), args, workspace); });
}

void merge_candidates_case(CaseRun& run) {
  MergeCandidatesArgs args;
  args.candidate_ids = run.input("candidate_ids");
  args.candidate_scores = run.input("candidate_scores");
  args.block_id_layout = run.id_layout();
  const auto& parts = args.candidate_ids.shape;
  const bool head_major = args.block_id_layout == BlockIdLayout::kHeadMajor;
  args.merged_ids = run.output("merged_ids", DType::kInt32, {parts[1], parts[2], parts[3]});
  args.merged_scores = run.output("merged_scores", DType::kFloat32, {parts[1], parts[2], parts[3]});
  args.block_ids =
      run.output("block_ids", DType::kInt32,
                 {head_major ? parts[1] : parts[2], head_major ? parts[2] : parts[1], parts[3]});
  merge_candidates(run.context(), args);
}

void select_blocks_case(CaseRun& run) {
  SelectBlocksArgs args;
  args.block_scores = run.input("block_scores");
  args.local_blocks = run.input("local_blocks");
  args.block_id_layout = run.id_layout();
  const auto& scores = args.block_scores.shape;
  const bool head_major = args.block_id_layout == BlockIdLayout::kHeadMajor;
  args.block_ids =
      run.output("block_ids", DType::kInt32,
                 {head_major ? scores[0] : scores[1], head_major ? scores[1] : scores[0],
                  run.integer("top_k", kMostBlocks)});
  select_blocks(run.context(), args);
}

MutableTensor gradient(CaseRun& run, const std::string& name, const Tensor& of) {
  return run.output(name, of.dtype, {of.shape.begin(), of.shape.begin() + of.rank});
}

template <typename Args>
void fill_backward(CaseRun& run, Args& args) {
  args.q = run.input("q");
  args.k = run.input("k");
  args.v = run.input("v");
  args.sequences = run.sequences();
  args.scale = run.scale();
  args.out = run.input("out");
  args.lse = run.input("lse");
  args.dout = run.input("dout");
  args.dlse = run.input("dlse");
  args.dq = gradient(run, "dq", args.q);
  args.dk = gradient(run, "dk", args.k);
  args.dv = gradient(run, "dv", args.v);
}

void attention_backward_case(CaseRun& run) {
  AttentionBackwardArgs args;
  fill_backward(run, args);
  args.block_size = run.integer("block_size", kMostTokens);
  args.block_ids = run.input("block_ids");
  args.block_id_layout = run.id_layout();
  run.run(attention_backward_workspace_size(run.context(), args),
          [&](Workspace workspace) { attention_backward(run.context(), args, workspace); });
}

void dense_attention_backward_case(CaseRun& run) {
  DenseAttentionBackwardArgs args;
  fill_backward(run, args);
  run.run(dense_attention_backward_workspace_size(run.context(), args),
          [&](Workspace workspace) { dense_attention_backward(run.context(), args, workspace); });
}

void kl_forward_backward_case(CaseRun& run) {
  KlForwardBackwardArgs args;
  args.q = run.input("q");
  args.k = run.input("k");
  args.lse = run.input("lse");
  args.q_idx = run.input("q_idx");
  args.k_idx = run.input("k_idx");
  args.lse_idx = run.input("lse_idx");
  args.sequences = run.sequences();
  args.block_size = run.integer("block_size", kMostTokens);
  args.scope = run.word("scope") == "visible" ? KlScope::kVisible : KlScope::kSelected;
  args.block_ids = run.input("block_ids");
  args.block_id_layout = run.id_layout();
  args.coefficient = static_cast<float>(run.real("coefficient"));
  args.normaliser = run.real("normaliser");
  args.loss = run.output("loss", DType::kFloat32, {1});
  args.dq_idx = gradient(run, "dq_idx", args.q_idx);
  args.dk_idx = gradient(run, "dk_idx", args.k_idx);
  run.run(kl_forward_backward_workspace_size(run.context(), args),
          [&](Workspace workspace) { kl_forward_backward(run.context(), args, workspace); });
}

void recall_case(CaseRun& run) {
  RecallArgs args;
  args.q = run.input("q");
  args.k = run.input("k");
  args.sequences = run.sequences();
  args.block_size = run.integer("block_size", kMostTokens);
  args.block_ids = run.input("block_ids");
  args.block_id_layout = run.id_layout();
  const auto mean = [&run](const char* name) { return run.output(name, DType::kFloat32, {1}); };
  args.means = {.block_recall = mean("block_recall"),
                .score_recall = mean("score_recall"),
                .block_recall_without_local = mean("block_recall_without_local"),
                .score_recall_without_local = mean("score_recall_without_local")};
  run.run(recall_workspace_size(run.context(), args),
          [&](Workspace workspace) { recall(run.context(), args, workspace); });
}

struct KnownOp {
  const char* name;
  void (*run)(CaseRun&);
  Names outputs;  // what a case that is to be refused asks for
};

const std::vector<KnownOp>& known_ops() {
  static const std::vector<KnownOp> ops = {
      {"index_forward", index_forward_case, {"block_ids"}},
      {"attention_forward", attention_forward_case, {"out"}},
      {"dense_attention_forward", dense_attention_forward_case, {"out"}},
      {"cache_append", cache_append_case, {"cache_k", "cache_v", "cache_k_idx"}},
      {"copy_pages", copy_pages_case, {"cache_k", "cache_v", "cache_k_idx"}},
      {"merge_states", merge_states_case, {"out"}},
      {"index_candidates", index_candidates_case, {"candidate_ids", "candidate_scores"}},
      {"merge_candidates", merge_candidates_case, {"merged_ids", "merged_scores"}},
      {"select_blocks", select_blocks_case, {"block_ids"}},
      {"attention_backward", attention_backward_case, {"dq", "dk", "dv"}},
      {"dense_attention_backward", dense_attention_backward_case, {"dq", "dk", "dv"}},
      {"kl_forward_backward", kl_forward_backward_case, {"loss", "dq_idx", "dk_idx"}},
      {"recall", recall_case, {"block_recall"}},
  };
  return ops;
}

const KnownOp* find_op(const std::string& name) {
  for (const KnownOp& op : known_ops()) {
    if (name == op.name) return &op;
  }
  return nullptr;
}

}  // namespace

bool has_op(const std::string& op) { return find_op(op) != nullptr; }

CaseResults run_case(const Pack& pack, const PackRule& rule, const PackCase& item,
                     const Context& context, const std::vector<std::string>& outputs) {
  const KnownOp* op = find_op(rule.op);
  if (op == nullptr) throw CaseError("the op is unknown");
  CaseRun run(pack, item, context, item.refused ? op->outputs : outputs);
  op->run(run);
  return run.results();
}

std::vector<Names> smaller_outputs(const PackRule& rule, const PackCase& item) {
  const auto expected = [&](const char* name) { return item.expect.contains(name); };
  std::vector<Names> sets;
  if (rule.op == "index_forward") {
    if (expected("block_ids")) sets.push_back({"block_ids"});
    if (expected("block_scores")) sets.push_back({"block_scores"});
    if (expected("block_ids") && expected("lse_idx")) sets.push_back({"block_ids", "lse_idx"});
  } else if (expected("out") && expected("lse")) {
    sets.push_back({"out"});
  }
  return sets;
}

}  // namespace msa::cli
