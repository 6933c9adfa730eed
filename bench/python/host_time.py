"""Host time of one op call from Python, outputs and workspace given: python bench/python/host_time.py

Prints one line for each op: median microseconds of a call on one row, where the kernel has next to
nothing to do, and beside it the same call on no rows at all, which is the binding and the checks
alone. On a GPU (--device cuda) the call returns when the kernel is queued, so the time is the
host's; the queue is drained between batches. --limit 15 makes the status 1 when an op takes longer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import msa_cpp
import torch

HEADS, GROUPS, DIM, BLOCK, TOP_K, CONTEXT = 64, 4, 128, 128, 16, 128


def microseconds(call, batches: int, calls: int, device: str) -> float:
    """Median over batches of the mean time of a call."""
    times = []
    for _ in range(batches):
        if device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - begin) / calls * 1e6)
    return statistics.median(times)


def make_calls(rows: int, device: str, dtype: torch.dtype) -> dict:
    """Each op as a call without arguments, on `rows` rows of one request."""

    def zeros(*shape, dtype=dtype):
        return torch.zeros(*shape, dtype=dtype, device=device)

    q, out, lse = zeros(rows, HEADS, DIM), zeros(rows, HEADS, DIM), zeros(rows, HEADS).float()
    k, v = zeros(CONTEXT, GROUPS, DIM), zeros(CONTEXT, GROUPS, DIM)
    q_idx, k_idx = zeros(rows, GROUPS, DIM), zeros(CONTEXT, DIM)
    ids = zeros(GROUPS, rows, TOP_K, dtype=torch.int32)
    cu_q = torch.tensor([0, rows], dtype=torch.int32, device=device)
    cu_k = torch.tensor([0, min(CONTEXT, BLOCK)], dtype=torch.int32, device=device)
    table, lengths = zeros(1, 1, dtype=torch.int32), cu_k[1:]
    caches = {
        "k_cache": zeros(1, BLOCK, GROUPS, DIM), "v_cache": zeros(1, BLOCK, GROUPS, DIM),
        "k_idx_cache": zeros(1, BLOCK, DIM),
    }  # fmt: skip
    new = {"k": zeros(rows, GROUPS, DIM), "v": zeros(rows, GROUPS, DIM), "k_idx": zeros(rows, DIM)}
    plan = msa_cpp.plan(
        num_q_heads=HEADS, num_kv_heads=GROUPS, head_dim=DIM, index_dim=DIM, top_k=TOP_K,
        max_tokens=max(rows, 1), max_keys=CONTEXT, dtype=dtype, device=device,
    )  # fmt: skip
    workspace = plan.new_workspace()
    return {
        "index_select_blocks": lambda: msa_cpp.index_select_blocks(
            q_idx, k_idx, cu_q, cu_k, top_k=TOP_K, block_ids=ids, workspace=workspace
        ),
        "msa_attention": lambda: msa_cpp.msa_attention(
            q, k, v, ids, cu_q, cu_k, out=out, lse=lse, workspace=workspace
        ),
        "dense_attention": lambda: msa_cpp.dense_attention(
            q, k, v, cu_q, cu_k, out=out, lse=lse, workspace=workspace
        ),
        "cache_append": lambda: msa_cpp.cache_append(cu_q, table, lengths, **new, **caches),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batches", type=int, default=21)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--limit", type=float, help="microseconds that no op may exceed")
    options = parser.parse_args()
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    print(f"{msa_cpp.description(device=options.device)}; torch {torch.__version__}; {dtype}")
    slow = False
    with torch.no_grad():
        one = make_calls(1, options.device, dtype)
        none = make_calls(0, options.device, dtype)
        for name, call in one.items():
            sizes = (options.batches, options.calls, options.device)
            row, empty = microseconds(call, *sizes), microseconds(none[name], *sizes)
            host = row if options.device == "cuda" else empty
            slow = slow or (options.limit is not None and host > options.limit)
            print(f"{name:20}  one row {row:7.2f} us   no rows {empty:7.2f} us")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
