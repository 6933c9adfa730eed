"""Every rule of docs/maths.md once more, as slowly and plainly as it can be written.

One query row and one head at a time, in float64, with a plain sort; nothing here is shared with the
library or the trainer, so that an error in either cannot hide in the results it is checked with.

A request is a dict of float64 arrays: q [n, Hq, D], k and v [N, Hkv, D], q_idx [n, Hkv, Di],
k_idx [N, Di]. Row t of its n queries stands at position N - n + t, which may be below 0.
"""

import math

import numpy as np

INFINITY = math.inf


def scale_of(dim):
    """The default 1 / sqrt(dim), as the float32 number that an op computes with."""
    return float(np.float32(1.0 / math.sqrt(dim)))


def dots(query, keys):
    """query . keys[j] for each j; 0 * inf and inf - inf are NaN, as everywhere."""
    with np.errstate(invalid="ignore", over="ignore"):
        return [float(np.sum(query * key)) for key in keys]


def round_to_float32(x):
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(x))


def block_scores(q_row, k_idx, position, block_size, scale):
    """m[b] = fl32(scale * max over visible j in b of the dot); NaN is passed over."""
    scores = []
    visible = dots(q_row, k_idx[: position + 1])
    for begin in range(0, position + 1, block_size):
        best = -INFINITY
        for dot in visible[begin : begin + block_size]:
            if dot > best:  # false for NaN, as max() would not be  # noqa: PLR1730
                best = dot
        scores.append(round_to_float32(scale * best))
    return scores


def select(scores, top_k):
    """The local block and the K - 1 best others; of equals the lower id; ascending, then -1."""
    local = len(scores) - 1
    others = sorted(range(local), key=lambda b: (-scores[b], b))  # -0.0 == 0.0 in a comparison
    ids = sorted([*others[: top_k - 1], local])
    return ids + [-1] * (top_k - len(ids))


def log_sum_exp(logits):
    if not logits:
        return -INFINITY
    largest = max(logits)
    if largest == -INFINITY:
        return -INFINITY
    return largest + math.log(math.fsum(math.exp(x - largest) for x in logits))


def tokens_of(ids, position, block_size):
    """S: the visible tokens of the listed blocks, up to the first -1; each token once."""
    chosen = set()
    for block in ids:
        if block == -1:
            break
        chosen.add(int(block))
    return [j for j in range(position + 1) if j // block_size in chosen]


def index(request, block_size, top_k, scale=None, lse_over=None):
    """ids [Hkv, n, K], a list of scores for each row [Hkv][n], lse_idx [Hkv, n], L [Hkv, n]."""
    q, k = request["q_idx"], request["k_idx"]
    num_rows, num_groups, dim = q.shape
    scale = scale_of(dim) if scale is None else scale
    ids = np.full((num_groups, num_rows, top_k), -1, np.int32)
    lse = np.full((num_groups, num_rows), -INFINITY)
    factor = np.ones((num_groups, num_rows))
    scores = [[[] for _ in range(num_rows)] for _ in range(num_groups)]
    for g in range(num_groups):
        for t in range(num_rows):
            position = len(k) - num_rows + t
            if position < 0:
                continue
            scores[g][t] = block_scores(q[t, g], k, position, block_size, scale)
            ids[g, t] = select(scores[g][t], top_k)
            if lse_over is None:
                continue
            tokens = range(position + 1)
            if lse_over == "selected":
                tokens = tokens_of(ids[g, t], position, block_size)
            logits = [scale * x for x in dots(q[t, g], [k[j] for j in tokens])]
            lse[g, t] = log_sum_exp(logits)
            factor[g, t] = max(1.0, max(abs(x) for x in logits) / 100)
    return ids, scores, lse, factor


def row_tokens(request, ids, t, g, block_size):
    """S(i, g) of row t: by ids [Hkv, n, K], or all visible tokens when ids is None."""
    num_rows, num_keys = len(request["q"]), len(request["k"])
    position = num_keys - num_rows + t
    if ids is None:
        return list(range(position + 1))
    return tokens_of(ids[g, t], position, block_size)


def attention(request, ids, block_size, scale=None):
    """out [n, Hq, D], lse [n, Hq], and L [n, Hq] = max(1, largest abs logit of the row / 100)."""
    q, k, v = request["q"], request["k"], request["v"]
    num_rows, num_heads, dim = q.shape
    group = num_heads // k.shape[1]
    scale = scale_of(dim) if scale is None else scale
    out = np.zeros((num_rows, num_heads, dim))
    lse = np.full((num_rows, num_heads), -INFINITY)
    factor = np.ones((num_rows, num_heads))
    for t in range(num_rows):
        for h in range(num_heads):
            g = h // group
            tokens = row_tokens(request, ids, t, g, block_size)
            if not tokens:
                continue
            logits = [scale * x for x in dots(q[t, h], [k[j, g] for j in tokens])]
            lse[t, h] = log_sum_exp(logits)
            largest = max(logits)
            weights = [math.exp(x - largest) for x in logits]
            total = math.fsum(weights)
            for weight, j in zip(weights, tokens, strict=True):
                out[t, h] += weight / total * v[j, g]
            factor[t, h] = max(1.0, max(abs(x) for x in logits) / 100)
    return out, lse, factor


def merge(parts):
    """One state from partial (out [n, Hq, D], lse [n, Hq]) over disjoint sets of tokens."""
    out = np.zeros_like(parts[0][0])
    lse = np.full(parts[0][1].shape, -INFINITY)
    for t in range(out.shape[0]):
        for h in range(out.shape[1]):
            lse[t, h] = log_sum_exp([part_lse[t, h] for _, part_lse in parts])
            for part_out, part_lse in parts:
                if part_lse[t, h] != -INFINITY:  # an empty part's out is not even multiplied
                    out[t, h] += math.exp(part_lse[t, h] - lse[t, h]) * part_out[t, h]
    return out, lse


def attention_gradients(request, ids, block_size, out, lse, dout, dlse=None, scale=None):
    """dq, dk, dv for given out and lse, as P * (dout . v - D_row + dlse)."""
    q, k, v = request["q"], request["k"], request["v"]
    num_rows, num_heads, dim = q.shape
    group = num_heads // k.shape[1]
    scale = scale_of(dim) if scale is None else scale
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for t in range(num_rows):
        for h in range(num_heads):
            g = h // group
            row = float(np.sum(dout[t, h] * out[t, h])) - (0.0 if dlse is None else dlse[t, h])
            for j in row_tokens(request, ids, t, g, block_size):
                weight = math.exp(scale * float(np.sum(q[t, h] * k[j, g])) - lse[t, h])
                ds = weight * (float(np.sum(dout[t, h] * v[j, g])) - row)
                dq[t, h] += scale * ds * k[j, g]
                dk[j, g] += scale * ds * q[t, h]
                dv[j, g] += weight * dout[t, h]
    return dq, dk, dv


def kl(request, ids, block_size, lse, lse_idx, coefficient, normaliser, scale=None, scale_i=None):
    """The loss and dq_idx, dk_idx; normaliser stands for Hkv * T."""
    q, k, q_idx, k_idx = request["q"], request["k"], request["q_idx"], request["k_idx"]
    num_rows, num_heads, dim = q.shape
    num_groups = k.shape[1]
    group = num_heads // num_groups
    scale = scale_of(dim) if scale is None else scale
    scale_i = scale_of(q_idx.shape[2]) if scale_i is None else scale_i
    terms = []
    dq, dk = np.zeros_like(q_idx), np.zeros_like(k_idx)
    factor = scale_i * coefficient / normaliser
    for t in range(num_rows):
        for g in range(num_groups):
            heads = range(g * group, (g + 1) * group)
            for j in row_tokens(request, ids, t, g, block_size):
                p = math.fsum(
                    math.exp(scale * float(np.sum(q[t, h] * k[j, g])) - lse[t, h]) for h in heads
                )
                p /= group
                log_r = scale_i * float(np.sum(q_idx[t, g] * k_idx[j])) - lse_idx[g, t]
                if p > 0:
                    terms.append(p * (math.log(p) - log_r))
                difference = math.exp(log_r) - p
                dq[t, g] += factor * difference * k_idx[j]
                dk[j] += factor * difference * q_idx[t, g]
    return coefficient / normaliser * math.fsum(terms), dq, dk


def recalls(request, ids, block_size, top_k, scale=None):
    """Means over rows with more than K visible blocks: block recall, score recall, and the same
    without the local block."""
    q, k = request["q"], request["k"]
    num_rows, num_heads, dim = q.shape
    group = num_heads // k.shape[1]
    scale = scale_of(dim) if scale is None else scale
    rows = []
    for t in range(num_rows):
        position = len(k) - num_rows + t
        local = position // block_size
        if local + 1 <= top_k:
            continue
        for g in range(k.shape[1]):
            mass = [0.0] * (local + 1)
            for h in range(g * group, (g + 1) * group):
                logits = [scale * x for x in dots(q[t, h], k[: position + 1, g])]
                total = log_sum_exp(logits)
                for j, logit in enumerate(logits):
                    mass[j // block_size] += math.exp(logit - total) / group
            best = sorted(range(local + 1), key=lambda b: (-mass[b], b))[:top_k]
            chosen = {int(b) for b in ids[g, t] if b >= 0}
            rows.append(_row_recalls(mass, set(best), chosen, local, top_k))
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def _row_recalls(mass, best, chosen, local, top_k):
    both = best & chosen
    block = len(both) / top_k
    score = sum(mass[b] for b in both) / sum(mass[b] for b in best)
    best, both = best - {local}, both - {local}
    inner_block = len(both) / len(best) if best else 1.0
    inner_score = sum(mass[b] for b in both) / sum(mass[b] for b in best) if best else 1.0
    return block, score, inner_block, inner_score
