"""MSA in float64 PyTorch, by the formulas, over masks: what the operators are compared with.

Shapes are those of msa_cpp. A selection is a mask [T, Hkv, Tk] of bool over packed keys: the tokens
of S(i,g). Rows that see nothing give out 0 and lse -inf. Autograd differentiates all of it.
"""

import math

import torch

NEGATIVE = -math.inf


def positions(cu_q, cu_k):
    """For each query row its request, its position and its request's first key."""
    rows = []
    for r in range(len(cu_q) - 1):
        q_len, k_len = int(cu_q[r + 1] - cu_q[r]), int(cu_k[r + 1] - cu_k[r])
        rows += [(r, k_len - q_len + t, int(cu_k[r])) for t in range(q_len)]
    return rows


def visible_mask(cu_q, cu_k, num_rows, num_keys):
    """[T, Tk]: keys of the row's request at or before its position."""
    mask = torch.zeros(num_rows, num_keys, dtype=torch.bool)
    for row, (_, position, first) in enumerate(positions(cu_q, cu_k)):
        mask[row, first : first + max(position + 1, 0)] = True
    return mask


def selected_mask(block_ids, cu_q, cu_k, num_keys, block):
    """[T, Hkv, Tk] from head-major ids [Hkv, T, K], which are read up to the first -1."""
    heads, num_rows, _ = block_ids.shape
    visible = visible_mask(cu_q, cu_k, num_rows, num_keys)
    mask = torch.zeros(num_rows, heads, num_keys, dtype=torch.bool)
    for row, (r, _, first) in enumerate(positions(cu_q, cu_k)):
        for head in range(heads):
            for block_id in block_ids[head, row].tolist():
                if block_id == -1:
                    break
                begin = first + block_id * block
                mask[row, head, begin : min(begin + block, int(cu_k[r + 1]))] = True
    return mask & visible[:, None]


def whole_mask(heads, cu_q, cu_k, num_rows, num_keys):
    """[T, Hkv, Tk]: all visible tokens for every group."""
    return visible_mask(cu_q, cu_k, num_rows, num_keys)[:, None].expand(-1, heads, -1)


def masked_softmax(logits, mask):
    """Probabilities and lse over the last axis; a row of nothing gives 0 and -inf."""
    logits = logits.masked_fill(~mask, NEGATIVE)
    some = mask.any(-1, keepdim=True)
    safe = torch.where(some, logits, torch.zeros_like(logits))
    probabilities = torch.where(some, safe.softmax(-1), torch.zeros_like(safe))
    lse = torch.where(some[..., 0], safe.logsumexp(-1), torch.full_like(safe[..., 0], NEGATIVE))
    return probabilities, lse


def attention(q, k, v, mask, scale=None):
    """out [T, Hq, D] and lse [T, Hq]."""
    group = q.shape[1] // k.shape[1]
    scale = q.shape[2] ** -0.5 if scale is None else scale
    logits = scale * torch.einsum("thd,jhd->thj", q, k.repeat_interleave(group, 1))
    probabilities, lse = masked_softmax(logits, mask.repeat_interleave(group, 1))
    return torch.einsum("thj,jhd->thd", probabilities, v.repeat_interleave(group, 1)), lse


def index_lse(q_idx, k_idx, mask, scale=None):
    """lse_idx [Hkv, T]."""
    scale = q_idx.shape[2] ** -0.5 if scale is None else scale
    return masked_softmax(scale * torch.einsum("thd,jd->thj", q_idx, k_idx), mask)[1].T


def block_scores(q_idx, k_idx, cu_q, cu_k, block, max_blocks, scale=None):
    """m [Hkv, T, max_blocks]; -inf where nothing is visible."""
    scale = q_idx.shape[2] ** -0.5 if scale is None else scale
    tokens = scale * torch.einsum("thd,jd->htj", q_idx, k_idx)
    scores = torch.full((q_idx.shape[1], q_idx.shape[0], max_blocks), NEGATIVE, dtype=q_idx.dtype)
    for row, (_, position, first) in enumerate(positions(cu_q, cu_k)):
        for b in range(position // block + 1 if position >= 0 else 0):
            last = first + min((b + 1) * block, position + 1)
            scores[:, row, b] = tokens[:, row, first + b * block : last].amax(-1)
    return scores


def kl(q, k, q_idx, k_idx, mask, normaliser, coefficient=1.0):
    """The KL loss; gradients reach q_idx and k_idx alone."""
    group = q.shape[1] // k.shape[1]
    keys = k.detach().repeat_interleave(group, 1)
    logits = q.shape[2] ** -0.5 * torch.einsum("thd,jhd->thj", q.detach(), keys)
    heads = masked_softmax(logits, mask.repeat_interleave(group, 1))[0]
    p = heads.unflatten(1, (-1, group)).mean(2)
    scores = q_idx.shape[2] ** -0.5 * torch.einsum("thd,jd->thj", q_idx, k_idx)
    some = mask.any(-1, keepdim=True)
    log_r = torch.where(some, scores.masked_fill(~mask, NEGATIVE), 0.0).log_softmax(-1)
    counts = (p > 0) & mask
    safe_p = torch.where(counts, p, 1.0)
    terms = torch.where(counts, p * (safe_p.log() - torch.where(counts, log_r, 0.0)), 0.0)
    return coefficient / normaliser * terms.sum()
