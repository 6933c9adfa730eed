"""Rules of what surrounds attention in serving: writing into pages, merging partial results, and
the index branch over a part of the blocks."""

import math

import numpy as np

from conformance import brute
from conformance.cases import (
    Pages,
    Shape,
    closeness,
    joined,
    lay_out,
    make_request,
    page_table,
    paged_array,
    rounded,
    small_integers,
)
from conformance.rules_index import integer_request
from conformance.storage import Random, Stored

TWO = Shape(kv_heads=2, group=2)
CACHES = ("k", "v", "k_idx")


PAGED = Shape(kv_heads=2, block_size=16)


def append_case(name, lengths, dtype, seed=1, padded_rows=0):
    """lengths: (new tokens, length with them). The caches hold NaN where no token lies."""
    requests = []
    for n, (_, total) in enumerate(lengths):
        request = make_request(seed + n, 0, total, PAGED, dtype, index=False)
        request.update(make_request(seed + 50 + n, 0, total, PAGED, dtype))
        requests.append(request)
    size = PAGED.block_size
    totals = [total for _, total in lengths]
    table, num_pages = page_table(totals, size, Pages(seed))
    inputs = {
        "cu_seqlens_q": Stored(np.cumsum([0, *[new for new, _ in lengths]]), "int32"),
        "page_table": Stored(table, "int32"),
        "kv_lens": Stored(totals, "int32"),
    }
    expect = {}
    for key in CACHES:
        after = paged_array(requests, key, table, num_pages, size)
        before = after.copy()
        rows = []
        for r, (new, total) in enumerate(lengths):
            for t in range(new):
                position = total - new + t
                if position < 0:
                    rows.append(np.full(after.shape[2:], 5.0))  # a row that stands nowhere
                    continue
                rows.append(requests[r][key][position])
                before[table[r, position // size], position % size] = np.nan
        rows += [np.full(after.shape[2:], 7.0)] * padded_rows
        inputs[key] = Stored(np.stack(rows), dtype)
        inputs[f"cache_{key}"] = Stored(before, dtype)
        expect[f"cache_{key}"] = {"tensor": Stored(after, dtype), "how": "equal"}
    return {"name": name, "arguments": {}, "inputs": inputs, "expect": expect}


def copy_case(dtype):
    random = Random(5)
    inputs = {"pages": Stored([[0, 4], [2, 1], [0, 3]], "int32")}
    expect = {}
    for key, inner in (("k", (2, 64)), ("v", (2, 64)), ("k_idx", (64,))):
        cache = random.normal((5, 8, *inner))
        after = cache.copy()
        for source, target in ((0, 4), (2, 1), (0, 3)):
            after[target] = cache[source]
        inputs[f"cache_{key}"] = Stored(cache, dtype)
        expect[f"cache_{key}"] = {"tensor": Stored(after, dtype), "how": "equal"}
    return {"name": dtype, "arguments": {}, "inputs": inputs, "expect": expect}


def merge_case(name, parts, dtype="float32"):
    """parts: two (out, lse). Results of float32 parts are exact to 1e-5."""
    parts = [(rounded(out, dtype), rounded(lse, "float32")) for out, lse in parts]
    out, lse = brute.merge(parts)
    inputs = {}
    for letter, (part_out, part_lse) in zip("ab", parts, strict=True):
        inputs[f"out_{letter}"] = Stored(part_out, dtype)
        inputs[f"lse_{letter}"] = Stored(part_lse, "float32")
    expect = {"out": {"tensor": Stored(out, "float32"), **closeness(dtype, "out")},
              "lse": {"tensor": Stored(lse, "float64"), **closeness("float32", "lse")}}  # fmt: skip
    return {"name": name, "arguments": {}, "inputs": inputs, "expect": expect}


def split_parts(seed, dtype, magnitude=1.0):
    """Attention over blocks 0 to 1, and over the rest: merged it is attention over all."""
    request = make_request(seed, 12, 230, TWO, dtype, magnitude=magnitude, index=False)
    left = np.full((2, 12, 4), -1, np.int32)
    left[:, :, :2] = [0, 1]
    right = np.full((2, 12, 4), -1, np.int32)
    right[:, :, :2] = [2, 3]
    parts = []
    for ids in (left, right):
        out, lse, _ = brute.attention(request, ids, 64)
        parts.append((Stored(out, dtype).values, Stored(lse, "float32").values))
    return parts


def emptied(part):
    """The part that saw nothing; its out is not read, so it may hold NaN."""
    return np.full_like(part[0], np.nan), np.full_like(part[1], -np.inf)


def candidates_of(request, shape, begin, end):
    """[Hkv, n, K] ids and scores: the local block first with +inf, then the best of the part."""
    q, k = request["q_idx"], request["k_idx"]
    ids = np.full((q.shape[1], len(q), shape.top_k), -1, np.int32)
    values = np.full(ids.shape, -np.inf)
    for g in range(q.shape[1]):
        for t in range(len(q)):
            position = len(k) - len(q) + t
            if position < 0:
                continue
            local = position // shape.block_size
            scores = brute.block_scores(q[t, g], k, position, shape.block_size,
                                        brute.scale_of(q.shape[2]))  # fmt: skip
            if begin <= local < end:
                ids[g, t, 0], values[g, t, 0] = local, np.inf
            best = sorted(range(begin, min(end, local)), key=lambda b: (-scores[b], b))
            for place, block in enumerate(best[: shape.top_k - 1], 1):
                ids[g, t, place], values[g, t, place] = block, scores[block]
    return ids, values


def candidates_case(name, requests, shape, begin, end, pages=None):
    inputs = lay_out(requests, ["q_idx"], ["k_idx"], "bfloat16", shape.block_size, pages)
    results = [candidates_of(request, shape, begin, end) for request in requests]
    arguments = {"block_size": shape.block_size, "top_k": shape.top_k, "begin": begin, "end": end}
    expect = {}
    for n, (key, dtype) in enumerate((("candidate_ids", "int32"),
                                      ("candidate_scores", "float32"))):  # fmt: skip
        whole = joined([result[n] for result in results], 1, 0, -1)
        expect[key] = {"tensor": Stored(whole, dtype), "how": "equal"}
    return {"name": name, "arguments": arguments, "inputs": inputs, "expect": expect}


def merge_candidates_case(name, request, shape, cuts, id_layout="head_major"):
    """Parts of the blocks between the cuts, in the order given, merged."""
    parts = [candidates_of(request, shape, begin, end) for begin, end in cuts]
    whole = candidates_of(request, shape, 0, 1 << 30)
    ids = brute.index(request, shape.block_size, shape.top_k)[0]
    if id_layout == "token_major":
        ids = ids.swapaxes(0, 1)
    inputs = {"candidate_ids": Stored(np.stack([part[0] for part in parts]), "int32"),
              "candidate_scores": Stored(np.stack([part[1] for part in parts]), "float32")}  # fmt: skip
    expect = {"merged_ids": {"tensor": Stored(whole[0], "int32"), "how": "equal"},
              "merged_scores": {"tensor": Stored(whole[1], "float32"), "how": "equal"},
              "block_ids": {"tensor": Stored(ids, "int32"), "how": "equal"}}  # fmt: skip
    return {"name": name, "arguments": {"id_layout": id_layout}, "inputs": inputs,
            "expect": expect}  # fmt: skip


def select_case(name, scores, top_k, local=None, id_layout="head_major"):
    """Ids over scores [Hkv, T, blocks]; with `local` [T] the rule of index_forward."""
    scores = Stored(np.asarray(scores, dtype=np.float64), "float32")
    lists = []
    for head in scores.values:
        lists.append([])
        for t, row in enumerate(head):
            # brute.select takes the last block always: it is put behind the candidates.
            own = [-brute.INFINITY if math.isnan(x) else float(x) for x in row]
            if local is not None:
                own = own[: max(local[t], 0)]
            ids = brute.select([*own, 0.0], top_k + (local is None))
            ids = [n for n in ids if 0 <= n < len(own)]
            if local is not None:
                ids = [*ids, local[t]] if local[t] >= 0 else []
            lists[-1].append(ids + [-1] * (top_k - len(ids)))
    ids = np.array(lists, dtype=np.int64).reshape(*scores.values.shape[:2], top_k)
    if id_layout == "token_major":
        ids = ids.swapaxes(0, 1)
    inputs = {"block_scores": scores}
    if local is not None:
        inputs["local_blocks"] = Stored(np.array(local), "int32")
    return {"name": name, "arguments": {"id_layout": id_layout, "top_k": top_k}, "inputs": inputs,
            "expect": {"block_ids": {"tensor": Stored(ids, "int32"), "how": "equal"}}}  # fmt: skip


def add_select_rules(pack):
    def rule(name, demand, cases):
        pack.add(f"select.{name}", demand, "select_blocks", cases)

    random = Random(360)
    scores = random.normal((2, 5, 70))
    few = random.integers(0, 3, (2, 5, 70)).astype(np.float64)
    special = np.array([-0.0, 0.0, math.inf, -math.inf, math.nan, 1.0])
    odd = special[random.integers(0, 5, (1, 6, 40))]
    rule("exact", "The K highest scores of a row, ids ascending, then -1.",
         [select_case(f"k{k}", scores, k) for k in (1, 4, 16, 64)]
         + [select_case("fewer_blocks", scores[:, :, :3], 8),
            select_case("token_major", scores, 16, None, "token_major")])  # fmt: skip
    rule("tie_lower_id", "Of equal scores the lower ids; -0 equals +0.",
         [select_case("few_values", few, 16), select_case("equal", np.ones((1, 3, 50)), 8)])  # fmt: skip
    rule("nan", "A NaN counts as minus infinity; infinities are ordered as numbers.",
         [select_case("mixed", odd, 8), select_case("all_nan", np.full((1, 2, 20), math.nan), 4)])  # fmt: skip
    rule("local_block", "With local blocks, row t takes local[t] and the K-1 best before it; below 0 "
         "the row is empty.",
         [select_case("mixed", scores, 8, [-1, 0, 3, 40, 69]),
          select_case("past_the_scores", scores, 4, [70, 71, 69, 2, -5]),
          select_case("k1", scores, 1, [3, 2, 1, 0, -1])])  # fmt: skip


def add_append_rules(pack):
    def rule(name, demand, cases):
        pack.add(f"cache.{name}", demand, "cache_append", cases)

    rule("append", "New tokens' K, V and index-K go to position k_len - q_len + t of their request's "
         "pages; nothing else changes.",
         [append_case(dtype, [(1, 34), (3, 20)], dtype) for dtype in
          ("float32", "bfloat16", "float16")])  # fmt: skip
    rule("append_across_pages", "New tokens may span several pages, in any order of pages.",
         [append_case("long", [(50, 90), (7, 40), (16, 16)], "bfloat16", 3)])  # fmt: skip
    rule("append_empty", "Requests without new tokens, rows before position 0 and rows past the "
         "last request write nothing.",
         [append_case("mixed", [(0, 30), (5, 2), (0, 0), (1, 1)], "bfloat16", 7, 2)])  # fmt: skip
    pack.add("cache.copy_pages", "Copies whole pages of K, V and index-K (copy on write).",
             "copy_pages", [copy_case("bfloat16"), copy_case("float32")])  # fmt: skip


def add_merge_rules(pack):
    def rule(name, demand, cases):
        pack.add(f"merge.{name}", demand, "merge_states", cases)

    rule("two_parts", "lse = log(exp(lse_a) + exp(lse_b)), and out the parts' weighted sum.",
         [merge_case(dtype, split_parts(300, dtype), dtype) for dtype in
          ("float32", "bfloat16", "float16")])  # fmt: skip
    left, right = split_parts(301, "float32")
    rule("empty_part", "A part with lse -inf saw nothing, and its out is not read.",
         [merge_case("first", [emptied(left), right]), merge_case("second", [left,
                                                                           emptied(right)])])  # fmt: skip
    rule("both_empty", "Two empty parts give out 0 and lse -inf.",
         [merge_case("both", [emptied(left), emptied(right)])])  # fmt: skip
    far = [(left[0], left[1] + 10000), (right[0], right[1] - 10000)]
    rule("lse_1e4", "LSEs of +-1e4 do not overflow.",
         [merge_case("apart", far), merge_case("both_high", [far[0], (right[0],
                                                                     right[1] + 10000)]),
          merge_case("both_low", [(left[0], left[1] - 10000), far[1]])])  # fmt: skip


def add_candidate_rules(pack):
    request = integer_request(320, 9, 700, TWO)
    flat = {"q_idx": np.ones((3, 2, 64)), "k_idx": small_integers(Random(9), (640, 64), 0)}
    pack.add("parts.candidates", "Over blocks [begin, end): the local block first with score +inf "
             "if it lies there, then the K-1 best others, highest first, lower id on ties.",
             "index_candidates",
             [candidates_case(f"{a}_to_{b}", [request], TWO, a, b) for a, b in
              ((0, 5), (5, 11), (9, 30), (3, 3))]
             + [candidates_case("ties", [flat], TWO, 2, 8)])  # fmt: skip
    batch = [integer_request(330 + n, rows, keys, TWO)
             for n, (rows, keys) in enumerate(((2, 300), (0, 9), (5, 3), (9, 137)))]  # fmt: skip
    pack.add("parts.candidates_paged", "The same from pages, for packed requests.",
             "index_candidates", [candidates_case("batch", batch, TWO, 1, 4, Pages(2))])  # fmt: skip
    pack.add("parts.merge_exact", "Parts merge, in any order, to the list over all blocks, and to "
             "the ids of index_forward.", "merge_candidates",
             [merge_candidates_case("three", request, TWO, [(0, 4), (4, 9), (9, 11)]),
              merge_candidates_case("any_order", request, TWO, [(9, 11), (0, 4), (4, 9)]),
              merge_candidates_case("overlap", request, TWO, [(0, 6), (3, 11)]),
              merge_candidates_case("ties", flat, TWO, [(5, 10), (0, 5)]),
              merge_candidates_case("token_major", request, TWO, [(0, 2), (2, 11)],
                                    "token_major")])  # fmt: skip


def add_rules(pack):
    add_append_rules(pack)
    add_merge_rules(pack)
    add_candidate_rules(pack)
    add_select_rules(pack)
