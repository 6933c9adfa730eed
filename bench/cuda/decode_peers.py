"""Times of public kernels at the shapes of cuda_decode_bench, in the same visit.

    python3 bench/cuda/decode_peers.py [--seconds 60] [--json FILE]

topk    torch.topk of random float32 scores, the seed's selection
dense   decode of one query over all keys through PyTorch's cuDNN and flash paths, 64/4 heads, D 128, bf16

Medians, CUDA events, L2 flushed before every repeat. What does not run is reported with its error;
what time does not allow is left out by name.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

SELECT = [(131072, 1024, 16), (262144, 2048, 16), (524288, 4096, 16), (131072, 2048, 32)]
DENSE = [(1, 131072), (1, 1048576)]


def median_us(body, repeats: int) -> float:
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
            times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


def topk_us(rows: int, columns: int, k: int) -> float:
    import torch

    scores = torch.randn(rows, columns, device="cuda")
    return median_us(lambda: torch.topk(scores, k, dim=-1, sorted=False), 3)


def dense_us(batch: int, keys: int, backend: str) -> float:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q = torch.randn(batch, 64, 1, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, 4, keys, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    which = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}[backend]
    with torch.no_grad(), sdpa_kernel(which):
        return median_us(
            lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True), 7
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    lines = []
    jobs = [
        ({"peer": "torch.topk", "rows": r, "columns": c, "top_k": k}, topk_us, (r, c, k))
        for r, c, k in SELECT
    ]
    jobs += [
        ({"peer": f"dense {name}", "batch": b, "keys": n}, dense_us, (b, n, name))
        for b, n in DENSE
        for name in ("cudnn", "flash")
    ]
    for line, function, values in jobs:
        if time.monotonic() > end:
            line["dropped"] = "no time left"
        else:
            try:
                line["us"] = round(function(*values), 2)
            except (ImportError, RuntimeError, TypeError) as error:  # a result, too
                line["error"] = str(error)[:300]
        print(line, flush=True)
        lines.append(line)
        if arguments.json:
            with open(arguments.json, "w") as file:
                json.dump(lines, file, indent=1)


if __name__ == "__main__":
    main()
