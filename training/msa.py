"""MSA in PyTorch: block scores, selection, attention over selected blocks, KL loss.

Shapes: q [B, Hq, N, D], k and v [B, Hkv, N, D], q_idx [B, Hkv, R, Di], k_idx [B, N, Di]; R rows of queries stand at
the indices `rows` [B, R] (all N when None). A selection is a bitmap [B, Hkv, R, blocks] of bool.

  s[g,i,j] = (q_idx[i,g] . k_idx[j]) / sqrt(Di)        m[g,i,b] = max of s over the visible j of block b
  selected = the local block and the K - 1 others with the highest m; ties go to the lower block
  out[i,h] = softmax over the selected visible j of q[i,h].k[j,g] / sqrt(D), times v
  KL       = mean over i and g of sum_j p (log p - log r), p the group mean of the main attention, r the index branch

Two paths give the same results: the plain one here (masked attention, for the CPU and the tests) and the kernels of
sparse_triton.py (for CUDA). Scores are made in chunks of queries, so nothing of size N x N is ever whole.
"""

import math

import torch
import torch.nn.functional as F

NEGATIVE = float("-inf")


def products(a, b):
    """a @ b with products summed and returned in float32 at least, under autocast too: order is all that counts."""
    with torch.autocast(a.device.type, enabled=False):
        if a.dtype in (torch.bfloat16, torch.float16):
            a, b = a.float(), b.float()
        return torch.matmul(a, b)


def block_scores(q_idx, k_idx, rows, block):
    """m [B, Hkv, R, blocks] in float32; -inf where a block has no visible token. rows [B, R] are query positions."""
    batch, heads, _, width = q_idx.shape
    length = k_idx.shape[1]
    blocks = -(-length // block)
    scores = products(q_idx, k_idx[:, None].transpose(2, 3)).float() / math.sqrt(width)
    visible = torch.arange(length, device=k_idx.device) <= rows[:, None, :, None]
    scores = torch.where(visible & ~scores.isnan(), scores, NEGATIVE)
    if blocks * block != length:
        scores = F.pad(scores, (0, blocks * block - length), value=NEGATIVE)
    return scores.view(batch, heads, -1, blocks, block).amax(-1)


def select_blocks(scores, rows, block, top_k):
    """Bitmap of the K selected blocks of each row, by spec: local block, then highest scores, ties to lower ids."""
    blocks = scores.shape[-1]
    ids = torch.arange(blocks, device=scores.device)
    local = (rows // block)[:, None, :, None]
    visible = ids < local
    others = top_k - 1
    if others == 0:
        return (ids == local).expand(scores.shape)
    if blocks - 1 <= others:
        return (ids <= local).expand(scores.shape)
    ranked = torch.where(visible, scores, NEGATIVE)
    cut = ranked.topk(others, dim=-1).values[..., -1:]
    above = (ranked > cut) & visible
    ties = (ranked == cut) & visible
    wanted = others - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1) <= wanted)) | (ids == local)


def bitmap_to_ids(bitmap, top_k):
    """int32 ids [..., K]: ascending, then -1."""
    blocks = bitmap.shape[-1]
    ids = torch.where(bitmap, torch.arange(blocks, device=bitmap.device), blocks)
    if blocks < top_k:
        ids = F.pad(ids, (0, top_k - blocks), value=blocks)
    ids = ids.sort(-1).values[..., :top_k]
    return torch.where(ids == blocks, -1, ids).int()


def select_chunk(q_idx, k_idx, first, block, top_k):
    """Bitmap of the queries at positions first, first + 1, ..."""
    rows = torch.arange(first, first + q_idx.shape[2], device=q_idx.device)
    rows = rows.expand(q_idx.shape[0], -1)
    return select_blocks(block_scores(q_idx, k_idx, rows, block), rows, block, top_k)


def select_all(q_idx, k_idx, block, top_k, chunk, select=select_chunk):
    """Bitmap of every query, in chunks of queries."""
    batch, heads, length, _ = q_idx.shape
    blocks = -(-length // block)
    bitmap = torch.empty(batch, heads, length, blocks, dtype=torch.bool, device=q_idx.device)
    for start in range(0, length, chunk):
        end = min(start + chunk, length)
        bitmap[:, :, start:end] = select(q_idx[:, :, start:end], k_idx, start, block, top_k)
    return bitmap


def dense_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def sparse_attention_plain(q, k, v, bitmap, block):
    """Masked attention in chunks of queries, one key-value head (and its group of query heads) at a time."""
    batch, heads, length, _ = q.shape
    group = heads // k.shape[1]
    chunk = 1024
    out = []
    for start in range(0, length, chunk):
        end = min(start + chunk, length)
        mask = bitmap[:, :, start:end, :].repeat_interleave(block, -1)[..., :end]
        mask = mask & (
            torch.arange(end, device=q.device) <= torch.arange(start, end, device=q.device)[:, None]
        )
        mask = (
            mask[:, :, None].expand(-1, -1, group, -1, -1).reshape(batch, heads, end - start, end)
        )
        out.append(
            F.scaled_dot_product_attention(
                q[:, :, start:end], k[:, :, :end], v[:, :, :end], attn_mask=mask, enable_gqa=True
            )
        )
    return torch.cat(out, 2)


def token_mask(rows, length, bitmap, block):
    """[B, Hkv or 1, R, N]: the tokens of S(i, g); every j <= i where there is no bitmap."""
    mask = (torch.arange(length, device=rows.device) <= rows[:, :, None])[:, None]
    if bitmap is not None:
        mask = mask & bitmap.repeat_interleave(block, -1)[..., :length]
    return mask


def teacher_probabilities(q_rows, k, mask):
    """p [B, Hkv, R, N] in float32: the group mean of the main attention over S."""
    batch, heads, count, width = q_rows.shape
    groups = k.shape[1]
    logits = products(q_rows.view(batch, groups, -1, width), k.transpose(2, 3))
    logits = logits.float().view(batch, groups, heads // groups, count, -1) / math.sqrt(width)
    return logits.masked_fill(~mask[:, :, None], NEGATIVE).softmax(-1).mean(2)


def kl_rows(q_rows, k, q_idx_rows, k_idx, rows, bitmap_rows, block):
    """KL [B, Hkv, R] of the sampled rows. The caller detaches q, k; gradients reach only q_idx and k_idx."""
    mask = token_mask(rows, k.shape[2], bitmap_rows, block)
    with torch.no_grad():
        p = teacher_probabilities(q_rows, k, mask)
    scores = products(q_idx_rows, k_idx[:, None].transpose(2, 3)).float() / math.sqrt(
        q_idx_rows.shape[-1]
    )
    log_r = scores.masked_fill(~mask, NEGATIVE).log_softmax(-1)
    safe = (p > 0) & mask
    terms = torch.where(safe, p * (p.clamp_min(1e-38).log() - log_r.masked_fill(~safe, 0.0)), 0.0)
    return terms.sum(-1)


def recall_rows(q_rows, k, bitmap_rows, rows, block, top_k):
    """Block and score recall of the rows with more than K visible blocks, with and without the local block.

    By the definitions of include/msa/recall.h: without the local block it is taken out of the best K."""
    length = k.shape[2]
    p = teacher_probabilities(q_rows, k, token_mask(rows, length, None, block))
    blocks = -(-length // block)
    mass = F.pad(p, (0, blocks * block - length)).view(*p.shape[:3], blocks, block).sum(-1)
    ids = torch.arange(blocks, device=rows.device)
    local = (ids == (rows // block)[:, None, :, None]).expand(mass.shape)
    counts = (rows // block + 1 > top_k)[:, None, :].expand(mass.shape[:3])
    visible = ids <= (rows // block)[:, None, :, None]
    ranked = torch.where(visible, mass, -1.0)
    best = torch.zeros_like(local).scatter(-1, ranked.topk(min(top_k, blocks), -1).indices, True)
    result = {}
    for name, wanted in (("", best), ("_without_local", best & ~local)):
        hit = wanted & bitmap_rows
        size, whole = wanted.sum(-1), (mass * wanted).sum(-1)
        block_recall = torch.where(size > 0, hit.sum(-1) / size.clamp_min(1), 1.0)
        score_recall = torch.where(whole > 0, (mass * hit).sum(-1) / whole, 1.0)
        result["block_recall" + name] = block_recall[counts]
        result["score_recall" + name] = score_recall[counts]
    return result
