"""A start that already contains the circuit of recall, for runs with few tokens.

Random weights need tens of millions of tokens before attention finds "what followed this key". Here the first
layers start as the textbook circuit, and training does the rest:

  the hidden dimensions are split: 0 holds a constant, so that a head can look at a place and not at a content; then
  come the token itself, the words around it (the bag), and the token before it, each a space of its own;
  layer 0, group 0: four heads look 1 to 4 tokens back; group 1: four heads look over a window around 3 to 6 back;
  layers 1 and 2: group 0 is induction (the token before j is the current token), group 1 finds places among the
  same words, group 2 sums both; their values carry the token to lm_head, which reads the space of tokens;
  tokens of the phrasings themselves ("the", "is", "?") are quieter than those of keys and values;
  the index branch starts with the key projection of group 0 and the mean query of every group.

The numbers were found by a search over forward passes: untrained, the start answers a tenth to a third of the
questions that repeat a fact up to its value.
"""

import torch


def orthonormal(rows, columns, generator):
    matrix = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q = torch.linalg.qr(matrix).Q
    return q if rows >= columns else q.T


def place_heads(attention, group, offsets, energy, config):
    """Heads of one group that look `offset` tokens back: constant queries and keys, turned by the rotary angles."""
    d, half = config.head_dim, config.rotary_dim // 2
    angle = 1.0 / config.rope_theta ** (torch.arange(half, dtype=torch.float) / half)
    radius = torch.zeros(half)
    radius[: len(energy)] = torch.tensor(energy).sqrt()
    rows = slice(group * d, (group + 1) * d)
    attention.k_proj.weight[rows] = 0
    attention.k_proj.weight[rows.start : rows.start + half, 0] = radius
    for n, offset in enumerate(offsets):
        start = (group * config.group + n) * d
        attention.q_proj.weight[start : start + d] = 0
        attention.q_proj.weight[start : start + half, 0] = radius * (offset * angle).cos()
        attention.q_proj.weight[start + half : start + 2 * half, 0] = (
            -radius * (offset * angle).sin()
        )


def content_heads(attention, group, query, key, noise, generator, config):
    """Heads of one group that compare query(x_i) with key(x_j), both [D, hidden]; the heads differ by noise."""
    d = config.head_dim
    attention.k_proj.weight[group * d : (group + 1) * d] = key
    for n in range(config.group):
        start = (group * config.group + n) * d
        random = torch.randn(query.shape, generator=generator) * query.std()
        attention.q_proj.weight[start : start + d] = query + noise * random


def carry(attention, group, value, outputs, config):
    """v = value(x); head n writes outputs[n] [hidden, D]."""
    d = config.head_dim
    attention.v_proj.weight[group * d : (group + 1) * d] = value
    for n, output in enumerate(outputs):
        start = (group * config.group + n) * d
        attention.o_proj.weight[:, start : start + d] = output


QUIET = 0.2
CONSTANT = 0.3
TURNED_DIMS = 3  # of the rotary pairs: the fastest would blur comparisons of content


def space(hidden, low, size, width, generator):
    """[hidden, width]: writes `width` dimensions into hidden dimensions low ... low + size - 1."""
    matrix = torch.zeros(hidden, width)
    scale = 1.0 if size >= width else (width / size) ** 0.5
    matrix[low : low + size] = scale * orthonormal(size, width, generator)
    return matrix


@torch.no_grad()
def structured_start(model, seed, quiet_tokens=()):
    c = model.config
    d, hidden, half = c.head_dim, c.hidden_size, c.rotary_dim // 2
    if (
        c.num_hidden_layers < 3
        or c.group != 4
        or c.num_key_value_heads < 3
        or half < 12
        or hidden < 2 * d
    ):
        raise ValueError(
            f"[structure] model: got {c.num_hidden_layers} layers, {c.num_key_value_heads} groups of {c.group} heads "
            f"of {d}, hidden {hidden}, allowed at least 3 layers, 3 groups of 4 heads of 48, hidden of 2 heads"
        )
    generator = torch.Generator().manual_seed(seed + 1)
    tokens = hidden // 2
    around = (hidden - tokens) // 2
    embedding = model.model.embed_tokens.weight
    embedding.zero_()
    embedding[:, 1:tokens] = torch.randn(len(embedding), tokens - 1, generator=generator)
    embedding *= (hidden / (tokens - 1)) ** 0.5
    embedding[list(quiet_tokens)] *= QUIET
    model.lm_head.weight.copy_(torch.nn.functional.normalize(embedding, dim=1))
    model.lm_head.weight[:4] *= 0.1
    embedding[:, 0] = CONSTANT * hidden**0.5

    view = torch.zeros(d, hidden)
    view[:, 1:tokens] = orthonormal(d, tokens - 1, generator)
    bag = space(hidden, tokens, around, d, generator)
    before = space(hidden, tokens + around, hidden - tokens - around, d, generator)
    first = model.model.layers[0].self_attn
    first.o_proj.weight *= 0.1
    place_heads(first, 0, (1, 2, 3, 4), (0.45, 0.30, 0.15, 0.10), c)
    sharp = [bag @ orthonormal(d, d, generator) for _ in range(3)]
    carry(first, 0, view, [2.0 * before, *sharp], c)
    place_heads(first, 1, (3, 4, 5, 6), (0.0, 0.1, 0.4, 0.3, 0.2), c)
    carry(first, 1, view, [0.5 * bag] * 4, c)
    for norm in (first.q_norm, first.k_norm):
        norm.weight.fill_(0.5)

    content = torch.ones(d, 1)
    content[:TURNED_DIMS] = 0
    content[half : half + TURNED_DIMS] = 0
    for number, gain in ((1, 1.0), (2, 2.0)):
        attention = model.model.layers[number].self_attn
        attention.o_proj.weight *= 0.1
        for norm in (attention.q_norm, attention.k_norm):
            norm.weight.fill_(0.8)
        for group in range(3):
            turn = orthonormal(d, d, generator) * content
            query, key = ((view, before.T), (bag.T, bag.T), (view + bag.T, before.T + bag.T))[group]
            query, key = turn @ query, turn @ key
            query[4:12, 0] -= 0.3  # slow rotary pairs: what is near counts less
            key[4:12, 0] += 0.3
            content_heads(attention, group, query, key, 0.05, generator, c)
            value = torch.zeros(d, hidden)
            value[:, 1:tokens] = orthonormal(d, tokens - 1, generator)
            carry(attention, group, value, [gain * (0.3 if group == 0 else 1.0) * value.T] * 4, c)
    for layer in model.model.layers:
        index, attention = layer.self_attn.indexer, layer.self_attn
        if c.index_head_dim == d:
            index.k_proj.weight.copy_(attention.k_proj.weight[:d])
            grouped = attention.q_proj.weight.view(c.num_key_value_heads, c.group, d, hidden)
            index.q_proj.weight.copy_(grouped.mean(1).reshape(-1, hidden))
