"""Times of public kernels on the same GPU, at the same shapes, in the same run.

    python3 bench/cuda/peers.py [--sizes 8192,32768,131072] [--json FILE]

dense   causal attention through PyTorch's cuDNN path, 64/4 heads, D 128, bf16: the ratio that counts
topk    torch.topk of [4 N, N / 128] block scores, k = 16: what a fused selection avoids
flex    FlexAttention with a block mask from random picks of one group (the picks of all groups
        cannot be said in one mask); only at 8K: it compiles for minutes elsewhere

Medians, CUDA events, L2 flushed before every repeat. A peer that cannot run is reported, not hidden.
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch

HEADS, GROUPS, DIM, BLOCK, TOP_K = 64, 4, 128, 128, 16


def median_ms(body, repeats: int) -> float:
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
    rows = min(GROUPS * size, 131072)
    scores = torch.randn(rows, size // BLOCK, device="cuda")
    return median_ms(lambda: torch.topk(scores, TOP_K), repeats) * GROUPS * size / rows


def flex_ms(size: int, repeats: int) -> float:
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
    block_mask = create_block_mask(mask, None, None, size, size, device="cuda", _compile=True)
    compiled = torch.compile(flex_attention)
    with torch.no_grad():
        return median_ms(lambda: compiled(q, k, v, block_mask=block_mask, enable_gqa=True), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="8192,32768,131072")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    print(torch.__version__, torch.cuda.get_device_name())
    results = []
    for size in (int(text) for text in arguments.sizes.split(",")):
        row = {"n": size}
        for name, body, largest in (
            ("dense_ms", dense_ms, 262144),
            ("topk_ms", topk_ms, 1 << 20),
            ("flex_ms", flex_ms, 8192),
        ):
            if size > largest:
                continue
            try:
                row[name] = body(size, 5 if size <= 32768 else 3)
            except (
                AttributeError,
                ImportError,
                RuntimeError,
            ) as error:  # a peer may lack a kernel for this shape
                row[name] = None
                row[name + "_error"] = str(error).splitlines()[0]
        results.append(row)
        print(row, flush=True)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
