// kl_forward_backward for Python: the loss and both gradients of the index branch.
#include <tvm/ffi/function.h>

#include "call.h"

namespace msa::python {
namespace {

void kl(int64_t backend, TensorView q, TensorView k, TensorView lse, TensorView q_idx,
        TensorView k_idx, TensorView lse_idx, Optional<TensorView> block_ids,
        TensorView cu_seqlens_q, TensorView cu_seqlens_k, int64_t block_size,
        Optional<double> scale, Optional<double> scale_idx, int64_t layout, double coefficient,
        double normaliser, TensorView loss, TensorView dq_idx, TensorView dk_idx,
        Optional<TensorView> workspace) {
  const Call call("kl_forward_backward", backend, "q", q);
  KlForwardBackwardArgs args;
  args.q = call.input("q", q);
  args.k = call.input("k", k);
  args.lse = call.input("lse", lse);
  args.q_idx = call.input("q_idx", q_idx);
  args.k_idx = call.input("k_idx", k_idx);
  args.lse_idx = call.input("lse_idx", lse_idx);
  args.sequences = call.sequences(cu_seqlens_q, cu_seqlens_k, {}, {});
  args.block_size = block_size;
  args.scale = optional_scale(scale);
  args.scale_idx = optional_scale(scale_idx);
  args.scope = block_ids.has_value() ? KlScope::kSelected : KlScope::kVisible;
  args.block_ids = call.input("block_ids", block_ids);
  args.block_id_layout = static_cast<BlockIdLayout>(layout);
  args.coefficient = static_cast<float>(coefficient);
  args.normaliser = normaliser;
  args.loss = call.output("loss", loss);
  args.dq_idx = call.output("dq_idx", dq_idx);
  args.dk_idx = call.output("dk_idx", dk_idx);
  call.run(kl_forward_backward_workspace_size, kl_forward_backward, args, workspace);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(kl_forward_backward, kl);

}  // namespace msa::python
