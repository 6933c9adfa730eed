"""Serving: paged caches, one step of decode, and calls that allocate nothing (plan and run).

Shapes, types, units and errors are those of msa_cpp.functional. A page holds one block of B tokens of
one layer; caches are [P, B, Hkv, D] for K and V and [P, B, Di] for index keys, in any strides with a
dense last axis (HND, NHD, K and V in one allocation). `page_table` int32 [batch, max_pages] says
which page holds which block of a request, `kv_lens` int32 [batch] how many tokens it has, those of
the current call included. Nothing here has gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import _library
from ._library import BACKENDS, DTYPES, OPS, code, device_code
from .errors import invalid
from .functional import Selection, _check_device, _is_compiling, index_select_blocks, msa_attention

_ops = torch.ops.msa_cpp


def _check_no_gradients(op: str, **tensors: Tensor | None) -> None:
    if not torch.is_grad_enabled():
        return
    for name, tensor in tensors.items():
        if tensor is not None and tensor.requires_grad:
            raise invalid(
                op,
                f"{name} requires grad: got {list(tensor.shape)}, allowed detached tensors or "
                f"torch.no_grad(): caches have no gradient",
            )


def cache_append(
    cu_seqlens_q: Tensor,
    page_table: Tensor,
    kv_lens: Tensor,
    *,
    k: Tensor | None = None,
    v: Tensor | None = None,
    k_idx: Tensor | None = None,
    k_cache: Tensor | None = None,
    v_cache: Tensor | None = None,
    k_idx_cache: Tensor | None = None,
    backend: str | None = None,
) -> None:
    """Writes new tokens into the pages of their requests: K and V, index keys, or all three.

    Row t of the q_len new rows of a request goes to position kv_len - q_len + t; kv_lens already
    counts them. No two rows may fall on one slot: pages that requests share are copied before.

    Args:
        cu_seqlens_q: int32 [batch + 1].  page_table: int32 [batch, max_pages].  kv_lens: int32
            [batch].
        k, v: [T, Hkv, D], rounded to the caches' type.  k_idx: [T, Di].
        k_cache, v_cache: [P, B, Hkv, D], written.  k_idx_cache: [P, B, Di], written.

    Raises:
        MsaInvalidArgument, MsaUnsupported: nothing has been written then.
    """
    op = "cache_append"
    backend_code = code(op, "backend", BACKENDS, backend)
    _check_no_gradients(op, k=k, v=v, k_idx=k_idx, k_cache=k_cache, v_cache=v_cache)
    arguments = (
        cu_seqlens_q, page_table, kv_lens, k, v, k_idx, k_cache, v_cache, k_idx_cache,
    )  # fmt: skip
    if _is_compiling():
        _ops.cache_append(*arguments, backend_code)
    else:
        _check_device(op, cu_seqlens_q)
        _library.cache_append(backend_code, *arguments)


def copy_pages(
    pages: Tensor,
    *,
    k_cache: Tensor | None = None,
    v_cache: Tensor | None = None,
    k_idx_cache: Tensor | None = None,
    backend: str | None = None,
) -> None:
    """Copies whole pages before a shared one is written (copy on write).

    Args:
        pages: int32 [n, 2], physical pages from and to; none is written twice, none that is written
            is read.
        k_cache, v_cache, k_idx_cache: as in cache_append; K and V go together.
    """
    backend_code = code("copy_pages", "backend", BACKENDS, backend)
    _check_device("copy_pages", pages)
    _library.copy_pages(backend_code, pages, k_cache, v_cache, k_idx_cache)


def decode(
    q: Tensor,
    q_idx: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k_idx_cache: Tensor,
    page_table: Tensor,
    kv_lens: Tensor,
    cu_seqlens_q: Tensor | None = None,
    *,
    top_k: int,
    max_query_length: int = 0,
    k: Tensor | None = None,
    v: Tensor | None = None,
    k_idx: Tensor | None = None,
    scale: float | None = None,
    scale_idx: float | None = None,
    layout: str = "head_major",
    block_ids: Tensor | None = None,
    out: Tensor | None = None,
    lse: Tensor | None = None,
    workspace: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """One step of one layer on paged caches: append the new tokens, select blocks, attend to them.

    A chunk of a long prompt is the same call with more rows for each request. The block size is the
    page size.

    Args:
        q: [T, Hq, D].  q_idx: [T, Hkv, Di].
        k_cache, v_cache: [P, B, Hkv, D].  k_idx_cache: [P, B, Di].
        page_table: int32 [batch, max_pages].  kv_lens: int32 [batch], the new tokens included.
        cu_seqlens_q: int32 [batch + 1]; default one token for each request.
        top_k: K.
        max_query_length: most rows of a request, 0: not known; 1 without cu_seqlens_q.
        k, v, k_idx: [T, Hkv, D] and [T, Di], the new tokens; none, if the caches have them already.
        scale, scale_idx: defaults 1 / sqrt(D) and 1 / sqrt(Di).
        block_ids: int32 [Hkv, T, K] by `layout`, out: [T, Hq, D], lse: float32 [T, Hq], workspace:
            memory of the caller. With block_ids, out and workspace nothing is allocated.

    Returns:
        (out, lse, block_ids); lse is None if out was given without it.

    Raises:
        MsaInvalidArgument, MsaUnsupported.
    """
    op = "decode"
    _check_no_gradients(op, q=q, q_idx=q_idx, k_cache=k_cache, v_cache=v_cache, k=k, v=v)
    if k_cache.ndim != 4:
        shape = list(k_cache.shape)
        raise invalid(op, f"k_cache has the wrong shape: got {shape}, allowed [P, B, Hkv, D]")
    if cu_seqlens_q is None:
        max_query_length = 1
        cu_seqlens_q = torch.arange(q.shape[0] + 1, dtype=torch.int32, device=q.device)
    if k is not None or v is not None or k_idx is not None:
        cache_append(
            cu_seqlens_q, page_table, kv_lens, k=k, v=v, k_idx=k_idx, k_cache=k_cache,
            v_cache=v_cache, k_idx_cache=k_idx_cache, backend=backend,
        )  # fmt: skip
    shared = {
        "block_size": k_cache.shape[1], "page_table": page_table, "kv_lens": kv_lens,
        "max_query_length": max_query_length, "layout": layout, "workspace": workspace,
        "backend": backend,
    }  # fmt: skip
    picked = index_select_blocks(
        q_idx,
        k_idx_cache,
        cu_seqlens_q,
        top_k=top_k,
        scale=scale_idx,
        block_ids=block_ids,
        **shared,
    )
    out, lse = msa_attention(
        q, k_cache, v_cache, picked.block_ids, cu_seqlens_q, scale=scale, out=out, lse=lse, **shared
    )
    return out, lse, picked.block_ids


@dataclass(frozen=True)
class Plan:
    """Maxima of calls to come and the workspace that any of them needs. Made by plan()."""

    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    index_dim: int
    block_size: int
    top_k: int
    max_tokens: int
    max_keys: int
    max_batch: int
    max_pages: int
    max_query_length: int
    dtype: torch.dtype
    device: torch.device
    backend: str | None
    op_bytes: dict[str, int] = field(repr=False)
    """Bytes for each op."""

    @property
    def workspace_bytes(self) -> int:
        """Bytes that serve every planned op, one after another."""
        return max(self.op_bytes.values())

    def new_workspace(self) -> Tensor:
        """uint8 [workspace_bytes] on the plan's device: one for each stream."""
        return torch.empty(self.workspace_bytes, dtype=torch.uint8, device=self.device)


def plan(
    *,
    num_q_heads: int,
    num_kv_heads: int,
    head_dim: int,
    index_dim: int,
    top_k: int,
    max_tokens: int,
    max_keys: int,
    block_size: int = 128,
    max_batch: int = 1,
    max_pages: int = 0,
    max_query_length: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    backend: str | None = None,
    training: bool = False,
) -> Plan:
    """Sizes the workspace of calls to come from maxima of the host; reads no tensor.

    Lengths, tables and ids are read by each call when it runs, so one plan and one captured CUDA
    graph serve lengths that change.

    Args:
        max_tokens: query tokens of a call.
        max_keys: packed key tokens; with pages, the pages of the cache.
        max_batch: requests in a call.
        max_pages: pages of one request; 0 where keys are packed.
        max_query_length: most query rows of a request, 0: not known; up to 16, Hopper plans decode.
        dtype: of q, k, v, q_idx and k_idx.
        training: size the backward ops and the KL loss, too.

    Raises:
        MsaInvalidArgument, MsaUnsupported: also where the backend lacks an op for these sizes.
    """
    op = "plan"
    names = ["index_forward", "attention_forward", "dense_attention_forward"]
    if training:
        names += ["attention_backward", "dense_attention_backward", "kl_forward_backward"]
    device = torch.device(device)
    codes = (
        code(op, "backend", BACKENDS, backend),
        device_code(op, device),
    )
    sizes = (
        max_tokens, max_keys, max_batch, max_pages, max_query_length, num_q_heads, num_kv_heads,
        head_dim, index_dim, block_size, top_k,
    )  # fmt: skip
    dtype_code = code(op, "dtype", DTYPES, dtype)
    op_bytes = {
        name: _library.lib.plan_bytes(*codes, OPS[name], dtype_code, *sizes) for name in names
    }
    return Plan(
        num_q_heads, num_kv_heads, head_dim, index_dim, block_size, top_k, max_tokens, max_keys,
        max_batch, max_pages, max_query_length, dtype, device, backend, op_bytes,
    )  # fmt: skip


def run(
    plan: Plan,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_idx: Tensor,
    k_idx: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor | None = None,
    *,
    block_ids: Tensor,
    out: Tensor,
    workspace: Tensor,
    lse: Tensor | None = None,
    lse_idx: Tensor | None = None,
    page_table: Tensor | None = None,
    kv_lens: Tensor | None = None,
    scale: float | None = None,
    scale_idx: float | None = None,
) -> Selection:
    """Index and attention of one layer within a plan: allocates nothing, waits for nothing.

    Args:
        plan: what plan() made; a call that exceeds it is refused.
        q, k, v, q_idx, k_idx, cu_seqlens_q, cu_seqlens_k, page_table, kv_lens, scale, scale_idx: as
            in msa_attention and index_select_blocks.
        block_ids: int32 [Hkv, T, K], written.  out: [T, Hq, D], written.  workspace: uint8, at least
            plan.workspace_bytes.  lse: float32 [T, Hq], lse_idx: float32 [Hkv, T], written if given.

    Returns:
        Selection(block_ids, lse_idx, None).

    Raises:
        MsaInvalidArgument, MsaUnsupported.
    """
    paged = page_table is not None
    for what, got, allowed in (
        ("query tokens", q.shape[0], plan.max_tokens),
        ("pages" if paged else "key tokens", k.shape[0], plan.max_keys),
        ("requests", cu_seqlens_q.shape[0] - 1, plan.max_batch),
        ("pages of a request", page_table.shape[1] if paged else 0, plan.max_pages),
    ):
        if got > allowed:
            raise invalid("run", f"more {what} than planned: got {got}, allowed {allowed}")
    if q.dtype != plan.dtype:
        raise invalid(
            "run", f"q has another type than planned: got {q.dtype}, allowed {plan.dtype}"
        )
    shared = {
        "block_size": plan.block_size, "page_table": page_table, "kv_lens": kv_lens,
        "max_query_length": plan.max_query_length, "workspace": workspace, "backend": plan.backend,
    }  # fmt: skip
    picked = index_select_blocks(
        q_idx, k_idx, cu_seqlens_q, cu_seqlens_k, top_k=plan.top_k, scale=scale_idx,
        block_ids=block_ids, lse_idx=lse_idx, **shared,
    )  # fmt: skip
    msa_attention(
        q, k, v, block_ids, cu_seqlens_q, cu_seqlens_k, scale=scale, out=out, lse=lse, **shared
    )
    return picked
