"""The ops of msa.cpp as torch.library operators `torch.ops.msa_cpp.*`.

Each op is defined twice: one that makes its outputs, with a formula for its gradient where there is
one, and one `..._out` that writes to outputs of the caller. Both have fake implementations, so that
torch.compile, torch.export and FakeTensor see shapes and types without running anything. People use
msa_cpp.functional, which adds names, defaults and checks; schemas here are for compilers.

Tensors that an op is not asked for come back empty, of shape [0]: an operator's schema has a fixed
number of results.
"""

from __future__ import annotations

import torch

from . import _library
from .errors import invalid

library = torch.library.Library("msa_cpp", "DEF")

_SEQUENCES = (
    "Tensor cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? page_table, Tensor? kv_lens,"
    " int max_query_length"
)
_SPARSE = "int block_size, float? scale, int layout, int backend"
_ATTENTION = f"Tensor q, Tensor k, Tensor v, Tensor? block_ids, {_SEQUENCES}, {_SPARSE}"
_INDEX = f"Tensor q_idx, Tensor k_idx, {_SEQUENCES}, {_SPARSE}"

library.define(
    f"index_forward({_INDEX}, int top_k, bool with_lse, bool lse_visible, SymInt max_blocks)"
    " -> (Tensor block_ids, Tensor lse_idx, Tensor block_scores)"
)
library.define(
    f"index_forward_out({_INDEX}, bool lse_visible, *, Tensor(a!)? block_ids, Tensor(b!)? lse_idx,"
    " Tensor(c!)? block_scores, Tensor(d!)? workspace) -> ()"
)
library.define(f"attention_forward({_ATTENTION}) -> (Tensor out, Tensor lse)")
library.define(
    f"attention_forward_out({_ATTENTION}, *, Tensor(a!) out, Tensor(b!)? lse,"
    " Tensor(c!)? workspace) -> ()"
)
library.define(
    "attention_backward(Tensor dout, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor? block_ids,"
    f" Tensor cu_seqlens_q, Tensor cu_seqlens_k, Tensor out, Tensor lse, {_SPARSE})"
    " -> (Tensor dq, Tensor dk, Tensor dv)"
)
library.define(
    "kl_forward_backward(Tensor q, Tensor k, Tensor lse, Tensor q_idx, Tensor k_idx,"
    " Tensor lse_idx, Tensor? block_ids, Tensor cu_seqlens_q, Tensor cu_seqlens_k, int block_size,"
    " float? scale, float? scale_idx, int layout, float coefficient, float normaliser, int backend)"
    " -> (Tensor loss, Tensor dq_idx, Tensor dk_idx)"
)
library.define(
    "select_blocks(Tensor block_scores, Tensor? local_blocks, int top_k, int layout, int backend)"
    " -> Tensor block_ids"
)
library.define(
    "cache_append(Tensor cu_seqlens_q, Tensor page_table, Tensor kv_lens, Tensor? k, Tensor? v,"
    " Tensor? k_idx, Tensor(a!)? k_cache, Tensor(b!)? v_cache, Tensor(c!)? k_idx_cache,"
    " int backend) -> ()"
)


def _implement(name: str, function, fake) -> None:
    library.impl(name, function, "CPU")
    library.impl(name, function, "CUDA")
    torch.library.register_fake(f"msa_cpp::{name}", fake, lib=library)


def _nothing(*arguments, **keywords) -> None:
    """The fake of an op that only writes to what it is given."""


def _ids_shape(q_idx, layout, top_k):
    tokens, heads = q_idx.shape[0], q_idx.shape[1]
    return (heads, tokens, top_k) if layout == 0 else (tokens, heads, top_k)


def _index_outputs(q_idx, layout, top_k, with_lse, max_blocks):
    tokens, heads = q_idx.shape[0], q_idx.shape[1]
    ids = q_idx.new_empty(
        _ids_shape(q_idx, layout, top_k) if top_k > 0 else (0,), dtype=torch.int32
    )
    lse = q_idx.new_empty((heads, tokens) if with_lse else (0,), dtype=torch.float32)
    scores = q_idx.new_empty(
        (heads, tokens, max_blocks) if max_blocks > 0 else (0,), dtype=torch.float32
    )
    return ids, lse, scores


def _check_rank(op, name, tensor, rank):
    if tensor.ndim != rank:
        raise invalid(op, f"{name} has the wrong rank: got {tensor.ndim}, allowed {rank}")


def _index_forward(
    q_idx, k_idx, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size, scale, layout,
    backend, top_k, with_lse, lse_visible, max_blocks,
):  # fmt: skip
    _check_rank("index_forward", "q_idx", q_idx, 3)
    ids, lse, scores = outputs = _index_outputs(q_idx, layout, top_k, with_lse, max_blocks)
    _library.index_forward(
        backend, q_idx, k_idx, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size, scale,
        layout, lse_visible, ids if top_k > 0 else None, scores if max_blocks > 0 else None,
        lse if with_lse else None, None,
    )  # fmt: skip
    return outputs


def _index_forward_fake(
    q_idx, k_idx, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size, scale, layout,
    backend, top_k, with_lse, lse_visible, max_blocks,
):  # fmt: skip
    _check_rank("index_forward", "q_idx", q_idx, 3)
    return _index_outputs(q_idx, layout, top_k, with_lse, max_blocks)


def _index_forward_out(
    q_idx, k_idx, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size, scale, layout,
    backend, lse_visible, *, block_ids, lse_idx, block_scores, workspace,
):  # fmt: skip
    _library.index_forward(
        backend, q_idx, k_idx, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size, scale,
        layout, lse_visible, block_ids, block_scores, lse_idx, workspace,
    )  # fmt: skip


def _attention_outputs(q):
    _check_rank("attention_forward", "q", q, 3)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    return out, torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)


def _attention_forward(
    q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size, scale, layout,
    backend,
):  # fmt: skip
    out, lse = _attention_outputs(q)
    _library.attention_forward(
        backend, q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size,
        scale, layout, out, lse, None,
    )  # fmt: skip
    return out, lse


def _attention_forward_fake(q, *rest):
    return _attention_outputs(q)


def _attention_forward_out(
    q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size, scale, layout,
    backend, *, out, lse, workspace,
):  # fmt: skip
    _library.attention_forward(
        backend, q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size,
        scale, layout, out, lse, workspace,
    )  # fmt: skip


def _dense_like(tensor):
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _attention_backward(
    dout, dlse, q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, out, lse, block_size, scale, layout,
    backend,
):  # fmt: skip
    dq, dk, dv = _dense_like(q), _dense_like(k), _dense_like(v)
    _library.attention_backward(
        backend, q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, block_size, scale, layout, out,
        lse, dout, dlse, dq, dk, dv, None,
    )  # fmt: skip
    return dq, dk, dv


def _attention_backward_fake(dout, dlse, q, k, v, *rest):
    return _dense_like(q), _dense_like(k), _dense_like(v)


def _kl_forward_backward(
    q, k, lse, q_idx, k_idx, lse_idx, block_ids, cu_seqlens_q, cu_seqlens_k, block_size, scale,
    scale_idx, layout, coefficient, normaliser, backend,
):  # fmt: skip
    loss = q.new_empty((1,), dtype=torch.float32)
    dq_idx, dk_idx = _dense_like(q_idx), _dense_like(k_idx)
    _library.kl_forward_backward(
        backend, q, k, lse, q_idx, k_idx, lse_idx, block_ids, cu_seqlens_q, cu_seqlens_k,
        block_size, scale, scale_idx, layout, coefficient, normaliser, loss, dq_idx, dk_idx, None,
    )  # fmt: skip
    return loss, dq_idx, dk_idx


def _kl_forward_backward_fake(q, k, lse, q_idx, k_idx, *rest):
    return q.new_empty((1,), dtype=torch.float32), _dense_like(q_idx), _dense_like(k_idx)


def _cache_append(
    cu_seqlens_q, page_table, kv_lens, k, v, k_idx, k_cache, v_cache, k_idx_cache, backend
):
    _library.cache_append(
        backend, cu_seqlens_q, page_table, kv_lens, k, v, k_idx, k_cache, v_cache, k_idx_cache
    )


def _select_blocks_fake(block_scores, local_blocks, top_k, layout, backend):
    _check_rank("select_blocks", "block_scores", block_scores, 3)
    heads, tokens, _ = block_scores.shape
    shape = (heads, tokens, top_k) if layout == 0 else (tokens, heads, top_k)
    return block_scores.new_empty(shape, dtype=torch.int32)


def _select_blocks(block_scores, local_blocks, top_k, layout, backend):
    ids = _select_blocks_fake(block_scores, local_blocks, top_k, layout, backend)
    _library.select_blocks(backend, block_scores, local_blocks, layout, ids)
    return ids


_implement("select_blocks", _select_blocks, _select_blocks_fake)
_implement("index_forward", _index_forward, _index_forward_fake)
_implement("index_forward_out", _index_forward_out, _nothing)
_implement("attention_forward", _attention_forward, _attention_forward_fake)
_implement("attention_forward_out", _attention_forward_out, _nothing)
_implement("attention_backward", _attention_backward, _attention_backward_fake)
_implement("kl_forward_backward", _kl_forward_backward, _kl_forward_backward_fake)
_implement("cache_append", _cache_append, _nothing)


def _save_attention(ctx, inputs, output) -> None:
    q, k, v, block_ids, cu_q, cu_k, page_table, _, _, *options = inputs
    if page_table is not None:
        raise invalid(
            "attention_backward",
            f"keys in pages have no gradient: got k {list(k.shape)} and a page_table "
            f"{list(page_table.shape)}, allowed packed keys, or torch.no_grad()",
        )
    ctx.save_for_backward(q, k, v, block_ids, cu_q, cu_k, *output)
    ctx.options = options


def _attention_gradients(ctx, dout, dlse):
    q, k, v, block_ids, cu_q, cu_k, out, lse = ctx.saved_tensors
    # A gradient of an expanded sum has strides of 0 on its last axis; the op needs that axis dense.
    if dout.stride(-1) != 1:
        dout = dout.contiguous()
    if dlse is not None and dlse.stride(-1) != 1:
        dlse = dlse.contiguous()
    dq, dk, dv = torch.ops.msa_cpp.attention_backward(
        dout, dlse, q, k, v, block_ids, cu_q, cu_k, out, lse, *ctx.options
    )
    return dq, dk, dv, *[None] * 10


def _save_kl(ctx, inputs, output) -> None:
    ctx.save_for_backward(output[1], output[2])


def _kl_gradients(ctx, dloss, ddq_idx, ddk_idx):
    dq_idx, dk_idx = ctx.saved_tensors
    return (
        None, None, None, dq_idx * dloss.to(dq_idx.dtype), dk_idx * dloss.to(dk_idx.dtype),
        *[None] * 11,
    )  # fmt: skip


def _no_index_gradient(ctx, *gradients):
    raise invalid(
        "index_forward",
        f"the selection has no gradient: got a backward pass through block_ids, block_scores or "
        f"lse_idx of q_idx {ctx.shapes[0]} and k_idx {ctx.shapes[1]}, allowed kl_loss, whose "
        f"gradients already hold what goes through lse_idx",
    )


def _save_index(ctx, inputs, output) -> None:
    ctx.shapes = (list(inputs[0].shape), list(inputs[1].shape))


torch.library.register_autograd(
    "msa_cpp::attention_forward", _attention_gradients, setup_context=_save_attention, lib=library
)
torch.library.register_autograd(
    "msa_cpp::kl_forward_backward", _kl_gradients, setup_context=_save_kl, lib=library
)
torch.library.register_autograd(
    "msa_cpp::index_forward", _no_index_gradient, setup_context=_save_index, lib=library
)
