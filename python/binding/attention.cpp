// attention_forward and attention_backward for Python; without block ids, their dense relatives.
#include <tvm/ffi/function.h>

#include "call.h"

namespace msa::python {
namespace {

template <typename Args>
void fill_inputs(const Call& call, const TensorView& q, const TensorView& k, const TensorView& v,
                 const Sequences& sequences, const Optional<double>& scale, Args& args) {
  args.q = call.input("q", q);
  args.k = call.input("k", k);
  args.v = call.input("v", v);
  args.sequences = sequences;
  args.scale = optional_scale(scale);
}

template <typename Args>
void fill_ids(const Call& call, const TensorView& ids, int64_t layout, int64_t block_size,
              Args& args) {
  args.block_size = block_size;
  args.block_ids = call.input("block_ids", ids);
  args.block_id_layout = static_cast<BlockIdLayout>(layout);
}

void forward(int64_t backend, TensorView q, TensorView k, TensorView v,
             Optional<TensorView> block_ids, TensorView cu_seqlens_q,
             Optional<TensorView> cu_seqlens_k, Optional<TensorView> page_table,
             Optional<TensorView> kv_lens, int64_t max_query_length, int64_t block_size,
             Optional<double> scale, int64_t layout, TensorView out, Optional<TensorView> lse,
             Optional<TensorView> workspace) {
  const bool sparse = block_ids.has_value();
  const Call call(sparse ? "attention_forward" : "dense_attention_forward", backend, "q", q);
  const Sequences sequences = call.sequences(cu_seqlens_q, cu_seqlens_k, page_table, kv_lens);
  const auto fill_outputs = [&](auto& args) {
    args.max_query_length = max_query_length;
    args.out = call.output("out", out);
    args.lse = call.output("lse", lse);
  };
  if (sparse) {
    AttentionForwardArgs args;
    fill_inputs(call, q, k, v, sequences, scale, args);
    fill_ids(call, block_ids.value(), layout, block_size, args);
    fill_outputs(args);
    call.run(attention_forward_workspace_size, attention_forward, args, workspace);
  } else {
    DenseAttentionForwardArgs args;
    fill_inputs(call, q, k, v, sequences, scale, args);
    fill_outputs(args);
    call.run(dense_attention_forward_workspace_size, dense_attention_forward, args, workspace);
  }
}

void backward(int64_t backend, TensorView q, TensorView k, TensorView v,
              Optional<TensorView> block_ids, TensorView cu_seqlens_q, TensorView cu_seqlens_k,
              int64_t block_size, Optional<double> scale, int64_t layout, TensorView out,
              TensorView lse, TensorView dout, Optional<TensorView> dlse, TensorView dq,
              TensorView dk, TensorView dv, Optional<TensorView> workspace) {
  const bool sparse = block_ids.has_value();
  const Call call(sparse ? "attention_backward" : "dense_attention_backward", backend, "q", q);
  const Sequences sequences = call.sequences(cu_seqlens_q, cu_seqlens_k, {}, {});
  const auto fill_gradients = [&](auto& args) {
    args.out = call.input("out", out);
    args.lse = call.input("lse", lse);
    args.dout = call.input("dout", dout);
    args.dlse = call.input("dlse", dlse);
    args.dq = call.output("dq", dq);
    args.dk = call.output("dk", dk);
    args.dv = call.output("dv", dv);
  };
  if (sparse) {
    AttentionBackwardArgs args;
    fill_inputs(call, q, k, v, sequences, scale, args);
    fill_ids(call, block_ids.value(), layout, block_size, args);
    fill_gradients(args);
    call.run(attention_backward_workspace_size, attention_backward, args, workspace);
  } else {
    DenseAttentionBackwardArgs args;
    fill_inputs(call, q, k, v, sequences, scale, args);
    fill_gradients(args);
    call.run(dense_attention_backward_workspace_size, dense_attention_backward, args, workspace);
  }
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(attention_forward, forward);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(attention_backward, backward);

}  // namespace msa::python
