"""Rules of the main branch, sparse and dense: masks, ids as sets, softmax, LSE, groups, pages."""

import numpy as np

from conformance.cases import (
    Pages,
    Shape,
    attention_case,
    make_request,
    random_ids,
    refused,
    rounded,
)
from conformance.rules_index import decode_requests, packed_requests

SPARSE = "attention_forward"
DENSE = "dense_attention_forward"
TYPES = ("float32", "bfloat16", "float16")
TWO = Shape(kv_heads=2, group=2)
ONE = Shape(kv_heads=1, group=2)


def request_of(seed, rows, keys, shape, dtype="bfloat16", magnitude=1.0):
    return make_request(seed, rows, keys, shape, dtype, magnitude=magnitude, index=False)


def both(name, requests, shape, dtype="bfloat16", dense=False, seed=1, **more):
    """The case for the sparse op with random ids, or for the dense op."""
    ids = None
    if not dense:
        ids = [
            random_ids(seed + n, len(r["q"]), len(r["k"]), shape) for n, r in enumerate(requests)
        ]
    return attention_case(name, requests, shape, dtype, ids=ids, **more)


def listed(name, rows, request, shape=ONE, **more):
    """The case whose every row and group has the same list of ids."""
    ids = np.empty((shape.kv_heads, len(request["q"]), len(rows)), np.int32)
    ids[:] = rows
    return attention_case(name, [request], shape, ids=[ids], **more)


def peaked(request, dtype="bfloat16", factor=100.0):
    """Logits of about 1e4: queries and keys both larger, D left as it is."""
    for name in ("q", "k"):
        request[name] = rounded(request[name] * factor, dtype)
    return request


def invisible_case(dense):
    """NaN in V, and in K, of the last tokens; the last row's list leaves their block out, and the
    earlier rows stand before them. The dense op has NaN rows of a next request instead."""
    request = request_of(41, 30, 190, ONE)
    if dense:
        return None
    for name in ("k", "v"):
        request[name][189] = np.nan
    ids = random_ids(7, 30, 190, ONE)
    ids[0, 29] = [1, 0, -1, -1]
    return attention_case("future_tokens", [request], ONE, ids=[ids])


def unselected_case():
    request = request_of(42, 10, 260, ONE)
    for name in ("k", "v"):
        request[name][64:128] = np.nan
    ids = np.empty((1, 10, 4), np.int32)
    ids[:] = [0, 2, 3, 4]
    return attention_case("unselected_block", [request], ONE, ids=[ids])


def far_peak(dense):
    """One token far back has nearly all the mass; a kernel that bounds its maximum loses it."""
    request = request_of(45, 4, 400, ONE)
    request["k"][70, 0] = rounded(request["q"][1, 0] * 20, "bfloat16")
    return both("one_token", [request], ONE, dense=dense)


def add_shared_rules(pack, prefix, op, dense):
    """What both ops demand."""

    def rule(name, demand, cases, **more):
        pack.add(f"{prefix}.{name}", demand, op, cases, **more)

    for dtype in TYPES:
        rule(f"exact_{dtype}", "out is the softmax over S times V, and lse its log-sum.",
             [both("prefill", [request_of(1, 24, 140, TWO, dtype)], TWO, dtype, dense),
              both("d128", [request_of(2, 4, 200, Shape(kv_heads=1, group=4, dim=128), dtype)],
                   Shape(kv_heads=1, group=4, dim=128), dtype, dense)])  # fmt: skip
        rule(f"logits_1e4_{dtype}", "Logits of +-1e4 do not overflow.",
             [both("large", [peaked(request_of(3, 6, 210, TWO, dtype), dtype)], TWO, dtype,
                   dense)])  # fmt: skip
    rule("causal", "Row t sees the tokens j <= k_len - q_len + t and no others.",
         [both("whole", [request_of(5, 130, 130, ONE, "float32")], ONE, "float32", dense),
          both("borders", [request_of(6, 3, 193, ONE, "float32")], ONE, "float32", dense)])  # fmt: skip
    even = request_of(7, 1, 256, ONE, "float32")
    even["q"][:] = 0
    rule("lse_natural", "lse is the natural log of the sum of the exponentials.",
         [both("counts_tokens", [even], ONE, "float32", dense)])  # fmt: skip
    rule("far_peak", "The maximum that is subtracted is a true one.", [far_peak(dense)])
    rule("empty_rows", "Rows before position 0 and past the last request: out 0, lse -inf.",
         [both("before", [request_of(8, 9, 4, TWO)], TWO, dense=dense),
          both("no_keys", [request_of(9, 3, 0, TWO), request_of(10, 2, 90, TWO)], TWO, dense=dense,
               padded_rows=3)])  # fmt: skip
    rule("packed_batch", "Requests of any length, empty ones too, are packed.",
         [both("batch", packed_requests(TWO, 20, index=False), TWO, dense=dense,
               padded_rows=2)])  # fmt: skip
    chunk = request_of(12, 270, 270, ONE)
    parts = [{"q": chunk["q"][a:b], "k": chunk["k"][:b], "v": chunk["v"][:b]}
             for a, b in ((0, 63), (63, 65), (65, 128), (200, 270))]  # fmt: skip
    rule("chunks", "A chunk may begin and end anywhere in a block.",
         [both(f"part_{n}", [part], ONE, dense=dense) for n, part in enumerate(parts)])  # fmt: skip
    rule("decode", "1 to 16 queries for each request, lengths mixed; queries of one request may "
         "have different local blocks.",
         [both("batch", decode_requests(TWO, 30, index=False), TWO, dense=dense),
          both("long", [request_of(39, 2, 1040, ONE)], ONE, dense=dense)])  # fmt: skip
    rule("groups", "Query head h reads key head floor(h / G), for G of 1, 2, 4, 8 and 16.",
         [both(f"g{group}", [request_of(50 + group, 3, 100, Shape(kv_heads=2, group=group))],
               Shape(kv_heads=2, group=group), dense=dense) for group in (1, 2, 4, 8, 16)])  # fmt: skip
    rule("kv_heads", "1, 4 and 8 key heads.",
         [both(f"h{heads}", [request_of(60 + heads, 3, 75, Shape(kv_heads=heads, group=2))],
               Shape(kv_heads=heads, group=2), dense=dense) for heads in (1, 4, 8)])  # fmt: skip
    rule("scale", "A given scale stands in place of 1/sqrt(D).",
         [both("third", [request_of(66, 5, 150, ONE)], ONE, dense=dense, scale=1 / 3)])  # fmt: skip
    plain = both("plain", [request_of(67, 2, 70, ONE)], ONE, dense=dense)
    rule("scale_refused", "A scale that is not finite or not above 0 is refused.",
         [refused("zero", plain, scale=0.0), refused("negative", plain, scale=-1.0),
          refused("infinite", plain, scale="inf"), refused("nan", plain, scale="nan")])  # fmt: skip
    add_layout_rules(rule, dense)
    alone = request_of(70, 5, 200, TWO)
    around = [request_of(71, 40, 66, TWO), alone, request_of(72, 1, 130, TWO)]
    lists = [random_ids(n, len(r["q"]), len(r["k"]), TWO) for n, r in enumerate(around)]
    rule("bitwise", "Bitwise equal: reruns, any number of threads, any other requests around.",
         [attention_case("alone", [alone], TWO, ids=None if dense else lists[1:2]),
          attention_case("in_a_batch", around, TWO, ids=None if dense else lists)],
         bitwise=[["alone", 0, "in_a_batch", 40, 5]])  # fmt: skip


def add_layout_rules(rule, dense):
    batch = packed_requests(TWO, 80, index=False)
    batch = batch[:3] + batch[5:6]
    orders = {"nhd": "[page, token, head]", "hnd": "[page, head, token]",
              "one": "K and V in one allocation"}  # fmt: skip
    for order, words in orders.items():
        rule(f"paged_{order}", f"Pages in any order as strided views, {words}; unused slots hold "
             "NaN, and table entries past a request's pages nonsense.",
             [both("batch", batch, TWO, dense=dense, pages=Pages(9, order), padded_rows=1)])  # fmt: skip
    sharing = [r for r in decode_requests(TWO, 90, index=False) if len(r["k"]) > 128]
    for request in sharing[1:]:
        for name in ("k", "v"):
            request[name][:128] = sharing[0][name][:128]
    rule("shared_pages", "Requests may share pages.",
         [both("batch", sharing, TWO, dense=dense, pages=Pages(11, shared=2))])  # fmt: skip
    for dim, block in ((64, 128), (128, 64)):
        shape = Shape(kv_heads=1, group=2, dim=dim, block_size=block)
        rule(f"d{dim}_b{block}", "D and B of 64 and 128.",
             [both("paged", [request_of(dim, 7, 3 * block + 9, shape)], shape, dense=dense,
                   pages=Pages(2))])  # fmt: skip
    shapes = [Shape(kv_heads=2, group=3, dim=dim, block_size=block, top_k=3)
              for dim, block in ((8, 1), (24, 7), (40, 50))]  # fmt: skip
    rule("any_shape", "CPU: any group and block size, any D that is a multiple of 8.",
         [both(f"d{s.dim}_b{s.block_size}", [request_of(s.dim, 11, 101, s, "float32")], s,
               "float32", dense) for s in shapes])  # fmt: skip
    if dense:
        rule("page_size", "Pages of the dense op may have any size.",
             [both(f"p{size}", batch[1:3], TWO, dense=True,
                   pages=Pages(4, size=size)) for size in (1, 16, 96)])  # fmt: skip


def add_id_rules(pack):
    def rule(name, demand, cases, **more):
        pack.add(f"attend.{name}", demand, SPARSE, cases, **more)

    request = request_of(200, 9, 330, ONE)
    rule("ids_any_order", "Ids are read in any order.",
         [listed("falling", [5, 3, 0, -1], request), listed("mixed", [2, 5, 0, 4], request)])  # fmt: skip
    rule("ids_repeat", "A repeated id counts once.",
         [listed("pairs", [1, 1, 5, 5], request), listed("apart", [3, 0, 3, 5, 3, 0], request)])  # fmt: skip
    rule("ids_end_at_minus_one", "Nothing is read past the first -1.",
         [listed("valid_after", [2, -1, 5, 0], request), listed("first", [-1, 1, 2, 3], request)])  # fmt: skip
    rule("ids_outside", "An id outside the sequence is ignored, and does not end the list.",
         [listed("above", [6, 1, 1 << 30, 5], request), listed("negative", [-5, 2, -(1 << 31), 5],
                                                              request),
          listed("paged", [2, 9, 1 << 20, -3], request, pages=Pages(3, spare=9))])  # fmt: skip
    early = request_of(201, 90, 200, ONE)
    rule("ids_without_visible_token", "An id of a block that begins after i is ignored.",
         [listed("future", [0, 3, 2, 1], early), listed("only_future", [3, 2, -1, -1], early)])  # fmt: skip
    rule("local_not_added", "The local block is not added when the list lacks it.",
         [listed("without_local", [0, 2, -1, -1], request)])  # fmt: skip
    rule("empty_set", "A row with an empty S has out 0 and lse -inf.",
         [listed("no_ids", [-1, -1, -1, -1], request),
          listed("only_bad", [77, -2, 1 << 29, -1], request)])  # fmt: skip
    rule("invisible_values", "Values of invisible tokens are never multiplied: 0 * NaN.",
         [invisible_case(False), unselected_case()])  # fmt: skip
    rule("all_blocks_are_dense", "With all visible blocks listed the result is dense attention.",
         [listed("all", [0, 1, 2, 3, 4, 5], request)])  # fmt: skip
    groups = Shape(kv_heads=4, group=1)
    batch = packed_requests(groups, 210, index=False)[4:]
    for layout in ("head_major", "token_major"):
        rule(f"id_layout_{layout}", "The layout of the ids is an argument; each group has its own "
             "list.", [both("batch", batch, groups, id_layout=layout, padded_rows=1)])  # fmt: skip
    for top_k in (8, 32):
        shape = Shape(kv_heads=1, group=2, top_k=top_k)
        rule(f"k{top_k}", f"K = {top_k}.",
             [both("long", [request_of(220 + top_k, 2, 64 * top_k + 70, shape)], shape)])  # fmt: skip
    mixed = Shape(kv_heads=2, group=4)
    tails = [request_of(240 + n, rows, 64 + rows, mixed) for n, rows in enumerate((1, 2, 7, 16))]
    rule("straddling_decode", "Queries of one request in different blocks have lists of their own.",
         [both("batch", tails, mixed, pages=Pages(6))])  # fmt: skip


def add_rules(pack):
    add_shared_rules(pack, "attend", SPARSE, dense=False)
    add_id_rules(pack)
    add_shared_rules(pack, "dense", DENSE, dense=True)
