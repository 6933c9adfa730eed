// recall: check -> fill params -> call the backend table.
#include "msa/recall.h"

#include <string>

#include "ops/attention_args.h"

namespace msa {
namespace {

constexpr const char* kOp = "recall";

struct NamedView {
  const char* name;
  const MutableTensor* view;
};

/// In the order of core::RecallParams.
std::array<NamedView, core::RecallParams::kNumRecalls> named(const RecallViews& views) {
  return {{{"block_recall", &views.block_recall},
           {"score_recall", &views.score_recall},
           {"block_recall_without_local", &views.block_recall_without_local},
           {"score_recall_without_local", &views.score_recall_without_local}}};
}

core::RecallParams fill_params(const Context& context, const RecallArgs& args) {
  core::RecallParams p;
  p.attention = ops::fill_queries_and_keys(kOp, args);
  ops::fill_block_ids(kOp, args, p.attention);
  core::check(p.attention.block_ids.top_k > 0, kOp, "top-k is wrong: got 0, allowed 1 or more");
  const auto rows = named(args.rows);
  const auto means = named(args.means);
  for (size_t n = 0; n < rows.size(); ++n) {
    if (rows[n].view->present()) {
      const std::string name = std::string("rows.") + rows[n].name;
      core::check_tensor(kOp, name, *rows[n].view, 2, {DType::kFloat32});
      core::check_shape(kOp, name, *rows[n].view, {p.attention.num_kv_heads, args.q.shape[0]});
      p.rows[n] = {static_cast<float*>(rows[n].view->data), DType::kFloat32,
                   rows[n].view->stride[1], rows[n].view->stride[0]};
    }
    if (means[n].view->present()) {
      const std::string name = std::string("means.") + means[n].name;
      core::check_tensor(kOp, name, *means[n].view, 1, {DType::kFloat32});
      core::check_shape(kOp, name, *means[n].view, {1});
      p.means[n] = static_cast<float*>(means[n].view->data);
    }
  }
  core::check_supported(context, Op::kRecall, ops::geometry_of(p.attention), p.attention.q_dtype);
  return p;
}

}  // namespace

size_t recall_workspace_size(const Context& context, const RecallArgs& args) {
  const core::RecallParams p = fill_params(context, args);
  return context.table().recall_workspace(p, context.num_threads());
}

void recall(const Context& context, const RecallArgs& args, Workspace workspace) {
  const core::RecallParams p = fill_params(context, args);
  core::check_workspace(kOp, workspace, context.table().recall_workspace(p, context.num_threads()));
  ops::check_contents(context, kOp, p.attention.sequences, args.k.shape[0]);
  context.table().recall(p, ops::run_context(context, workspace));
}

}  // namespace msa
