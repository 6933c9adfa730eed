"""Block scores, selection and attention over selected blocks as Triton kernels: the CUDA path of msa.py.

  m[g,i,b]  = max over the visible j of block b of (q_idx[i,g] . k_idx[j]) / sqrt(Di)
  out[i,h]  = sum_j p[h,i,j] v[j,g],  p = exp(s - lse),  s = q[i,h] . k[j,g] / sqrt(D),  j in the selection of (i, g)
  dv[j]     = sum_i p[i,j] dout[i]      ds = p (dout . v[j] - delta[i])      delta[i] = dout[i] . out[i]
  dq[i]     = sum_j ds k[j] / sqrt(D)   dk[j] = sum_i ds q[i] / sqrt(D)

A tile is `TILE` neighbouring queries times the G query heads of a group. A forward or dq program walks the union of the
blocks that its tile selected; each row keeps its own selection by one byte per row and block. A dk, dv program owns one
block and walks the tiles that touched it, in ascending order: no atomics, results are the same at every run. Lists of
touched blocks are made on the device; nothing is read back. N must be a multiple of the tile (callers pad to 128).
"""

import math

import torch
import triton
import triton.language as tl

TILE = 16
LOG2E = 1.4426950408889634


def padded_group(group):
    return triton.next_power_of_2(group)


@triton.jit
def _scores_kernel(
    q, k, m, stride_qb, stride_qh, stride_qn, stride_kb, stride_kn, heads, first, rows, blocks, scale,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """One program: ROWS queries of one head and batch row against every block that they can see."""
    tile, bh = tl.program_id(0), tl.program_id(1)
    batch, head = bh // heads, bh % heads
    row = tile * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    position = first + row
    lane = tl.arange(0, WIDTH)
    column = tl.arange(0, BLOCK)
    q_tile = tl.load(
        q + batch * stride_qb + head * stride_qh + row[:, None] * stride_qn + lane[None, :],
        mask=inside[:, None], other=0.0,
    )  # fmt: skip
    out = m + (bh.to(tl.int64) * rows + row) * blocks
    last = first + tl.minimum(tile * ROWS + ROWS, rows) - 1
    for block in range(last // BLOCK + 1):
        j = block * BLOCK + column
        k_tile = tl.load(
            k + batch * stride_kb + j[None, :].to(tl.int64) * stride_kn + lane[:, None],
            mask=j[None, :] <= last, other=0.0,
        )  # fmt: skip
        scores = tl.dot(q_tile, k_tile) * scale
        visible = (j[None, :] <= position[:, None]) & (scores == scores)  # noqa: PLR0124 (not NaN)
        best = tl.max(tl.where(visible, scores, float("-inf")), 1)
        tl.store(out + block, best, mask=inside)


def block_scores(q_idx, k_idx, first, block):
    """m [B, Hkv, R, blocks] in float32 of the R queries from position first on; -inf where nothing is visible."""
    batch, heads, rows, width = q_idx.shape
    blocks = -(-k_idx.shape[1] // block)
    m = torch.full(
        (batch, heads, rows, blocks), float("-inf"), dtype=torch.float32, device=q_idx.device
    )
    tile = 64
    _scores_kernel[(triton.cdiv(rows, tile), batch * heads)](
        q_idx, k_idx, m, q_idx.stride(0), q_idx.stride(1), q_idx.stride(2), k_idx.stride(0),
        k_idx.stride(1), heads, first, rows, blocks, 1.0 / math.sqrt(width),
        WIDTH=width, BLOCK=block, ROWS=tile, num_warps=4,
    )  # fmt: skip
    return m


@triton.jit
def _select_kernel(
    m, bitmap, first, rows, blocks, total,
    TOP_K: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """ROWS rows of m: the local block, then TOP_K - 1 times the highest that is left, the lowest id of equals."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < total
    ids = tl.arange(0, WIDTH)
    local = (first + row % rows) // BLOCK
    place = row[:, None].to(tl.int64) * blocks + ids[None, :]
    stored = inside[:, None] & (ids[None, :] < blocks)
    scores = tl.load(m + place, mask=stored, other=float("-inf"))
    chosen = ids[None, :] == local[:, None]
    left = ids[None, :] < local[:, None]
    for _ in range(TOP_K - 1):
        best = tl.max(tl.where(left, scores, float("-inf")), 1)
        equal = left & (scores == best[:, None])
        lowest = tl.min(tl.where(equal, ids[None, :], WIDTH), 1)
        taken = ids[None, :] == lowest[:, None]
        chosen = chosen | taken
        left = left & (ids[None, :] != lowest[:, None])
    tl.store(bitmap + place, chosen.to(tl.int8), mask=stored)


def select_blocks(scores, first, block, top_k):
    """Bitmap [B, Hkv, R, blocks] of the selected blocks; scores as block_scores gives them."""
    rows, blocks = scores.shape[-2:]
    bitmap = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    width = max(triton.next_power_of_2(blocks), 16)
    tile = max(1, 2048 // width)
    total = scores.numel() // blocks
    _select_kernel[(triton.cdiv(total, tile),)](
        scores, bitmap.view(torch.int8), first, rows, blocks, total,
        TOP_K=top_k, BLOCK=block, ROWS=tile, WIDTH=width, num_warps=4,
    )  # fmt: skip
    return bitmap


def select_chunk(q_idx, k_idx, first, block, top_k):
    """As msa.select_chunk."""
    return select_blocks(block_scores(q_idx, k_idx, first, block), first, block, top_k)


def touched_blocks(bitmap, tile=TILE):
    """[B * Hkv, tiles, blocks] of bool: what some query of a tile selected; bitmap [B * Hkv, N, blocks]."""
    merged, length, blocks = bitmap.shape
    if length % tile:
        raise ValueError(f"[sparse attention] length: got {length}, allowed multiples of {tile}")
    return bitmap.view(merged, length // tile, tile, blocks).any(2)


def ascending(touched):
    """(counts [X, Y] int32, list [X, Y, Z] int32): the indices of the true entries of each last axis, ascending."""
    size = touched.shape[-1]
    place = touched.cumsum(-1, dtype=torch.int32) - 1
    ids = torch.arange(size, dtype=torch.int32, device=touched.device).expand(touched.shape)
    order = torch.zeros(
        *touched.shape[:-1], size + 1, dtype=torch.int32, device=touched.device
    )  # entry `size` takes what is not touched
    order.scatter_(-1, torch.where(touched, place, size).long(), ids)
    return place[..., -1] + 1, order


@triton.jit
def _rows(tile, TILE: tl.constexpr, GROUP: tl.constexpr):
    """The query and the head in its group of each row of a tile."""
    row = tl.arange(0, TILE * GROUP)
    return tile * TILE + row // GROUP, row % GROUP


@triton.jit
def _forward_kernel(
    q, k, v, out, lse, bitmap, counts, order,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n,
    heads, group, length, blocks, tiles, scale_log2,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    tile, bh = tl.program_id(0), tl.program_id(1)
    batch, head = bh // heads, bh % heads
    query, member = _rows(tile, TILE, GROUP)
    real = member < group
    query_head = head * group + member
    lane, column = tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    q_tile = tl.load(
        q + batch * q_b + query_head[:, None] * q_h + query[:, None].to(tl.int64) * q_n + lane[None, :],
        mask=real[:, None], other=0.0,
    )  # fmt: skip
    own = bitmap + (bh.to(tl.int64) * length + query) * blocks
    list_at = bh.to(tl.int64) * tiles + tile
    highest = tl.full((TILE * GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((TILE * GROUP,), tl.float32)
    acc = tl.zeros((TILE * GROUP, WIDTH), tl.float32)
    for i in range(tl.load(counts + list_at)):
        block = tl.load(order + list_at * (blocks + 1) + i)
        j = block * BLOCK + column
        k_tile = tl.load(
            k + batch * k_b + head * k_h + j[None, :].to(tl.int64) * k_n + lane[:, None],
            mask=j[None, :] < length, other=0.0,
        )  # fmt: skip
        v_tile = tl.load(
            v + batch * v_b + head * v_h + j[:, None].to(tl.int64) * v_n + lane[None, :],
            mask=j[:, None] < length, other=0.0,
        )  # fmt: skip
        chosen = tl.load(own + block) != 0
        scores = tl.dot(q_tile, k_tile) * scale_log2
        keep = chosen[:, None] & (j[None, :] <= query[:, None])
        scores = tl.where(keep, scores, float("-inf"))
        new = tl.maximum(highest, tl.max(scores, 1))
        base = tl.where(new == float("-inf"), 0.0, new)
        p = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(highest - base)
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None] + tl.dot(p.to(v_tile.dtype), v_tile)
        highest = new
    acc = acc / total[:, None]
    tl.store(
        out + batch * o_b + query_head[:, None] * o_h + query[:, None].to(tl.int64) * o_n + lane[None, :],
        acc.to(out.dtype.element_ty), mask=real[:, None],
    )  # fmt: skip
    state = (batch * heads * group + query_head).to(tl.int64) * length + query
    tl.store(lse + state, highest + tl.log2(total), mask=real)


@triton.jit
def _dq_kernel(
    q, k, v, dout, dq, lse, delta, bitmap, counts, order,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n, d_b, d_h, d_n,
    heads, group, length, blocks, tiles, scale, scale_log2,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    tile, bh = tl.program_id(0), tl.program_id(1)
    batch, head = bh // heads, bh % heads
    query, member = _rows(tile, TILE, GROUP)
    real = member < group
    query_head = head * group + member
    lane, column = tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    place = query[:, None].to(tl.int64)
    q_tile = tl.load(
        q + batch * q_b + query_head[:, None] * q_h + place * q_n + lane[None, :],
        mask=real[:, None], other=0.0,
    )  # fmt: skip
    g_tile = tl.load(
        dout + batch * g_b + query_head[:, None] * g_h + place * g_n + lane[None, :],
        mask=real[:, None], other=0.0,
    )  # fmt: skip
    state = (batch * heads * group + query_head).to(tl.int64) * length + query
    row_lse = tl.load(lse + state, mask=real, other=0.0)
    row_delta = tl.load(delta + state, mask=real, other=0.0)
    own = bitmap + (bh.to(tl.int64) * length + query) * blocks
    list_at = bh.to(tl.int64) * tiles + tile
    acc = tl.zeros((TILE * GROUP, WIDTH), tl.float32)
    for i in range(tl.load(counts + list_at)):
        block = tl.load(order + list_at * (blocks + 1) + i)
        j = block * BLOCK + column
        k_tile = tl.load(
            k + batch * k_b + head * k_h + j[:, None].to(tl.int64) * k_n + lane[None, :],
            mask=j[:, None] < length, other=0.0,
        )  # fmt: skip
        v_tile = tl.load(
            v + batch * v_b + head * v_h + j[None, :].to(tl.int64) * v_n + lane[:, None],
            mask=j[None, :] < length, other=0.0,
        )  # fmt: skip
        chosen = tl.load(own + block) != 0
        keep = chosen[:, None] & (j[None, :] <= query[:, None])
        scores = tl.dot(q_tile, tl.trans(k_tile)) * scale_log2
        p = tl.where(keep, tl.exp2(scores - row_lse[:, None]), 0.0)
        ds = p * (tl.dot(g_tile, v_tile) - row_delta[:, None])
        acc += tl.dot(ds.to(k_tile.dtype), k_tile)
    tl.store(
        dq + batch * d_b + query_head[:, None] * d_h + place * d_n + lane[None, :],
        (acc * scale).to(dq.dtype.element_ty), mask=real[:, None],
    )  # fmt: skip


@triton.jit
def _dkv_kernel(
    q, k, v, dout, dk, dv, lse, delta, bitmap, counts, order,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n,
    heads, group, length, blocks, tiles, scale, scale_log2,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    block, bh = tl.program_id(0), tl.program_id(1)
    batch, head = bh // heads, bh % heads
    lane, column = tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    j = block * BLOCK + column
    key = j.to(tl.int64)
    k_tile = tl.load(
        k + batch * k_b + head * k_h + key[None, :] * k_n + lane[:, None],
        mask=j[None, :] < length, other=0.0,
    )  # fmt: skip
    v_tile = tl.load(
        v + batch * v_b + head * v_h + key[None, :] * v_n + lane[:, None],
        mask=j[None, :] < length, other=0.0,
    )  # fmt: skip
    k_grad = tl.zeros((BLOCK, WIDTH), tl.float32)
    v_grad = tl.zeros((BLOCK, WIDTH), tl.float32)
    list_at = bh.to(tl.int64) * blocks + block
    for i in range(tl.load(counts + list_at)):
        tile = tl.load(order + list_at * (tiles + 1) + i)
        query, member = _rows(tile, TILE, GROUP)
        real = member < group
        query_head = head * group + member
        place = query[:, None].to(tl.int64)
        q_tile = tl.load(
            q + batch * q_b + query_head[:, None] * q_h + place * q_n + lane[None, :],
            mask=real[:, None], other=0.0,
        )  # fmt: skip
        g_tile = tl.load(
            dout + batch * g_b + query_head[:, None] * g_h + place * g_n + lane[None, :],
            mask=real[:, None], other=0.0,
        )  # fmt: skip
        state = (batch * heads * group + query_head).to(tl.int64) * length + query
        row_lse = tl.load(lse + state, mask=real, other=0.0)
        row_delta = tl.load(delta + state, mask=real, other=0.0)
        chosen = tl.load(bitmap + (bh.to(tl.int64) * length + query) * blocks + block) != 0
        keep = (chosen & real)[:, None] & (j[None, :] <= query[:, None])
        scores = tl.dot(q_tile, k_tile) * scale_log2
        p = tl.where(keep, tl.exp2(scores - row_lse[:, None]), 0.0)
        v_grad += tl.dot(tl.trans(p.to(g_tile.dtype)), g_tile)
        ds = p * (tl.dot(g_tile, v_tile) - row_delta[:, None])
        k_grad += tl.dot(tl.trans(ds.to(q_tile.dtype)), q_tile)
    inside = j[:, None] < length
    tl.store(
        dk + batch * dk_b + head * dk_h + key[:, None] * dk_n + lane[None, :],
        (k_grad * scale).to(dk.dtype.element_ty), mask=inside,
    )  # fmt: skip
    tl.store(
        dv + batch * dv_b + head * dv_h + key[:, None] * dv_n + lane[None, :],
        v_grad.to(dv.dtype.element_ty), mask=inside,
    )  # fmt: skip


def strides(*tensors):
    """The strides of batch, head and token of each tensor; the last axis is contiguous."""
    return [stride for tensor in tensors for stride in tensor.stride()[:3]]


class SparseAttention(torch.autograd.Function):
    """q [B, Hq, N, D], k and v [B, Hkv, N, D], bitmap [B, Hkv, N, blocks] -> out [B, Hq, N, D]."""

    @staticmethod
    def forward(ctx, q, k, v, bitmap, block):
        batch, query_heads, length, width = q.shape
        heads = k.shape[1]
        group = query_heads // heads
        q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
        bitmap = bitmap.reshape(batch * heads, length, -1)
        out = torch.empty(
            batch, length, query_heads, width, dtype=q.dtype, device=q.device
        ).transpose(1, 2)
        lse = torch.empty(batch, query_heads, length, dtype=torch.float32, device=q.device)
        tiles, blocks = length // TILE, bitmap.shape[-1]
        scale = 1.0 / math.sqrt(width)
        counts, order = ascending(touched_blocks(bitmap))
        _forward_kernel[(tiles, batch * heads)](
            q, k, v, out, lse, bitmap, counts, order, *strides(q, k, v, out),
            heads, group, length, blocks, tiles, scale * LOG2E,
            WIDTH=width, BLOCK=block, TILE=TILE, GROUP=padded_group(group), num_warps=4,
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, out, lse, bitmap, counts, order)
        ctx.block = block
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, out, lse, bitmap, tile_counts, tile_order = ctx.saved_tensors
        by_block = touched_blocks(bitmap).transpose(1, 2).contiguous()
        block_counts, block_order = ascending(by_block)
        batch, query_heads, length, width = q.shape
        heads, block = k.shape[1], ctx.block
        group = query_heads // heads
        dout = dout if dout.stride(-1) == 1 else dout.contiguous()
        delta = (dout.float() * out.float()).sum(-1)
        dq, dk, dv = (torch.empty_like(t) for t in (q, k, v))
        tiles, blocks = length // TILE, bitmap.shape[-1]
        scale = 1.0 / math.sqrt(width)
        shared = {
            "WIDTH": width, "BLOCK": block, "TILE": TILE, "GROUP": padded_group(group), "num_warps": 4
        }  # fmt: skip
        sizes = (heads, group, length, blocks, tiles, scale, scale * LOG2E)
        _dkv_kernel[(blocks, batch * heads)](
            q, k, v, dout, dk, dv, lse, delta, bitmap, block_counts, block_order,
            *strides(q, k, v, dout, dk, dv), *sizes, **shared,
        )  # fmt: skip
        _dq_kernel[(tiles, batch * heads)](
            q, k, v, dout, dq, lse, delta, bitmap, tile_counts, tile_order,
            *strides(q, k, v, dout, dq), *sizes, **shared,
        )  # fmt: skip
        return dq, dk, dv, None, None


def sparse_attention(q, k, v, bitmap, block):
    """Attention over the selected blocks; differentiable in q, k and v."""
    return SparseAttention.apply(q, k, v, bitmap, block)
