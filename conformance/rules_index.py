"""Rules of the index branch: scores, selection, index LSE, positions, pages.

Most use small integers, whose dots every float32 program gets exactly: ids and scores are then
demanded to the bit. Rules with real numbers keep every block clear of the cut, or say how near.
"""

import numpy as np

from conformance.cases import (
    Pages,
    Shape,
    index_case,
    make_request,
    refused,
    rounded,
    small_integers,
)
from conformance.storage import Random

OP = "index_forward"
SMALL = Shape(kv_heads=1)


def request_of_scores(token_scores, shape, num_rows=1, seed=1):
    """Dots of every row with key j are token_scores[j]: dim 0 alone counts, and the others, where
    the queries are 0, hold anything. Other groups' queries are 2, 3, ... times as large."""
    num_keys = len(token_scores)
    k_idx = small_integers(Random(seed), (num_keys, shape.index_dim))
    k_idx[:, 0] = token_scores
    q_idx = np.zeros((num_rows, shape.kv_heads, shape.index_dim))
    q_idx[:, :, 0] = np.arange(1, shape.kv_heads + 1)
    if not np.isfinite(k_idx).all():
        k_idx[:, 1:] = 0
    return {"q_idx": q_idx, "k_idx": k_idx}


def request_of_blocks(scores, shape, tail=None, **more):
    """Every token of block b has the score scores[b]; the last block has `tail` tokens."""
    tail = shape.block_size if tail is None else tail
    tokens = np.repeat(np.asarray(scores, np.float64), shape.block_size)
    return request_of_scores(tokens[: len(tokens) - shape.block_size + tail], shape, **more)


def integer_request(seed, num_rows, num_keys, shape, dtype="bfloat16"):
    return make_request(seed, num_rows, num_keys, shape, dtype, integers=True)


def rounding_request():
    """Block 1 has the higher dot, yet both scores round to the same float32: block 0 wins.

    The dots are integers between 1.42 * 2^23 and 2^24: exact in float32 in any order of adding, and
    so far up that some neighbours meet when they are multiplied by 1/sqrt(128)."""
    shape = Shape(kv_heads=1, index_dim=128, top_k=2)
    scale = np.float32(1 / np.sqrt(128))
    head = 127 * 254 * 408
    low = next(
        n
        for n in range(1, 200)
        if np.float32(scale * np.float32(head + n)) == np.float32(scale * np.float32(head + n + 1))
    )
    q = np.full((1, 1, 128), 254.0)
    q[0, 0, 127] = 1
    k = np.full((3 * 64, 128), 408.0)
    k[:64, 127] = low
    k[64:, 127] = low + 1
    return shape, {"q_idx": q, "k_idx": k}


def tie_cases():
    eight = Shape(kv_heads=2, top_k=8)
    four = [1, 2, 1, 2, 1, 2, 1, 2, 2, 0]
    return [
        index_case("all_equal", [request_of_blocks([1] * 12, SMALL)], SMALL),
        index_case("two_levels", [request_of_blocks(four, SMALL, tail=5)], SMALL),
        index_case("all_zero", [request_of_blocks([0] * 11, eight, num_rows=3)], eight),
        index_case(
            "many_blocks",
            [request_of_scores([1.0] * (8 * 300), Shape(kv_heads=1, index_dim=8, block_size=8))],
            Shape(kv_heads=1, index_dim=8, block_size=8),
            "float32",
        ),
        index_case(
            "split_keys",
            [request_of_blocks([3, 1, 2] * 7, SMALL, tail=40)],
            Shape(kv_heads=1, top_k=16),
        ),
    ]


def zero_cases():
    tiny = request_of_blocks([1e-20, -1e-20, 1e-20, -1e-20, 0, -1e-20], SMALL)
    down = request_of_blocks([-1e-20, 1e-20, -1e-20, 1e-20, 1e-20, -1], SMALL)
    for request in (tiny, down):
        request["k_idx"] = rounded(request["k_idx"], "bfloat16")
    return [
        index_case("rounds_to_zero", [tiny], SMALL, scale=1e-30),
        index_case("lower_id_is_minus_zero", [down], SMALL, scale=1e-30),
        index_case("minus_zero_keys", [request_of_blocks([-1, -0.0, 0, -0.0, 0, 0], SMALL)], SMALL),
    ]


def nan_cases():
    nan = np.nan
    blocks = request_of_blocks([nan, -5, nan, -9, 0, -7, nan, 0], SMALL)
    only = request_of_blocks([nan] * 7, SMALL)
    single = integer_request(31, 20, 500, SMALL)
    for place in range(0, 500, 9):
        single["k_idx"][place, place % 64] = nan
    return [
        index_case("blocks_of_nan", [blocks], SMALL),
        index_case("nothing_but_nan", [only], SMALL),
        index_case("single_tokens", [single], SMALL),
        index_case("nan_local", [request_of_blocks([1, 2, 3, 4, 5, nan], SMALL)], SMALL),
    ]


def infinity_cases():
    inf = np.inf
    return [
        index_case("plus", [request_of_blocks([1, inf, 2, inf, inf, inf, 0], SMALL)], SMALL),
        index_case("minus", [request_of_blocks([-inf] * 6 + [-inf, 3], SMALL)], SMALL),
        index_case("both", [request_of_blocks([-inf, 5, inf, -inf, -inf, 1], SMALL)], SMALL),
    ]


def count_cases(delta):
    """K + delta visible blocks, for each K that has to work."""
    cases = []
    for top_k in (4, 16):
        shape = Shape(kv_heads=1, top_k=top_k)
        request = integer_request(40 + top_k, 3, 64 * (top_k + delta) - 10, shape)
        cases.append(index_case(f"k{top_k}", [request], shape))
    return cases


def local_cases():
    worst = [9, 8, 7, 6, 5, 4, 3, -100]
    cases = [
        index_case(f"k{top_k}", [request_of_blocks(worst, SMALL, tail=17)],
                   Shape(kv_heads=1, top_k=top_k))
        for top_k in (1, 2, 4)
    ]  # fmt: skip
    best = [1, 2, 3, 4, 5, 6, 7, 100]
    return [*cases, index_case("best_too", [request_of_blocks(best, SMALL, tail=1)], SMALL)]


def causal_cases():
    """Scores rise with j, so that one token too many, or too few, changes a score."""
    shape = Shape(kv_heads=2, top_k=4)
    rising = np.arange(230, dtype=np.float64)
    cases = []
    for name, rows, keys in (("whole", 130, 130), ("chunk", 70, 200), ("last", 1, 193)):
        request = request_of_scores(rising[:keys], shape, num_rows=rows)
        cases.append(index_case(name, [request], shape))
    return cases


def packed_requests(shape, seed, dtype="bfloat16", make=make_request, **more):
    """Empty requests first, last and between; lengths that are no multiple of B."""
    lengths = [(0, 0), (3, 70), (0, 9), (33, 33), (0, 0), (1, 193), (7, 130), (0, 5)]
    return [
        make(seed + n, rows, keys, shape, dtype, **more) for n, (rows, keys) in enumerate(lengths)
    ]


def decode_requests(shape, seed, dtype="bfloat16", **more):
    """1 to 16 queries; many stand in two blocks."""
    lengths = [(1, 129), (2, 129), (4, 65), (8, 197), (16, 70), (1, 1), (5, 5), (3, 64)]
    return [
        make_request(seed + n, rows, keys, shape, dtype, **more)
        for n, (rows, keys) in enumerate(lengths)
    ]


def real_case(name, dtype, seed, rows=24, keys=700, lse=None, ids="equal", **sizes):
    shape = Shape(**sizes)
    request = make_request(seed, rows, keys, shape, dtype)
    return index_case(name, [request], shape, dtype, scores="tolerance", lse=lse, ids=ids)


def near_tie_case():
    """Keys in neighbouring blocks are permutations of the same numbers: their dots with a constant
    query differ in the last bits of a float32 sum, if at all."""
    shape = Shape(kv_heads=1, top_k=4)
    random = Random(77)
    base = rounded(random.normal((64,)), "bfloat16")
    keys = np.stack([base[random.permutation(64)] for _ in range(64 * 9)])
    request = {"q_idx": np.ones((4, 1, 64)), "k_idx": keys}
    return index_case("permuted_sums", [request], shape, scores="tolerance", ids="selection")


def extreme_lse_case(dtype):
    """Scores of 1e4, and -1e4 in another block."""
    shape = Shape(kv_heads=2, top_k=4)
    request = make_request(91, 9, 400, shape, dtype)
    request["q_idx"] = rounded(request["q_idx"] * 100, dtype)
    request["k_idx"] = rounded(request["k_idx"] * 100, dtype)
    return index_case(dtype, [request], shape, dtype, scores="tolerance", lse="selected")


def paged_cases(pages, **more):
    shape = Shape(kv_heads=2, top_k=4)
    requests = packed_requests(shape, 500, integers=True)
    if pages.shared:
        requests = [r for r in decode_requests(shape, 520, integers=True) if len(r["k_idx"]) > 128]
        for request in requests[1:]:
            request["k_idx"][: 64 * pages.shared] = requests[0]["k_idx"][: 64 * pages.shared]
    return [
        index_case("batch", requests, shape, pages=pages, padded_rows=2, lse="selected", **more)
    ]


def add_rules(pack):
    def rule(name, demand, cases, **more):
        pack.add(f"index.{name}", demand, OP, cases, **more)

    two = Shape(kv_heads=2, top_k=4)
    rule("scores", "A block's score is fl32(scale * its largest visible dot); the local block is "
         "scored too, and blocks with nothing visible are -inf.",
         [index_case("whole", [integer_request(1, 70, 70, two)], two),
          index_case("long", [integer_request(2, 20, 1000, two)], two),
          index_case("float32", [integer_request(3, 20, 300, two)], two, "float32")])  # fmt: skip
    rule("top_k", "Beside the local block, the K-1 blocks with the highest scores are taken.",
         [index_case(f"k{k}", [integer_request(10 + k, 12, 64 * k + 200, Shape(top_k=k, kv_heads=1))],
                     Shape(top_k=k, kv_heads=1)) for k in (4, 16, 32)])  # fmt: skip
    rule("local_block", "The local block is always taken, and uses one of the K places.",
         local_cases())  # fmt: skip
    rule("causal", "The maximum runs over tokens j <= i and no others.", causal_cases())
    rule("tie_lower_id", "Of equal scores the lower block id wins.", tie_cases())
    rule("minus_zero", "-0 equals +0: the lower id wins.", zero_cases())
    shape, request = rounding_request()
    rule("ranked_value_is_float32", "What is ranked is fl32(scale * dot): dots that round to one "
         "score tie, and the lower id wins.", [index_case("merged", [request], shape)])  # fmt: skip
    rule("nan", "A NaN token score is ignored; a block of NaN alone has the score -inf.",
         nan_cases())  # fmt: skip
    rule("infinity", "Infinite scores rank and tie like any others.", infinity_cases())
    rule("fewer_than_k", "With fewer than K visible blocks all are taken: ascending, then -1.",
         count_cases(-2))  # fmt: skip
    rule("exactly_k", "With exactly K visible blocks all are taken.", count_cases(0))
    rule("one_more_than_k", "With K+1 visible blocks the worst but the local one is left.",
         count_cases(1))  # fmt: skip
    rule("empty_rows", "Rows before position 0 and past the last request: ids -1, scores and LSE "
         "-inf.", [index_case("before", [integer_request(50, 9, 4, two)], two, lse="selected"),
                   index_case("no_keys", [integer_request(51, 3, 0, two),
                                          integer_request(52, 2, 90, two)], two,
                              padded_rows=3, lse="visible")])  # fmt: skip
    rule("packed_batch", "Requests of any length, empty ones too, are packed; each row counts from "
         "its own request's end.", [index_case("batch", packed_requests(two, 60, integers=True),
                                               two, padded_rows=2, lse="selected")])  # fmt: skip
    chunk = integer_request(70, 300, 300, two)
    rule("chunks", "A chunk may begin and end anywhere in a block.",
         [index_case(f"{a}_to_{b}", [{"q_idx": chunk["q_idx"][a:b], "k_idx": chunk["k_idx"][:b]}],
                     two) for a, b in ((0, 63), (63, 65), (65, 192), (192, 193), (200, 300))])  # fmt: skip
    rule("decode", "1 to 16 queries for each request, lengths mixed; queries of one request may "
         "have different local blocks.",
         [index_case("batch", decode_requests(two, 80, integers=True), two, lse="selected"),
          index_case("long", [integer_request(95, 2, 2600, SMALL)], SMALL, lse="selected"),
          ])  # fmt: skip
    four = Shape(kv_heads=4, top_k=4)
    eight = Shape(kv_heads=8, top_k=4)
    rule("groups", "Each group selects by its own index head.",
         [index_case("four", [integer_request(100, 8, 600, four)], four),
          index_case("eight", [integer_request(101, 4, 500, eight)], eight)])  # fmt: skip
    rule("id_layout_token_major", "With the token-major layout ids lie as [T, Hkv, K].",
         [index_case("batch", packed_requests(four, 110, integers=True), four, padded_rows=1,
                     id_layout="token_major")])  # fmt: skip
    rule("paged", "Keys lie in pages in any order; ids are logical; unused slots hold NaN, and "
         "table entries past a request's pages nonsense.", paged_cases(Pages(3)))  # fmt: skip
    rule("shared_pages", "Requests may share pages.", paged_cases(Pages(5, shared=2)))
    rule("dims_and_blocks", "Di and B of 64 and 128.",
         [index_case(f"di{dim}_b{block}",
                     [integer_request(dim + block, 10, 6 * block - 9,
                                      Shape(kv_heads=1, index_dim=dim, block_size=block))],
                     Shape(kv_heads=1, index_dim=dim, block_size=block), lse="selected")
          for dim in (64, 128) for block in (64, 128)])  # fmt: skip
    rule("any_shape", "CPU: any block size, any Di that is a multiple of 8.",
         [index_case(f"di{dim}_b{block}",
                     [integer_request(dim + block, 19, 101,
                                      Shape(index_dim=dim, block_size=block, top_k=5))],
                     Shape(index_dim=dim, block_size=block, top_k=5), "float32", lse="selected")
          for dim, block in ((8, 1), (24, 7), (40, 8), (16, 50))])  # fmt: skip
    rule("scale", "A given scale stands in place of 1/sqrt(Di), in scores and LSE.",
         [index_case("third", [integer_request(120, 9, 400, two)], two, scale=1 / 3,
                     lse="selected")])  # fmt: skip
    plain = index_case("plain", [integer_request(121, 2, 70, two)], two)
    rule("scale_refused", "A scale that is not finite or not above 0 is refused.",
         [refused("zero", plain, scale=0.0), refused("negative", plain, scale=-1.0),
          refused("infinite", plain, scale="inf"), refused("nan", plain, scale="nan")])  # fmt: skip
    for dtype in ("float32", "bfloat16", "float16"):
        rule(f"selection_{dtype}", "Selection and scores of real numbers, no block near the cut.",
             [real_case("d64", dtype, 300, keys=500), real_case("d128", dtype, 301, 10, 400,
              index_dim=128, top_k=4, kv_heads=4)])  # fmt: skip
        rule(f"lse_selected_{dtype}", "lse_idx is the natural log of the sum over the visible "
             "tokens of the selected blocks.", [real_case("chunk", dtype, 310, keys=450, lse="selected")])  # fmt: skip
        rule(f"lse_visible_{dtype}", "On request lse_idx runs over all j <= i (warm-up).",
             [real_case("chunk", dtype, 320, keys=450, lse="visible")])  # fmt: skip
        rule(f"lse_1e4_{dtype}", "Scores of 1e4 do not overflow the index LSE.",
             [extreme_lse_case(dtype)])  # fmt: skip
    rule("lse_long", "The index LSE of a long context, which a backend may merge from parts.",
         [real_case(scope, "bfloat16", 312, 3, 2300, lse=scope)
          for scope in ("selected", "visible")])  # fmt: skip
    rule("near_ties", "Given a backend's own float32 scores its selection is exact; against the "
         "exact scores it may differ within tol of the cut alone.", [near_tie_case()])  # fmt: skip
    alone = make_request(402, 5, 333, two, "bfloat16")
    around = [make_request(400, 40, 90, two, "bfloat16"), alone, make_request(403, 1, 1100, two,
              "bfloat16")]  # fmt: skip
    cases = [index_case("alone", [alone], two, scores="tolerance", lse="selected"),
             index_case("in_a_batch", around, two, scores="tolerance", lse="selected")]  # fmt: skip
    rule("bitwise", "Bitwise equal: reruns, any number of threads, any other requests around.",
         cases, bitwise=[["alone", 0, "in_a_batch", 40, 5]])  # fmt: skip
