"""Times of public kernels on the same GPU, at the same shapes, in the same run.

    python3 bench/cuda/peers.py [--sizes 8192,32768,131072] [--limits dense=60,topk=40,flex=90]
                                [--json FILE]

dense   causal attention through PyTorch's cuDNN path, 64/4 heads, D 128, bf16: the ratio that counts
topk    torch.topk of [4 N, N / 128] block scores, k = 16: what a fused selection avoids
flex    FlexAttention with a block mask from random picks of one group (the picks of all groups
        cannot be said in one mask); only at 8K

Medians, CUDA events, L2 flushed before every repeat. Each peer runs in a process of its own, from its
import on no longer than its limit in seconds: what it has not measured by then is reported as dropped,
what it cannot run with its error. Neither is hidden.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

HEADS, GROUPS, DIM, BLOCK, TOP_K = 64, 4, 128, 128, 16


def median_ms(body, repeats: int) -> float:
    import torch

    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    times = []
    for n in range(repeats + 1):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        body()
        end.record()
        end.synchronize()
        if n > 0:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def dense_ms(size: int, repeats: int) -> float:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q = torch.randn(1, HEADS, size, DIM, device="cuda", dtype=torch.bfloat16)
    k, v = (
        torch.randn(1, GROUPS, size, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2)
    )

    def body():
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    with torch.no_grad(), sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return median_ms(body, repeats)


def topk_ms(size: int, repeats: int) -> float:
    import torch

    rows = min(GROUPS * size, 131072)
    scores = torch.randn(rows, size // BLOCK, device="cuda")
    return median_ms(lambda: torch.topk(scores, TOP_K), repeats) * GROUPS * size / rows


def flex_ms(size: int, repeats: int) -> float:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    blocks = size // BLOCK
    generator = torch.Generator(device="cuda").manual_seed(11)
    noise = torch.rand(size, blocks, device="cuda", generator=generator)
    local = torch.arange(size, device="cuda") // BLOCK
    noise[torch.arange(blocks, device="cuda")[None, :] > local[:, None]] = -1
    picked = torch.zeros(size, blocks, dtype=torch.bool, device="cuda")
    picked.scatter_(1, noise.topk(min(TOP_K, blocks)).indices, True)
    picked[torch.arange(size, device="cuda"), local] = True

    def mask(_batch, _head, query, key):
        return (query >= key) & picked[query, key // BLOCK]

    q = torch.randn(1, HEADS, size, DIM, device="cuda", dtype=torch.bfloat16)
    k, v = (
        torch.randn(1, GROUPS, size, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2)
    )
    # Not compiled: that took longer than all else here. It writes out size^2 flags.
    block_mask = create_block_mask(mask, None, None, size, size, device="cuda")
    compiled = torch.compile(flex_attention)
    with torch.no_grad():
        return median_ms(lambda: compiled(q, k, v, block_mask=block_mask, enable_gqa=True), repeats)


# Largest size, and what measures it.
PEERS = {"dense": (262144, dense_ms), "topk": (1 << 20, topk_ms), "flex": (8192, flex_ms)}


def measure(name: str, sizes: list[int]) -> None:
    """The child: one line of JSON for each size."""
    import torch

    print(json.dumps({"torch": torch.__version__, "gpu": torch.cuda.get_device_name()}), flush=True)
    largest, body = PEERS[name]
    for size in sizes:
        if size > largest:
            continue
        row: dict = {"peer": name, "n": size}
        try:
            row["ms"] = body(size, 5 if size <= 32768 else 3)
        except (AttributeError, ImportError, RuntimeError) as error:
            row["error"] = str(error).splitlines()[0][:300]  # it may lack a kernel for this shape
        print(json.dumps(row), flush=True)


def run_peer(name: str, sizes: list[int], limit: float) -> list[dict]:
    """All lines that the child wrote within its limit, and one for each size that it did not."""
    command = [sys.executable, __file__, "--sizes", ",".join(map(str, sizes)), "--measure", name]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as lines, tempfile.TemporaryFile("w+") as complaints:
        try:
            status = subprocess.run(
                command, stdout=lines, stderr=complaints, timeout=limit, check=False
            ).returncode
            why = f"ended with status {status}"
        except subprocess.TimeoutExpired:
            why = f"dropped after {time.monotonic() - began:.0f} s"
        lines.seek(0)
        rows = [json.loads(line) for line in lines.read().splitlines() if line.endswith("}")]
        complaints.seek(0)
        last = complaints.read().splitlines()[-1:]
    measured = {row.get("n") for row in rows}
    for size in sizes:
        if size <= PEERS[name][0] and size not in measured:
            rows.append({"peer": name, "n": size, "error": " ".join([why, *last])[:300]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="8192,32768,131072")
    parser.add_argument(
        "--limits", default="dense=60,topk=40,flex=90", help="seconds for each peer"
    )
    parser.add_argument("--json")
    parser.add_argument("--measure", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [int(text) for text in arguments.sizes.split(",")]
    if arguments.measure:
        measure(arguments.measure, sizes)
        return
    results = []
    for limit in arguments.limits.split(","):
        name, _, seconds = limit.partition("=")
        if name not in PEERS or not seconds.isdigit():
            parser.error(
                f"--limits: got {limit!r}, allowed PEER=SECONDS with a peer of {list(PEERS)}"
            )
        for row in run_peer(name, sizes, float(seconds)):
            results.append(row)
            print(row, flush=True)
        if arguments.json:
            with open(arguments.json, "w", encoding="utf-8") as file:
                json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
