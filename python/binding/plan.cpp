// Workspace sizes from maxima alone, without tensors: what plan() of the Python package asks.
//
// The library's size functions look at types, shapes and strides and never through a pointer, so
// the views here point to no memory: kNowhere is an address that is not null and is never read.
#include <tvm/ffi/function.h>

#include "call.h"

namespace msa::python {
namespace {

constexpr uintptr_t kNowhere = 64;

template <typename... Extents>
MutableTensor shaped(DType dtype, Extents... extents) {
  return {reinterpret_cast<void*>(kNowhere), dtype, {extents...}};
}

/// The most that a planned call may be given.
struct Maxima {
  DType dtype;
  int64_t rows;
  int64_t keys;  ///< packed keys, or with pages the pages of the cache
  int64_t batch;
  int64_t max_pages;         ///< of a request; 0: keys are packed
  int64_t max_query_length;  ///< 0: not known
  int64_t num_q_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t index_dim;
  int64_t block_size;
  int64_t top_k;

  bool paged() const { return max_pages > 0; }

  Sequences sequences() const {
    Sequences result;
    result.cu_seqlens_q = shaped(DType::kInt32, batch + 1);
    if (paged()) {
      result.page_table = shaped(DType::kInt32, batch, max_pages);
      result.kv_lens = shaped(DType::kInt32, batch);
    } else {
      result.cu_seqlens_k = shaped(DType::kInt32, batch + 1);
    }
    return result;
  }
  MutableTensor queries() const { return shaped(dtype, rows, num_q_heads, head_dim); }
  MutableTensor key_values() const {
    return paged() ? shaped(dtype, keys, block_size, num_kv_heads, head_dim)
                   : shaped(dtype, keys, num_kv_heads, head_dim);
  }
  MutableTensor index_queries() const { return shaped(dtype, rows, num_kv_heads, index_dim); }
  MutableTensor index_keys() const {
    return paged() ? shaped(dtype, keys, block_size, index_dim) : shaped(dtype, keys, index_dim);
  }
  MutableTensor ids() const { return shaped(DType::kInt32, num_kv_heads, rows, top_k); }
  MutableTensor lse() const { return shaped(DType::kFloat32, rows, num_q_heads); }
  MutableTensor lse_idx() const { return shaped(DType::kFloat32, num_kv_heads, rows); }

  template <typename Args>
  void fill_forward(Args& args) const {
    args.q = queries();
    args.k = key_values();
    args.v = key_values();
    args.sequences = sequences();
    args.out = queries();
    args.lse = lse();
    if constexpr (requires { args.max_query_length; }) args.max_query_length = max_query_length;
  }
  template <typename Args>
  void fill_backward(Args& args) const {
    fill_forward(args);
    args.dout = queries();
    args.dlse = lse();
    args.dq = queries();
    args.dk = key_values();
    args.dv = key_values();
  }
  template <typename Args>
  void fill_ids(Args& args) const {
    args.block_size = block_size;
    args.block_ids = ids();
  }
};

size_t bytes_of(const Context& context, Op op, const Maxima& m) {
  switch (op) {
    case Op::kIndexForward: {
      IndexForwardArgs args;
      args.q_idx = m.index_queries();
      args.k_idx = m.index_keys();
      args.sequences = m.sequences();
      m.fill_ids(args);
      args.max_query_length = m.max_query_length;
      args.lse_idx = m.lse_idx();
      return index_forward_workspace_size(context, args);
    }
    case Op::kAttentionForward: {
      AttentionForwardArgs args;
      m.fill_forward(args);
      m.fill_ids(args);
      return attention_forward_workspace_size(context, args);
    }
    case Op::kDenseAttentionForward: {
      DenseAttentionForwardArgs args;
      m.fill_forward(args);
      return dense_attention_forward_workspace_size(context, args);
    }
    case Op::kAttentionBackward: {
      AttentionBackwardArgs args;
      m.fill_backward(args);
      m.fill_ids(args);
      return attention_backward_workspace_size(context, args);
    }
    case Op::kDenseAttentionBackward: {
      DenseAttentionBackwardArgs args;
      m.fill_backward(args);
      return dense_attention_backward_workspace_size(context, args);
    }
    case Op::kKlForwardBackward: {
      KlForwardBackwardArgs args;
      args.q = m.queries();
      args.k = m.key_values();
      args.lse = m.lse();
      args.q_idx = m.index_queries();
      args.k_idx = m.index_keys();
      args.lse_idx = m.lse_idx();
      args.sequences = m.sequences();
      m.fill_ids(args);
      args.normaliser = 1;
      args.loss = shaped(DType::kFloat32, int64_t{1});
      args.dq_idx = m.index_queries();
      args.dk_idx = m.index_keys();
      return kl_forward_backward_workspace_size(context, args);
    }
    default:
      throw Error(ErrorCode::kInvalidArgument,
                  "[plan] op is unknown: allowed those with workspace");
  }
}

int64_t plan_bytes(int64_t backend, int64_t device_type, int64_t op, int64_t dtype, int64_t rows,
                   int64_t keys, int64_t batch, int64_t max_pages, int64_t max_query_length,
                   int64_t num_q_heads, int64_t num_kv_heads, int64_t head_dim, int64_t index_dim,
                   int64_t block_size, int64_t top_k) {
  return guarded([&] {
    const Context& context = context_for("plan", backend, static_cast<int>(device_type));
    const Maxima maxima = {.dtype = static_cast<DType>(dtype),
                           .rows = rows,
                           .keys = keys,
                           .batch = batch,
                           .max_pages = max_pages,
                           .max_query_length = max_query_length,
                           .num_q_heads = num_q_heads,
                           .num_kv_heads = num_kv_heads,
                           .head_dim = head_dim,
                           .index_dim = index_dim,
                           .block_size = block_size,
                           .top_k = top_k};
    return static_cast<int64_t>(bytes_of(context, static_cast<Op>(op), maxima));
  });
}

/// "" or what the backend has instead.
std::string unsupported(int64_t backend, int64_t device_type, int64_t op, int64_t dtype,
                        int64_t num_q_heads, int64_t num_kv_heads, int64_t head_dim,
                        int64_t block_size, int64_t top_k) {
  return guarded([&] {
    const Context& context = context_for("supports", backend, static_cast<int>(device_type));
    const Support support = supports(context, static_cast<Op>(op),
                                     {.num_q_heads = num_q_heads,
                                      .num_kv_heads = num_kv_heads,
                                      .head_dim = head_dim,
                                      .block_size = block_size,
                                      .top_k = top_k},
                                     static_cast<DType>(dtype));
    return support.reason;
  });
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(plan_bytes, plan_bytes);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(unsupported, unsupported);

}  // namespace msa::python
