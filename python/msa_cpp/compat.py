"""The calls that engines for MiniMax-M3 already make, on msa.cpp: fmha_sm100 and its companions.

    plan = fmha_sm100_plan(qo_lens, kv_lens, num_index_heads, page_size=128, output_maxscore=True)
    _, max_score = fmha_sm100(q_idx, k_idx_pages, None, plan, kv_indices=pages, output_o=False,
                              output_maxscore=True)
    picked = sparse_topk_select(max_score, 16)
    plan = fmha_sm100_plan(qo_lens, kv_lens, num_q_heads, num_kv_heads=4, kv_block_num=16)
    out, _ = fmha_sm100(q, k_pages, v_pages, plan, kv_indices=pages, kv_block_indexes=picked)

Pages are [P, Hkv, B, D] (heads before tokens); `kv_indices` int32 lists the pages of all requests,
one request after another. Works wherever a backend of msa.cpp does. What is not supported is refused
by name. The selection here is the plain top-k of what it is given: unlike index_select_blocks it
does not force the local block. Not differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import MsaUnsupported, invalid
from .functional import dense_attention, index_select_blocks, msa_attention, select_blocks


@dataclass(frozen=True)
class FmhaPlan:
    """Lengths of the requests of a call, made on the host by fmha_sm100_plan."""

    cu_seqlens_q: Tensor
    kv_lens: Tensor
    slots: Tensor
    """int64 [batch, max_pages]: where in kv_indices the page of each block stands."""
    num_qo_heads: int
    num_kv_heads: int
    page_size: int
    kv_block_num: int
    output_maxscore: bool


def _refuse(op: str, options: dict) -> None:
    """Options of other values than the only one that is supported."""
    for name, value in options.items():
        if name == "num_kv_splits" and value in (None, 0, 1):
            continue
        if value not in (None, False):
            raise MsaUnsupported(f"[{op}] {name} is not supported: got {value!r}, allowed nothing")


def fmha_sm100_plan(
    qo_lens: Tensor,
    kv_lens: Tensor,
    num_qo_heads: int,
    *,
    num_kv_heads: int = 1,
    qo_offset: Tensor | None = None,
    page_size: int = 128,
    kv_block_num: int = -1,
    causal: bool = True,
    output_maxscore: bool = False,
    **options,
) -> FmhaPlan:
    """Lengths on the host into what fmha_sm100 takes.

    Args:
        qo_lens, kv_lens: int32 [batch] in host memory, query and key tokens of each request.
        num_qo_heads, num_kv_heads: heads of q and of the pages.
        qo_offset: int32 [batch], position of each request's first query; default kv_len - qo_len.
        page_size: B.  kv_block_num: K of kv_block_indexes; -1: dense attention.
        output_maxscore: the call makes block scores.

    Raises:
        MsaInvalidArgument: lengths that do not fit each other.
        MsaUnsupported: attention that is not causal, and every other option that asks for something.
    """
    op = "fmha_sm100_plan"
    _refuse(op, options)
    if not causal:
        raise MsaUnsupported(f"[{op}] causal=False is not supported: allowed causal attention")
    qo, kv = qo_lens.tolist(), kv_lens.tolist()
    offsets = [b - a for a, b in zip(qo, kv, strict=False)]
    if qo_offset is not None:
        offsets = qo_offset.tolist()
    if not len(qo) == len(kv) == len(offsets):
        raise invalid(op, f"lengths differ: got {len(qo)}, {len(kv)} and {len(offsets)} requests")
    seen = []
    for request, (rows, length, offset) in enumerate(zip(qo, kv, offsets, strict=True)):
        if rows < 0 or length < 0 or offset + rows > length:
            raise invalid(
                op,
                f"request {request} does not fit its keys: got {rows} queries from position {offset} "
                f"on {length} keys, allowed at most as many",
            )
        seen.append(max(offset + rows, 0))  # later keys are visible to none of its queries
    pages = [-(-length // page_size) for length in kv]
    starts = torch.tensor([0, *pages]).cumsum(0)[:-1]
    reach = torch.arange(max(pages, default=0))
    slots = torch.minimum(starts[:, None] + reach, torch.tensor(max(sum(pages) - 1, 0)))
    return FmhaPlan(
        torch.tensor([0, *qo]).cumsum(0).int(), torch.tensor(seen, dtype=torch.int32), slots,
        num_qo_heads, num_kv_heads, page_size, kv_block_num, output_maxscore,
    )  # fmt: skip


def fmha_sm100(
    q: Tensor,
    k: Tensor,
    v: Tensor | None,
    plan: FmhaPlan,
    *,
    kv_indices: Tensor,
    kv_block_indexes: Tensor | None = None,
    sm_scale: float | None = None,
    output_o: bool = True,
    output_maxscore: bool = False,
    out: Tensor | None = None,
    check_input_valid: bool = True,
    **options,
) -> tuple[Tensor | None, Tensor | None]:
    """Attention on pages, dense or over the listed blocks, and the proxy pass that scores blocks.

    Args:
        q: [T, num_qo_heads, D].  k, v: [P, num_kv_heads, B, D].
        kv_indices: int32, the pages of all requests one after another.
        kv_block_indexes: int32 [T, num_kv_heads, K]; None: dense.
        sm_scale: default 1 / sqrt(D).
        output_maxscore: make max_score float32 [num_qo_heads, max_pages, T], for one key head.
        check_input_valid: the library checks always; False is taken and changes nothing.

    Returns:
        (out [T, num_qo_heads, D] or None, max_score or None).
    """
    op = "fmha_sm100"
    _refuse(op, options)
    wanted = plan.kv_block_num if plan.kv_block_num > 0 else None
    given = None if kv_block_indexes is None else kv_block_indexes.shape[-1]
    for name, got, allowed in (
        ("heads of q", q.shape[1], plan.num_qo_heads),
        ("heads of k", k.shape[1], plan.num_kv_heads),
        ("tokens of a page", k.shape[2], plan.page_size),
        ("blocks of a row", given, wanted),
        ("output_maxscore", output_maxscore, plan.output_maxscore),
    ):
        if got != allowed:
            raise invalid(op, f"{name} are not as planned: got {got}, allowed {allowed}")
    rows = {
        "page_table": kv_indices[plan.slots.to(kv_indices.device)].int(),
        "kv_lens": plan.kv_lens.to(q.device),
    }
    cu_seqlens_q = plan.cu_seqlens_q.to(q.device)
    max_score = None
    if output_maxscore:
        if plan.num_kv_heads != 1:
            raise MsaUnsupported(
                f"[{op}] max scores of {plan.num_kv_heads} key heads are not supported: allowed 1"
            )
        scored = index_select_blocks(
            q, k[:, 0], cu_seqlens_q, top_k=0, block_size=plan.page_size, scale=sm_scale,
            max_blocks=plan.slots.shape[1], **rows,
        )  # fmt: skip
        max_score = scored.block_scores.transpose(1, 2)
    if not output_o:
        return None, max_score
    pages = (k.transpose(1, 2), v.transpose(1, 2))
    if kv_block_indexes is None:
        made, _ = dense_attention(q, *pages, cu_seqlens_q, scale=sm_scale, out=out, **rows)
    else:
        made, _ = msa_attention(
            q, *pages, kv_block_indexes, cu_seqlens_q, block_size=plan.page_size, scale=sm_scale,
            layout="token_major", out=out, **rows,
        )  # fmt: skip
    return made, max_score


def sparse_topk_select(
    max_score: Tensor, topk: int, *, num_valid_pages: int | None = None, **options
) -> Tensor:
    """The topk best blocks of each row: int32 [T, H, topk], ascending, then -1.

    Args:
        max_score: float32 [H, max_pages, T], as fmha_sm100 makes it; in another order of memory it
            is copied.
        num_valid_pages: blocks that compete; default all.
    """
    _refuse("sparse_topk_select", options)
    scores = max_score.transpose(1, 2)[..., :num_valid_pages]
    if scores.stride(-1) != 1:
        scores = scores.contiguous()
    return select_blocks(scores, top_k=topk, layout="token_major")


def sparse_atten_func(*arguments, **options) -> Tensor:
    """Training attention on CSR lists of queries: refused; msa_attention takes the ids themselves."""
    raise MsaUnsupported(
        "[sparse_atten_func] lists of queries for each block are not supported: allowed "
        "msa_cpp.msa_attention(q, k, v, block_ids, cu_seqlens), which needs no list and has gradients"
    )


__all__ = ["FmhaPlan", "fmha_sm100", "fmha_sm100_plan", "sparse_atten_func", "sparse_topk_select"]
