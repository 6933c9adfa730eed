"""MSA as functions on tensors: index branch, main branch, KL loss, paged decode and caches.

Everything is packed: the tokens of all requests stand one after another, and `cu_seqlens_q`
(int32 [batch + 1], on the tensors' device) says where each begins. Row t of the q_len rows of a
request stands at position k_len - q_len + t. Keys are packed likewise (`cu_seqlens_k`; left out, it
is cu_seqlens_q: each request attends to itself), or lie in pages of one block each (`page_table`
int32 [batch, max_pages] and `kv_lens` int32 [batch]). `max_query_length` says how many rows a
request has at most, 0 that it is not known: up to 16, Hopper takes its kernels for decode. Units
are tokens; scales multiply dot products; every lse is a natural logarithm.

Symbols: T query tokens, Tk key tokens, Hq query heads, Hkv key-value heads, G = Hq / Hkv, D and Di
head and index dim, B block size, K blocks kept, P pages. Types: float32, bfloat16, float16; on
Hopper the last two.

With `out=` (and `lse=`, `workspace=`) an op writes to memory of the caller, allocates nothing and is
not differentiable. Without, outputs are new tensors and gradients flow. A workspace is contiguous
uint8, aligned to 64 bytes (what torch.empty returns is), and belongs to one call at a time; without
one it comes from PyTorch's allocator. Work runs on the current stream of the tensors' device.

`backend` is "reference", "cpu" or "cuda"; None takes the library's choice: MSA_BACKEND, else cpu, for
tensors in host memory and cuda for those on a GPU.

Errors: MsaInvalidArgument for what the contract does not allow, MsaUnsupported for what the backend
lacks, both before anything is launched or written.

Source of all formulas: MiniMax Sparse Attention, arXiv 2606.13392; docs/maths.md has them in full.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from . import _library
from ._library import BACKENDS, LAYOUTS, code
from .errors import invalid

_ops = torch.ops.msa_cpp
_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled


class Selection(NamedTuple):
    """What the index branch found."""

    block_ids: Tensor | None
    """int32 [Hkv, T, K] or [T, Hkv, K]: ascending block ids, then -1."""
    lse_idx: Tensor | None
    """float32 [Hkv, T]; None if it was not asked for."""
    block_scores: Tensor | None
    """float32 [Hkv, T, max_blocks]; None if they were not asked for."""


def _codes(op: str, layout: str, backend: str | None) -> tuple[int, int]:
    try:
        return LAYOUTS[layout], BACKENDS[backend]
    except (KeyError, TypeError):
        return code(op, "layout", LAYOUTS, layout), code(op, "backend", BACKENDS, backend)


def _check_out(op: str, inputs: tuple[Tensor, ...]) -> None:
    """An op that writes to out= has no gradient: it says so instead of losing it."""
    for tensor in inputs:
        if tensor.requires_grad:
            raise invalid(
                op,
                f"out= has no gradient: got inputs that require grad, one of shape "
                f"{list(tensor.shape)}, allowed torch.no_grad(), detached inputs, or no out=",
            )


def _check_device(op: str, tensor: Tensor) -> None:
    """Kernels are launched on the current device, so tensors have to be there."""
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        raise invalid(
            op,
            f"tensors are on another device than the current one: got {tensor.device}, allowed "
            f"cuda:{torch.cuda.current_device()}; see torch.cuda.device",
        )


def _remember(lse: Tensor | None, block_ids: Tensor | None) -> None:
    """Notes on an lse which selection it runs over, None for all visible tokens."""
    if lse is not None:
        lse._msa_selection = (
            None if block_ids is None else (weakref.ref(block_ids), block_ids._version)
        )


def _check_selection(op: str, name: str, lse: Tensor, block_ids: Tensor | None) -> None:
    """Refuses an lse that is known to run over other tokens than block_ids do.

    Contents are compared in host memory alone: on a GPU that would stop the stream. What made no
    note (a copy, an lse merged from parts) is taken as it is.
    """
    if not hasattr(lse, "_msa_selection"):
        return
    noted = lse._msa_selection
    shape = list(lse.shape)
    if (noted is None) != (block_ids is None):
        runs, given = "all visible tokens", "none"
        if noted is not None:
            runs = "selected blocks"
        if block_ids is not None:
            given = f"block_ids {list(block_ids.shape)}"
        raise invalid(
            op,
            f"{name} does not match block_ids: got {name} {shape} over {runs} and {given}, allowed "
            f"an lse over exactly the tokens of block_ids",
        )
    if noted is None:
        return
    ids = noted[0]()
    if ids is None:
        return
    written = ids._version != noted[1]
    other = ids is not block_ids and (
        ids.shape != block_ids.shape or (not ids.is_cuda and not torch.equal(ids, block_ids))
    )
    if written or other:
        raise invalid(
            op,
            f"{name} does not match block_ids: got {name} {shape} of "
            f"{'block_ids that were written since' if written else 'another selection'} and "
            f"block_ids {list(block_ids.shape)}, allowed the selection that {name} came from",
        )


def _check_tensors(op: str, **tensors: object) -> None:
    """Names what is no tensor; only looked at when a call has failed for its types."""
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            got = "None" if value is None else type(value).__name__
            raise invalid(op, f"{name} is no tensor: got {got}, allowed Tensor") from None


def index_select_blocks(
    q_idx: Tensor,
    k_idx: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor | None = None,
    *,
    top_k: int,
    block_size: int = 128,
    scale: float | None = None,
    page_table: Tensor | None = None,
    kv_lens: Tensor | None = None,
    max_query_length: int = 0,
    layout: str = "head_major",
    with_lse: bool = False,
    lse_scope: str = "selected",
    max_blocks: int = 0,
    block_ids: Tensor | None = None,
    lse_idx: Tensor | None = None,
    block_scores: Tensor | None = None,
    workspace: Tensor | None = None,
    backend: str | None = None,
) -> Selection:
    """Scores blocks of keys and picks `top_k` of them for each query and group: the index branch.

        s[g,i,j] = scale * (q_idx[i,g] . k_idx[j])        m[g,i,b] = max over visible j of b of s

    The local block of a query is always among the picked; the others have the highest m, exactly; on
    a tie the lower id wins. The selection has no derivative: a backward pass through any of the
    results raises.

    Args:
        q_idx: [T, Hkv, Di].
        k_idx: [Tk, Di], or with pages [P, B, Di].
        cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length: see the head of this module.
        top_k: K, at least 1, the local block included; 0 picks nothing (for lse_idx alone).
        block_size: B in tokens.
        scale: finite and > 0; default 1 / sqrt(Di).
        layout: of block_ids, "head_major" [Hkv, T, K] or "token_major" [T, Hkv, K].
        with_lse: also return lse_idx = log sum exp(s) over the tokens of `lse_scope`: "selected" (of
            the picked blocks) or "visible" (all up to the query: warm-up).
        max_blocks: above 0, also return m as block_scores; covers the longest request.
        block_ids, lse_idx, block_scores: outputs of the caller; what is not given is not written.
        workspace: see the head of this module.

    Returns:
        Selection(block_ids, lse_idx, block_scores).

    Raises:
        MsaInvalidArgument, MsaUnsupported: see the head of this module.
    """
    op = "index_forward"
    layout_code, backend_code = _codes(op, layout, backend)
    if lse_scope not in ("selected", "visible"):
        raise invalid(op, f"lse_scope is unknown: got {lse_scope!r}, allowed 'selected', 'visible'")
    if top_k < 0 or max_blocks < 0:
        raise invalid(
            op, f"top_k or max_blocks is wrong: got {top_k} and {max_blocks}, allowed 0 or more"
        )
    visible = lse_scope == "visible"
    if cu_seqlens_k is None and page_table is None:
        cu_seqlens_k = cu_seqlens_q
    inputs = (
        q_idx, k_idx, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size, scale,
        layout_code, backend_code,
    )  # fmt: skip
    try:
        if not _is_compiling():
            _check_device(op, q_idx)
        if block_ids is None and lse_idx is None and block_scores is None:
            # The library makes lse_idx beside ids or scores; one id a row costs next to nothing.
            alone = top_k == 0 and max_blocks == 0 and with_lse and visible
            made = _ops.index_forward(*inputs, top_k or int(alone), with_lse, visible, max_blocks)
            block_ids = made[0] if top_k > 0 else None
            lse_idx = made[1] if with_lse else None
            block_scores = made[2] if max_blocks > 0 else None
            if not _is_compiling():
                _remember(lse_idx, None if visible else block_ids)
            return Selection(block_ids, lse_idx, block_scores)
        if _is_grad_enabled():
            _check_out(op, (q_idx, k_idx))
        if _is_compiling():
            _ops.index_forward_out(
                *inputs, visible, block_ids=block_ids, lse_idx=lse_idx, block_scores=block_scores,
                workspace=workspace,
            )  # fmt: skip
        else:
            _library.index_forward(
                backend_code, q_idx, k_idx, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length,
                block_size, scale, layout_code, visible, block_ids, block_scores, lse_idx,
                workspace,
            )  # fmt: skip
            _remember(lse_idx, None if visible else block_ids)
    except (TypeError, AttributeError, RuntimeError):
        _check_tensors(op, q_idx=q_idx, k_idx=k_idx, cu_seqlens_q=cu_seqlens_q)
        raise
    return Selection(block_ids, lse_idx, block_scores)


def select_blocks(
    block_scores: Tensor,
    *,
    top_k: int,
    local_blocks: Tensor | None = None,
    layout: str = "head_major",
    block_ids: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """The selection alone, over block scores that there are already: the K best of each row, exactly.

    Ties go to the lower id, -0 equals +0, a NaN counts as minus infinity. The result has no gradient.

    Args:
        block_scores: float32 [Hkv, T, max_blocks].
        top_k: K, at least 1.
        local_blocks: int32 [T]; row t may then take blocks 0 to local_blocks[t], the last of which is
            always taken; below 0 the row is empty. Without, every block competes.
        layout: of block_ids.
        block_ids: int32 [Hkv, T, K] or [T, Hkv, K], to write to.

    Returns:
        block_ids: ascending, then -1.

    Raises:
        MsaInvalidArgument, MsaUnsupported: see the head of this module.
    """
    op = "select_blocks"
    layout_code, backend_code = _codes(op, layout, backend)
    if top_k < 1:
        raise invalid(op, f"top_k is wrong: got {top_k}, allowed 1 or more")
    try:
        if not _is_compiling():
            _check_device(op, block_scores)
        if block_ids is None:
            scores = block_scores.detach()
            return _ops.select_blocks(scores, local_blocks, top_k, layout_code, backend_code)
        _library.select_blocks(backend_code, block_scores, local_blocks, layout_code, block_ids)
    except (TypeError, AttributeError, RuntimeError):
        _check_tensors(op, block_scores=block_scores)
        raise
    return block_ids


def msa_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block_ids: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor | None = None,
    *,
    block_size: int = 128,
    scale: float | None = None,
    page_table: Tensor | None = None,
    kv_lens: Tensor | None = None,
    max_query_length: int = 0,
    layout: str = "head_major",
    out: Tensor | None = None,
    lse: Tensor | None = None,
    workspace: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Exact softmax attention over the tokens of the picked blocks: the main branch.

        S(i,g)   = { j <= i : the block of j is listed for (i,g) }
        out[i,h] = softmax over S of scale * q[i,h] . k[j,g], times v[j,g]        g = floor(h / G)
        lse[i,h] = log of the sum over S of exp(scale * q[i,h] . k[j,g])

    A row that sees nothing gives out = 0 and lse = -inf. Gradients reach q, k and v, from out and
    from lse, by the backward op of the same backend; keys in pages have none.

    Args:
        q: [T, Hq, D].
        k, v: [Tk, Hkv, D], or with pages [P, B, Hkv, D] in any strides with a dense last axis.
        block_ids: int32 [Hkv, T, K] or [T, Hkv, K] by `layout`: a set in any order, ended by the
            first -1; a repeat counts once, an id without a visible token is ignored.
        cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length: see the head of this module.
        block_size: B in tokens.
        scale: finite and > 0; default 1 / sqrt(D).
        out: [T, Hq, D] with q's type, to write to; then nothing is differentiable.
        lse: float32 [T, Hq], to write to beside out; without it no lse is written.

    Returns:
        (out, lse); lse is None if out was given without it.

    Raises:
        MsaInvalidArgument, MsaUnsupported: see the head of this module.
    """
    if block_ids is None:
        raise invalid("attention_forward", "block_ids are missing: got None, allowed int32 ids")
    return _attention(
        "attention_forward", q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, block_size, scale,
        page_table, kv_lens, max_query_length, layout, out, lse, workspace, backend,
    )  # fmt: skip


def dense_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor | None = None,
    *,
    scale: float | None = None,
    page_table: Tensor | None = None,
    kv_lens: Tensor | None = None,
    max_query_length: int = 0,
    out: Tensor | None = None,
    lse: Tensor | None = None,
    workspace: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """msa_attention over all visible tokens, S(i,g) = { j <= i }: warm-up and the dense phase.

    Args, results and errors are those of msa_attention, without block ids.
    """
    return _attention(
        "dense_attention_forward", q, k, v, None, cu_seqlens_q, cu_seqlens_k, 128, scale,
        page_table, kv_lens, max_query_length, "head_major", out, lse, workspace, backend,
    )  # fmt: skip


def _attention(
    op, q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, block_size, scale, page_table, kv_lens,
    max_query_length, layout, out, lse, workspace, backend,
):  # fmt: skip
    layout_code, backend_code = _codes(op, layout, backend)
    if cu_seqlens_k is None and page_table is None:
        cu_seqlens_k = cu_seqlens_q
    compiling = _is_compiling()
    try:
        if not compiling:
            _check_device(op, q)
        if out is None:
            if lse is not None:
                raise invalid(op, "lse= is given without out=: got one, allowed both or none")
            out, lse = _ops.attention_forward(
                q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size,
                scale, layout_code, backend_code,
            )  # fmt: skip
            if not compiling:
                _remember(lse, block_ids)
            return out, lse
        if _is_grad_enabled():
            _check_out(op, (q, k, v))
        if compiling:
            _ops.attention_forward_out(
                q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length, block_size,
                scale, layout_code, backend_code, out=out, lse=lse, workspace=workspace,
            )  # fmt: skip
        else:
            _library.attention_forward(
                backend_code, q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, max_query_length,
                block_size, scale, layout_code, out, lse, workspace,
            )  # fmt: skip
            _remember(lse, block_ids)
    except (TypeError, AttributeError, RuntimeError):
        ids = q if block_ids is None else block_ids
        _check_tensors(op, q=q, k=k, v=v, block_ids=ids, cu_seqlens_q=cu_seqlens_q)
        raise
    return out, lse


def kl_loss(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    q_idx: Tensor,
    k_idx: Tensor,
    lse_idx: Tensor,
    block_ids: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor | None = None,
    *,
    block_size: int = 128,
    scale: float | None = None,
    scale_idx: float | None = None,
    layout: str = "head_major",
    coefficient: float = 1.0,
    normaliser: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """The loss from which alone the index branch learns: KL of the main attention against it.

        p[i,g,j] = mean over h in g of exp(scale * q[i,h] . k[j,g] - lse[i,h])        j in S(i,g)
        r[i,g,j] = exp(scale_idx * q_idx[i,g] . k_idx[j] - lse_idx[g,i])
        loss     = coefficient / normaliser * sum of p (log p - log r)                 0 log 0 = 0

    Gradients reach q_idx and k_idx alone and are whole: what goes through lse_idx is in them. q, k,
    lse and lse_idx are taken as constants. float16 gradients are as small as 1 / normaliser makes
    them: scale the loss by `coefficient` rather than afterwards.

    Args:
        q: [T, Hq, D].  k: [Tk, Hkv, D].  lse: float32 [T, Hq], of the main branch over exactly S.
        q_idx: [T, Hkv, Di].  k_idx: [Tk, Di].  lse_idx: float32 [Hkv, T], over exactly S.
        block_ids: the selection that both branches ran on (int32, by `layout`): S is its visible
            tokens. None: S is all visible tokens (warm-up).
        coefficient: finite; 1 is the paper's lambda as we read it.
        normaliser: Hkv times the query tokens of the whole batch; default Hkv * T. Give it where
            this call is one chunk or one rank's part of a batch.

    Returns:
        float32 [], the loss.

    Raises:
        MsaInvalidArgument: also where lse or lse_idx is known to come from another selection.
        MsaUnsupported: see the head of this module.
    """
    op = "kl_forward_backward"
    layout_code, backend_code = _codes(op, layout, backend)
    if cu_seqlens_k is None:
        cu_seqlens_k = cu_seqlens_q
    try:
        if not _is_compiling():
            _check_device(op, q)
            _check_selection(op, "lse", lse, block_ids)
            _check_selection(op, "lse_idx", lse_idx, block_ids)
        if normaliser is None:
            normaliser = float(max(q_idx.shape[0] * q_idx.shape[1], 1))
        loss, _, _ = _ops.kl_forward_backward(
            q.detach(), k.detach(), lse.detach(), q_idx, k_idx, lse_idx.detach(), block_ids,
            cu_seqlens_q, cu_seqlens_k, block_size, scale, scale_idx, layout_code, coefficient,
            normaliser, backend_code,
        )  # fmt: skip
    except (TypeError, AttributeError, RuntimeError):
        _check_tensors(op, q=q, k=k, lse=lse, q_idx=q_idx, k_idx=k_idx, lse_idx=lse_idx)
        raise
    return loss[0]


__all__ = ["Selection", "dense_attention", "index_select_blocks", "kl_loss", "msa_attention"]
