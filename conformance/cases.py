"""Cases of the forward ops: requests in, laid out as an op takes them, with the exact results.

A request is a dict of float64 arrays whose numbers the storage type holds exactly (rounded()).
Cases differ in the layout alone: packed rows, or pages in any order, in one of three orders of
axes, with NaN wherever no token lies and nonsense in the unused entries of the page table.
"""

import dataclasses

import numpy as np

from conformance import brute
from conformance.storage import Random, Stored

LOW = ("bfloat16", "float16")
UNUSED_ENTRIES = [-1, 1 << 30, -(1 << 31), 7]  # of a page table, past a request's pages


def rounded(values, dtype):
    return Stored(values, dtype).values


def small_integers(random, shape, most=3):
    return random.integers(-most, most, shape).astype(np.float64)


@dataclasses.dataclass
class View:
    """Part of a stored tensor, as strides in elements."""

    base: Stored
    shape: list
    strides: list
    offset: int = 0


@dataclasses.dataclass
class Pages:
    """How keys lie in pages: order is "nhd" [page, token, head], "hnd" or "one" (K beside V)."""

    seed: int = 1
    order: str = "nhd"
    spare: int = 2
    shared: int = 0  # leading blocks of every request that lie in request 0's pages
    size: int = 0  # the dense op's page size; otherwise B


@dataclasses.dataclass
class Shape:
    kv_heads: int = 2
    group: int = 2
    dim: int = 64
    index_dim: int = 64
    block_size: int = 64
    top_k: int = 4


def make_request(seed, num_rows, num_keys, shape, dtype, integers=False, magnitude=1.0, index=True):
    """A request of random numbers; with integers every index dot is exact in float32."""
    random = Random(seed)
    heads = shape.kv_heads * shape.group
    sizes = {
        "q": (num_rows, heads, shape.dim),
        "k": (num_keys, shape.kv_heads, shape.dim),
        "v": (num_keys, shape.kv_heads, shape.dim),
        "q_idx": (num_rows, shape.kv_heads, shape.index_dim),
        "k_idx": (num_keys, shape.index_dim),
    }
    names = ("q_idx", "k_idx") if index else ("q", "k", "v")
    request = {}
    for name in names:
        if integers:
            values = small_integers(random, sizes[name])
        else:
            values = random.normal(sizes[name]) * (1.0 if name == "v" else magnitude)
        request[name] = rounded(values, dtype)
    return request


def offsets(lengths):
    return Stored(np.concatenate([[0], np.cumsum(lengths)]), "int32")


def page_table(lengths, size, pages):
    """The table and the number of physical pages."""
    used = [-(-length // size) for length in lengths]
    own = [max(0, count - pages.shared) if r > 0 else count for r, count in enumerate(used)]
    order = Random(pages.seed).permutation(sum(own) + pages.spare).tolist()
    width = max([*used, 1]) + 2
    table = np.zeros((len(lengths), width), np.int64)
    for r, count in enumerate(used):
        shared = min(count, pages.shared) if r > 0 else 0
        mine = [int(x) for x in table[0, :shared]] + [order.pop() for _ in range(count - shared)]
        rest = [UNUSED_ENTRIES[(r + n) % len(UNUSED_ENTRIES)] for n in range(width - count)]
        table[r] = mine + rest
    return table, sum(own) + pages.spare


def paged_array(requests, name, table, num_pages, size):
    """[num_pages, size, ...] with NaN where no token lies."""
    array = np.full((num_pages, size, *requests[0][name].shape[1:]), np.nan)
    for r, request in enumerate(requests):
        for j, row in enumerate(request[name]):
            array[table[r, j // size], j % size] = row
    return array


def lay_out_keys(arrays, dtype, order):
    """Stored tensors or views of [pages, tokens, heads, dim] arrays, by order of axes."""
    if order == "nhd":
        return {name: Stored(array, dtype) for name, array in arrays.items()}
    some = next(iter(arrays.values()))
    _, tokens, heads, dim = some.shape
    if order == "hnd":
        strides = [heads * tokens * dim, dim, tokens * dim, 1]
        return {
            name: View(Stored(array.swapaxes(1, 2), dtype), list(some.shape), strides)
            for name, array in arrays.items()
        }
    both = Stored(np.stack([arrays["k"], arrays["v"]], axis=1), dtype)  # [pages, 2, ...]
    half = tokens * heads * dim
    strides = [2 * half, heads * dim, dim, 1]
    return {
        "k": View(both, list(some.shape), strides),
        "v": View(both, list(some.shape), strides, half),
    }


def lay_out(requests, queries, keys, dtype, size, pages=None, padded_rows=0):
    """The inputs of an op: queries packed, then NaN rows of padding; keys packed or in pages."""
    inputs = {}
    for name in queries:
        rows = np.concatenate([request[name] for request in requests])
        padding = np.full((padded_rows, *rows.shape[1:]), np.nan)
        inputs[name] = Stored(np.concatenate([rows, padding]), dtype)
    lengths = [len(request[keys[0]]) for request in requests]
    inputs["cu_seqlens_q"] = offsets([len(request[queries[0]]) for request in requests])
    if pages is None:
        for name in keys:
            inputs[name] = Stored(np.concatenate([request[name] for request in requests]), dtype)
        inputs["cu_seqlens_k"] = offsets(lengths)
        return inputs
    size = pages.size or size
    table, num_pages = page_table(lengths, size, pages)
    arrays = {name: paged_array(requests, name, table, num_pages, size) for name in keys}
    inputs.update(lay_out_keys(arrays, dtype, pages.order))
    inputs["page_table"] = Stored(table, "int32")
    inputs["kv_lens"] = Stored(lengths, "int32")
    return inputs


def joined(parts, axis, padded_rows, fill):
    """Rows of all requests, then the empty ones."""
    whole = np.concatenate(parts, axis=axis)
    padding = np.full([padded_rows if n == axis else x for n, x in enumerate(whole.shape)], fill)
    return np.concatenate([whole, padding.astype(whole.dtype)], axis=axis)


def closeness(dtype, quantity):
    """The tolerances of docs/maths.md, as numbers."""
    low = dtype in LOW
    if quantity == "lse":
        if low:
            return {"how": "close", "absolute": 2e-3}
        return {"how": "close", "absolute": 1e-5, "relative": 1e-5, "combine": "max"}
    if quantity == "out":
        if low:
            return {"how": "close", "absolute": 2e-2, "relative": 1e-2, "frobenius": 5e-3}
        return {"how": "close", "absolute": 1e-5, "relative": 1e-5}
    if quantity == "gradient":
        return {"how": "close", "frobenius": 1e-2 if low else 1e-4}
    raise ValueError(quantity)


def index_case(name, requests, shape, dtype="bfloat16", *, pages=None, padded_rows=0, scale=None,
               id_layout="head_major", scores="equal", lse=None, ids="equal"):  # fmt: skip
    """scores: equal, tolerance or None; lse: selected, visible or None; ids: equal or selection."""
    inputs = lay_out(requests, ["q_idx"], ["k_idx"], dtype, shape.block_size, pages, padded_rows)
    arguments = {"block_size": shape.block_size, "top_k": shape.top_k, "id_layout": id_layout}
    if scale is not None:
        arguments["scale"] = float(np.float32(scale))
        scale = arguments["scale"]
    results = [
        brute.index(request, shape.block_size, shape.top_k, scale, lse) for request in requests
    ]
    all_ids = joined([result[0] for result in results], 1, padded_rows, -1)
    groups, rows = all_ids.shape[:2]
    most = max([-(-len(request["k_idx"]) // shape.block_size) for request in requests] + [0]) + 1
    table = np.full((groups, rows, most), -np.inf)
    tolerance = np.zeros((groups, rows))
    scale_used = brute.scale_of(shape.index_dim) if scale is None else scale
    row = 0
    for request, (_, row_scores, *_) in zip(requests, results, strict=True):
        norms = [float(np.sqrt(np.sum(key * key))) for key in request["k_idx"]]
        for t in range(len(request["q_idx"])):
            for g in range(groups):
                table[g, row, : len(row_scores[g][t])] = row_scores[g][t]
                if scores == "tolerance" and norms:
                    norm = float(np.sqrt(np.sum(request["q_idx"][t, g] ** 2)))
                    tolerance[g, row] = 1e-5 * scale_used * norm * max(norms)
            row += 1
    expect = {}
    token_major = id_layout == "token_major"
    stored_ids = Stored(all_ids.swapaxes(0, 1) if token_major else all_ids, "int32")
    expect["block_ids"] = {"tensor": stored_ids, "how": ids}
    if scores == "equal":
        expect["block_scores"] = {"tensor": Stored(table, "float32"), "how": "equal"}
    elif scores == "tolerance":
        expect["block_scores"] = {
            "tensor": Stored(table, "float32"),
            "how": "close",
            "absolute": 1.0,
            "factor": Stored(tolerance, "float64"),
        }
        if ids == "equal":
            require_clear_cuts(name, table, all_ids, tolerance)
    if lse is not None:
        arguments["lse_scope"] = lse
        values = joined([result[2] for result in results], 1, padded_rows, -np.inf)
        expect["lse_idx"] = {"tensor": Stored(values, "float64"), **closeness(dtype, "lse")}
        factor = joined([result[3] for result in results], 1, padded_rows, 1.0)
        if factor.max() > 1:
            expect["lse_idx"]["factor"] = Stored(factor, "float64")
    return {"name": name, "arguments": arguments, "inputs": inputs, "expect": expect}


def require_clear_cuts(name, table, ids, tolerance):
    """The exact selection is demanded only where no block lies near the cut."""
    for g in range(table.shape[0]):
        for t in range(table.shape[1]):
            chosen = [b for b in ids[g, t] if b >= 0]
            visible = [b for b in range(table.shape[2]) if table[g, t, b] > -np.inf]
            rest = [table[g, t, b] for b in visible if b not in chosen]
            cut = min([table[g, t, b] for b in chosen[:-1]], default=np.inf)
            if rest and cut - max(rest) <= 4 * tolerance[g, t]:
                raise ValueError(f"{name}: blocks as good as tied at row {t}: use another seed")


def attention_case(name, requests, shape, dtype="bfloat16", *, ids=None, pages=None,
                   padded_rows=0, scale=None, id_layout="head_major", lse=True):  # fmt: skip
    """ids: a list of [Hkv, n, K'] arrays, one for each request; None for the dense op."""
    inputs = lay_out(requests, ["q"], ["k", "v"], dtype, shape.block_size, pages, padded_rows)
    arguments = {}
    if scale is not None:
        arguments["scale"] = scale = float(np.float32(scale))
    if ids is not None:
        arguments.update(block_size=shape.block_size, id_layout=id_layout)
        whole = joined([np.asarray(part) for part in ids], 1, padded_rows, 0)
        token_major = id_layout == "token_major"
        inputs["block_ids"] = Stored(whole.swapaxes(0, 1) if token_major else whole, "int32")
    results = [
        brute.attention(request, None if ids is None else ids[r], shape.block_size, scale)
        for r, request in enumerate(requests)
    ]
    out = joined([result[0] for result in results], 0, padded_rows, 0.0)
    logs = joined([result[1] for result in results], 0, padded_rows, -np.inf)
    factor = joined([result[2] for result in results], 0, padded_rows, 1.0)
    expect = {"out": {"tensor": Stored(out, "float32"), **closeness(dtype, "out")}}
    if lse:
        expect["lse"] = {"tensor": Stored(logs, "float64"), **closeness(dtype, "lse")}
    if factor.max() > 1:
        for entry in expect.values():
            entry["factor"] = Stored(factor, "float64")
    return {"name": name, "arguments": arguments, "inputs": inputs, "expect": expect}


def random_ids(seed, num_rows, num_keys, shape, width=None, local=True):
    """[Hkv, n, width]: for each row about half of the visible blocks, ascending, then -1."""
    random = Random(seed)
    width = shape.top_k if width is None else width
    ids = np.full((shape.kv_heads, num_rows, width), -1, np.int32)
    for t in range(num_rows):
        position = num_keys - num_rows + t
        if position < 0:
            continue
        last = position // shape.block_size
        for g in range(shape.kv_heads):
            count = min(width - 1, (last + 1) // 2)
            others = random.permutation(last)[:count].tolist() if last > 0 else []
            row = sorted([*others, last]) if local else sorted(others)
            ids[g, t, : len(row)] = row
    return ids


def refused(name, case, **arguments):
    """The same case with other arguments (None takes one out), which an op has to refuse."""
    changed = {**case["arguments"], **arguments}
    changed = {key: value for key, value in changed.items() if value is not None}
    return {"name": name, "arguments": changed, "inputs": case["inputs"], "refused": True}
