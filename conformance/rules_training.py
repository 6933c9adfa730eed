"""Rules of training: gradients of attention, the KL loss and its gradients, warm-up, recalls.

tests/conformance/ holds the gradients of conformance/brute.py against central differences.
"""

import numpy as np

from conformance import brute
from conformance.cases import Shape, closeness, lay_out, make_request, random_ids, rounded
from conformance.storage import Random, Stored

TWO = Shape(kv_heads=2, group=2)
SMALL = Shape(kv_heads=2, group=2, dim=16, index_dim=16, block_size=8, top_k=3)
TYPES = ("float32", "bfloat16", "float16")
LENGTHS = [(20, 90)]
BATCH = [(0, 0), (6, 70), (0, 9), (9, 4), (3, 130), (11, 11)]
SPARSE, DENSE, KL = "attention_backward", "dense_attention_backward", "kl_forward_backward"


def make_requests(seed, lengths, shape, dtype, magnitude=1.0):
    requests = []
    for n, (rows, keys) in enumerate(lengths):
        request = make_request(seed + n, rows, keys, shape, dtype, magnitude=magnitude, index=False)
        request.update(make_request(seed + 40 + n, rows, keys, shape, dtype, magnitude=magnitude))
        requests.append(request)
    return requests


def lists_of(seed, requests, shape):
    return [random_ids(seed + n, len(r["q"]), len(r["k"]), shape) for n, r in enumerate(requests)]


def joined_rows(parts, axis=0):
    return np.concatenate(parts, axis=axis)


def attention_case(name, requests, shape, dtype, ids=None, dlse=False, scale=None):
    """dout random; out and lse those of the forward, as its storage holds them."""
    inputs = lay_out(requests, ["q"], ["k", "v"], dtype, shape.block_size)
    arguments = {}
    if scale is not None:
        arguments["scale"] = scale = float(np.float32(scale))
    if ids is not None:
        arguments.update(block_size=shape.block_size, id_layout="head_major")
        inputs["block_ids"] = Stored(joined_rows(ids, 1), "int32")
    largest = 1.0
    given = {"out": [], "lse": [], "dout": [], "dlse": []}
    gradients = {"dq": [], "dk": [], "dv": []}
    for n, request in enumerate(requests):
        own = None if ids is None else ids[n]
        out, lse, factor = brute.attention(request, own, shape.block_size, scale)
        largest = max(largest, float(factor.max(initial=1.0)))
        out, lse = rounded(out, dtype), rounded(lse, "float32")
        random = Random(1000 + n)
        dout = rounded(random.normal(out.shape), dtype)
        given_dlse = rounded(random.normal(lse.shape), "float32")
        results = brute.attention_gradients(
            request, own, shape.block_size, out, lse, dout, given_dlse if dlse else None, scale
        )
        for key, value in zip(given, (out, lse, dout, given_dlse), strict=True):
            given[key].append(value)
        for key, value in zip(gradients, results, strict=True):
            gradients[key].append(value)
    for key, value in given.items():
        if key != "dlse" or dlse:
            inputs[key] = Stored(joined_rows(value), "float32" if "lse" in key else dtype)
    expect = {key: {"tensor": Stored(joined_rows(value), "float32"),
                    **closeness(dtype, "gradient")} for key, value in gradients.items()}  # fmt: skip
    for entry in expect.values():
        entry["frobenius"] *= largest  # lse has an error of 1e-5 * L at least, and so has P
    return {"name": name, "arguments": arguments, "inputs": inputs, "expect": expect}


def kl_case(name, requests, shape, dtype, ids=None, coefficient=1.0, normaliser=None):  # fmt: skip
    """ids None: warm-up, over all j <= i."""
    inputs = lay_out(requests, ["q", "q_idx"], ["k", "k_idx"], dtype, shape.block_size)
    rows = sum(len(request["q"]) for request in requests)
    normaliser = shape.kv_heads * rows if normaliser is None else normaliser
    arguments = {"block_size": shape.block_size, "coefficient": coefficient,
                 "normaliser": normaliser, "scope": "visible" if ids is None else "selected"}  # fmt: skip
    if ids is not None:
        arguments["id_layout"] = "head_major"
        inputs["block_ids"] = Stored(joined_rows(ids, 1), "int32")
    scale_i = brute.scale_of(shape.index_dim)
    given = {"lse": [], "lse_idx": []}
    largest = 1.0
    total, gradients = 0.0, {"dq_idx": [], "dk_idx": []}
    for n, request in enumerate(requests):
        own = None if ids is None else ids[n]
        _, lse, factor = brute.attention(request, own, shape.block_size)
        largest = max(largest, float(factor.max(initial=1.0)))
        lse = rounded(lse, "float32")
        lse_idx = np.full((shape.kv_heads, len(request["q"])), -np.inf)
        for g in range(shape.kv_heads):
            for t in range(len(request["q"])):
                tokens = brute.row_tokens(request, own, t, g, shape.block_size)
                products = brute.dots(request["q_idx"][t, g], request["k_idx"][tokens])
                lse_idx[g, t] = brute.log_sum_exp([scale_i * x for x in products])
        lse_idx = rounded(lse_idx, "float32")
        value, dq, dk = brute.kl(
            request, own, shape.block_size, lse, lse_idx, coefficient, normaliser
        )
        total += value
        given["lse"].append(lse)
        given["lse_idx"].append(lse_idx)
        gradients["dq_idx"].append(dq)
        gradients["dk_idx"].append(dk)
    inputs["lse"] = Stored(joined_rows(given["lse"]), "float32")
    inputs["lse_idx"] = Stored(joined_rows(given["lse_idx"], 1), "float32")
    expect = {key: {"tensor": Stored(joined_rows(value), "float32"),
                    **closeness(dtype, "gradient")} for key, value in gradients.items()}  # fmt: skip
    for entry in expect.values():
        entry["frobenius"] *= largest
    expect["loss"] = {"tensor": Stored([total], "float64"), **closeness(dtype, "lse")}
    for bound in ("absolute", "relative"):
        if bound in expect["loss"]:
            expect["loss"][bound] *= largest
    return {"name": name, "arguments": arguments, "inputs": inputs, "expect": expect}


def backward_cases(dtype, dense, shape=TWO, lengths=LENGTHS, seed=1, **more):
    requests = make_requests(seed, lengths, shape, dtype)
    ids = None if dense else lists_of(seed, requests, shape)
    return [attention_case("batch", requests, shape, dtype, ids, **more)]


def add_backward_rules(pack, prefix, op, dense):
    def rule(name, demand, cases):
        pack.add(f"{prefix}.{name}", demand, op, cases)

    for dtype in TYPES:
        rule(f"gradients_{dtype}", "dq, dk and dv of out = softmax over S times V.",
             backward_cases(dtype, dense))  # fmt: skip
    rule("dlse", "A gradient of lse: D_row - dlse stands for D_row.",
         backward_cases("float32", dense, dlse=True))  # fmt: skip
    rule("packed_batch", "Packed requests, empty ones too; rows before position 0 and keys that no "
         "row sees have gradient 0.", backward_cases("float32", dense, SMALL, lengths=BATCH, seed=5))  # fmt: skip
    rule("groups", "dk and dv add up over the heads of a group.",
         [attention_case(f"g{group}", requests, shape, "float32",
                         None if dense else lists_of(group, requests, shape))
          for group in (1, 4, 16)
          for shape in [Shape(kv_heads=2, group=group, dim=16, block_size=8)]
          for requests in [make_requests(group, [(9, 40)], shape, "float32")]])  # fmt: skip
    rule("scale", "A given scale stands in place of 1/sqrt(D).",
         backward_cases("float32", dense, SMALL, scale=1 / 3))  # fmt: skip
    large = make_requests(60, [(6, 40)], SMALL, "float32", magnitude=60.0)
    rule("logits_1e4", "Logits of +-1e4 do not overflow.",
         [attention_case("large", large, SMALL, "float32",
                         None if dense else lists_of(3, large, SMALL))])  # fmt: skip


def kl_cases(dtype, warm_up, shape=TWO, lengths=LENGTHS, seed=80, magnitude=1.0, **more):
    requests = make_requests(seed, lengths, shape, dtype, magnitude)
    ids = None if warm_up else lists_of(seed, requests, shape)
    return [kl_case("batch", requests, shape, dtype, ids, **more)]


def add_kl_rules(pack):
    def rule(name, demand, cases):
        pack.add(f"kl.{name}", demand, KL, cases)

    for dtype in TYPES:
        rule(f"selected_{dtype}", "The loss is coeff / normaliser * sum of p (log p - log r) over the "
             "selected visible tokens; its gradients are c sum (r - p) k_idx, c sum (r - p) q_idx.",
             kl_cases(dtype, False, coefficient=64.0))  # fmt: skip
    rule("warm_up", "In warm-up the same runs over all j <= i.",
         kl_cases("float32", True) + [{**case, "name": "bfloat16"}
                                      for case in kl_cases("bfloat16", True)])  # fmt: skip
    rule("normaliser", "The normaliser is an argument: chunks of one batch add up.",
         kl_cases("float32", False, SMALL, normaliser=1000.0))  # fmt: skip
    rule("coefficient", "coeff scales the loss and its gradients.",
         kl_cases("float32", False, SMALL, coefficient=0.25))  # fmt: skip
    rule("packed_batch", "Packed requests, empty ones too; rows before position 0 add nothing.",
         kl_cases("float32", False, SMALL, BATCH))  # fmt: skip
    rule("log_r", "log r is s - lse_idx, never the log of an exponential; 0 log 0 is 0.",
         kl_cases("float32", False, SMALL, [(5, 60)], 90, 15.0))  # fmt: skip
    rule("groups", "The teacher is the mean over the G heads of the group.",
         [{**kl_cases("float32", False, Shape(kv_heads=2, group=group, dim=16, index_dim=16,
                                              block_size=8), [(7, 50)], group)[0],
           "name": f"g{group}"} for group in (1, 4, 8, 16)])  # fmt: skip
    rule("forward_direction", "The divergence is teacher against student, not the reverse, and the "
         "teacher has no gradient.", kl_cases("float32", False, SMALL, [(4, 40)], 95, 2.0))  # fmt: skip


def recall_case():
    shape = SMALL
    requests = make_requests(120, [(20, 90)], shape, "float32")
    chosen = brute.index(requests[0], shape.block_size, shape.top_k)[0]
    values = brute.recalls(requests[0], chosen, shape.block_size, shape.top_k)
    inputs = lay_out(requests, ["q"], ["k"], "float32", shape.block_size)
    inputs["block_ids"] = Stored(chosen, "int32")
    names = ("block_recall", "score_recall", "block_recall_without_local",
             "score_recall_without_local")  # fmt: skip
    expect = {name: {"tensor": Stored([value], "float64"), "how": "close", "absolute": 1e-5}
              for name, value in zip(names, values, strict=True)}  # fmt: skip
    arguments = {"block_size": shape.block_size, "top_k": shape.top_k}
    return {"name": "mean", "arguments": arguments, "inputs": inputs, "expect": expect}


def add_rules(pack):
    add_backward_rules(pack, "attend_backward", SPARSE, dense=False)
    add_backward_rules(pack, "dense_backward", DENSE, dense=True)
    add_kl_rules(pack)
    pack.add("recall.means", "Block recall and score recall, with and without the local block, over "
             "rows with more than K visible blocks.", "recall", [recall_case()])  # fmt: skip
