"""A start that already contains the circuit of recall, for runs with few tokens.

Random weights need tens of millions of tokens before attention finds "what followed this key". Here the first layers
start as the textbook circuit, in random orthonormal subspaces, and training does the rest:

  every embedding shares a constant in dimension 0, so that a head can look at a place and not at a content;
  layer 0, group 0: four heads look 1, 2, 3 and 4 tokens back; group 1: four heads look over wider windows;
  layer 1, group 0: induction (the token before j is the current token); groups 1, 2: j stands among the same words;
  layer 2, group 0: the same as layer 1, group 1;
  the values of these groups carry the token itself to lm_head, which starts equal to the embedding;
  the index branch starts with the key projections of group 0 and the mean query of every group.
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


@torch.no_grad()
def structured_start(model, seed):
    c = model.config
    d, hidden = c.head_dim, c.hidden_size
    if (
        c.num_hidden_layers < 3
        or c.group < 4
        or c.num_key_value_heads < 3
        or c.rotary_dim < 10
        or 3 * d > hidden
    ):
        raise ValueError(
            f"[structure] model: got {c.num_hidden_layers} layers, {c.num_key_value_heads} groups of {c.group}"
            f" heads of {d}, hidden {hidden}, allowed at least 3 layers, 3 groups of 4 heads, 3 heads in hidden"
        )
    generator = torch.Generator().manual_seed(seed + 1)
    embedding = model.model.embed_tokens.weight
    embedding.copy_(torch.randn(embedding.shape, generator=generator))
    embedding[:, 0] = 0.35 * hidden**0.5
    model.lm_head.weight.copy_(embedding * 0.06)
    model.lm_head.weight[:, 0] = 0

    first, second, third = (model.model.layers[n].self_attn for n in range(3))
    sharp = (0.45, 0.30, 0.15, 0.10)
    wide = (0.0, 0.1, 0.4, 0.3, 0.2)
    view = orthonormal(d, hidden, generator)
    view[:, 0] = 0
    distinct = [orthonormal(hidden, d, generator) for _ in range(4)]
    bag = orthonormal(hidden, d, generator)
    for matrix in distinct + [bag]:
        matrix[0] = 0
    place_heads(first, 0, (1, 2, 3, 4), sharp, c)
    carry(first, 0, view, [2.0 * m for m in distinct], c)
    place_heads(first, 1, (2, 4, 7, 11), wide, c)
    carry(first, 1, view, [2.0 * bag for _ in range(4)], c)
    for norm in (first.q_norm, first.k_norm, second.q_norm, second.k_norm):
        norm.weight.fill_(0.5)

    basis = orthonormal(3 * d, hidden, generator)
    for layer, plan in (
        (second, (("induction", 0), ("bag", 1), ("bag", 2))),
        (third, (("bag", 0),)),
    ):
        for kind, group in plan:
            turn = orthonormal(d, d, generator)
            if kind == "induction":
                query, key = turn @ view, turn @ distinct[0].T
            else:
                query = key = turn @ (bag + 0.3 * sum(distinct)).T
            content_heads(layer, group, query, key, 0.3, generator, c)
            value = basis[group * d : (group + 1) * d].clone()
            value[:, 0] = 0
            carry(layer, group, value, [0.5 * value.T] * 4, c)
    for layer in model.model.layers:
        index, attention = layer.self_attn.indexer, layer.self_attn
        if c.index_head_dim == d:
            index.k_proj.weight.copy_(attention.k_proj.weight[:d])
            grouped = attention.q_proj.weight.view(c.num_key_value_heads, c.group, d, hidden)
            index.q_proj.weight.copy_(grouped.mean(1).reshape(-1, hidden))
