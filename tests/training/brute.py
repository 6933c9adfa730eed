"""MSA by plain loops in Python floats (float64), written from the text of the contract and sharing no code with it."""

import math


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def scores(q_idx, k_idx, i, block):
    """Block scores of one query at position i: block id -> maximum over its visible tokens."""
    result = {}
    for j in range(i + 1):
        s = dot(q_idx, k_idx[j]) / math.sqrt(len(q_idx))
        result[j // block] = max(result.get(j // block, -math.inf), s)
    return result


def select(block_scores, i, block, top_k):
    local = i // block
    others = sorted((b for b in block_scores if b != local), key=lambda b: (-block_scores[b], b))
    return sorted([local] + others[: top_k - 1])


def attend(q, k, v, tokens):
    logits = [dot(q, k[j]) / math.sqrt(len(q)) for j in tokens]
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    total = sum(weights)
    weights = [w / total for w in weights]
    return [sum(w * v[j][d] for w, j in zip(weights, tokens)) for d in range(len(v[0]))], weights


def kl(q_heads, k, q_idx, k_idx, tokens):
    """KL of one query and group: the mean of its heads' attention against the index branch, over the tokens."""
    p = [0.0] * len(tokens)
    for q in q_heads:
        for n, weight in enumerate(attend(q, k, k, tokens)[1]):
            p[n] += weight / len(q_heads)
    s = [dot(q_idx, k_idx[j]) / math.sqrt(len(q_idx)) for j in tokens]
    top = max(s)
    lse = top + math.log(sum(math.exp(x - top) for x in s))
    return sum(a * (math.log(a) - (b - lse)) for a, b in zip(p, s) if a > 0)
