"""PyTorch's attention on the CPU at the shapes of a run of `msa bench`, as a column of that run.

    msa bench --json > run.json
    .venv/bin/python bench/peers/sdpa.py run.json

Reads the shapes, threads and types from the run, times scaled_dot_product_attention at them, prints
the peer beside our layer and our dense attention, and writes it into the run (`peers` of each case)
through a new file that takes the old one's name.

A whole prefill is one causal call over all its tokens, the fastest way PyTorch has. Where the run
was sampled, or the prefill is longer than --whole-up-to, the same query tiles stand for all; a tile
in the middle of a context is then a call without a mask, which works out the few products above the
diagonal too (`work_ratio` says how many there are of those needed; above 1.15 PyTorch is not
asked). One query needs no mask. PyTorch wants one type for q, k and v: it is timed in the type of the
caches and in float32. Needs torch (training/requirements.txt).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

FORMAT = "msa-bench-1"
MOST_EXTRA_WORK = 1.15


class BadRun(Exception):
    """What was read is no run of msa bench."""


def read_run(path: Path) -> dict:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        known = run["format"] == FORMAT and isinstance(run["cases"], list)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRun(f"{path}: got no JSON of `msa bench --json`: {error}") from error
    if not known:
        raise BadRun(f"{path}: got format {run['format']!r}, allowed {FORMAT}")
    return run


def write_whole(path: Path, text: str) -> None:
    """A new file beside the old one takes its name when all of it is on the disk."""
    handle, name = tempfile.mkstemp(dir=path.resolve().parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path.resolve())
    except BaseException:
        os.unlink(name)
        raise


def pairs(q_len: int, k_len: int) -> int:
    """Visible tokens over all queries."""
    return q_len * (k_len - q_len) + q_len * (q_len + 1) // 2


def plan(case: dict, whole_up_to: int) -> list[tuple[float, int, int, float]] | None:
    """(weight, q_len, k_len, work_ratio) of each call; None where PyTorch is not asked.

    PyTorch has no batch of mixed lengths: requests are timed one by one.
    """
    requests = case.get("requests", [])
    long = any(q > whole_up_to for q, _ in requests)
    tiles = case.get("tiles", [])
    whole = [{"weight": 1, "requests": requests}]
    calls = []
    for piece in tiles if tiles and long else whole:
        for q_len, k_len in piece["requests"]:
            masked = q_len in (1, k_len)
            ratio = 1.0 if masked else q_len * k_len / pairs(q_len, k_len)
            if ratio > MOST_EXTRA_WORK:
                return None
            calls.append((float(piece["weight"]), q_len, k_len, ratio))
    return calls or None


def seconds_of(layer: dict, q_len: int, k_len: int, dtype, repeats: int, budget: float) -> float:
    import torch

    q = torch.randn(1, layer["q_heads"], q_len, layer["head_dim"], dtype=dtype)
    k, v = (
        torch.randn(1, layer["kv_heads"], k_len, layer["head_dim"], dtype=dtype) for _ in range(2)
    )
    times = []
    with torch.no_grad():
        while not times or (len(times) < repeats and sum(times) < budget):
            begin = time.perf_counter()
            torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=q_len == k_len and q_len > 1, enable_gqa=True
            )
            times.append(time.perf_counter() - begin)
    # The first call warms up, unless it is the only one that there was time for.
    return statistics.median(times[1:] or times)


def measure(run: dict, case: dict, type_name: str, arguments) -> dict | None:
    import torch

    calls = plan(case, arguments.whole_up_to)
    if calls is None:
        return None
    seconds, products, needed = 0.0, 0.0, 0.0
    for weight, q_len, k_len, ratio in calls:
        seconds += weight * seconds_of(
            run["layer"],
            q_len,
            k_len,
            getattr(torch, type_name),
            arguments.repeats,
            arguments.seconds / len(calls),
        )
        products += weight * ratio * pairs(q_len, k_len)
        needed += weight * pairs(q_len, k_len)
    return {
        "name": f"torch {torch.__version__.split('+')[0]} sdpa {type_name}",
        "type": type_name,
        "seconds": seconds,
        "method": "sampled" if calls[0][0] > 1 else "whole",
        "work_ratio": products / needed,
    }


def seconds_in(case: dict, name: str) -> float | None:
    return next((op["seconds"] for op in case["ops"] if op["op"] == name), None)


def human(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, scale in (("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 999.5:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:.0f} s"


def table(run: dict) -> str:
    """Our layer and dense attention beside every peer, and how many times faster the layer is."""
    names = sorted({peer["name"] for case in run["cases"] for peer in case.get("peers", [])})
    rows = [["what", "msa layer", "msa dense", *names, "layer against best peer"]]
    for case in run["cases"]:
        times = {peer["name"]: peer["seconds"] for peer in case.get("peers", [])}
        layer = seconds_in(case, "layer")
        ratio = f"{min(times.values()) / layer:.2f}x faster" if times and layer else "-"
        mark = " ~" if case["method"] == "sampled" else ""
        peers = [human(times.get(name)) for name in names]
        own = [human(layer), human(seconds_in(case, "dense"))]
        rows.append([case["name"] + mark, *own, *peers, ratio])
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="See the head of this file."
    )
    parser.add_argument("run", type=Path, help="what msa bench --json wrote; gets the peers")
    parser.add_argument("--repeats", type=int, default=5, help="most times of each call")
    parser.add_argument("--seconds", type=float, default=12, help="enough for one case and type")
    parser.add_argument(
        "--whole-up-to", type=int, default=16384, help="longest prefill that is run whole"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        run = read_run(options.run)
    except BadRun as error:
        print(error, file=sys.stderr)
        return 2
    import torch

    torch.set_num_threads(run["machine"]["threads"])
    torch.manual_seed(1)
    types = list(dict.fromkeys(["float32", run["layer"]["kv_type"]]))
    for number, case in enumerate(run["cases"], 1):
        if sys.stderr.isatty():
            print(f"\r{number} of {len(run['cases'])} cases", end="", file=sys.stderr)
        found = [measure(run, case, name, options) for name in types]
        case["peers"] = [peer for peer in found if peer is not None]
    if sys.stderr.isatty():
        print(file=sys.stderr)
    write_whole(options.run, json.dumps(run, indent=2, sort_keys=True) + "\n")
    print(table(run))
    print("~: own times are sampled. Peers are dense attention, one call of PyTorch each.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
