"""Draws the kernels of one results file under the card's two roofs.

    python3 bench/cuda/roofline.py bench/results/FILE.json docs/hopper-roofline.png

Across: FLOP for each byte that memory has to move. A filled mark counts what the kernel's design
moves (partial rows out and in, keys read again by each chunk), a hollow one every input and output
once. Up: TFLOP/s of useful work, from the file: `table` (index, random picks, neighbours that keep
0.9 of theirs), `dense`, and cuDNN's dense attention from `peers`. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HEADS, GROUPS, DIM, BLOCK, TOP_K = 64, 4, 128, 128, 16
MEMORY_TB = 4.25  # copy, read and written
TENSOR_TF = 799  # bf16 matrix product of 8192^3
CHUNK = 8192  # rows of a pass


def attend_flop(n: int) -> float:
    full = min(n, TOP_K * BLOCK)
    return 4.0 * HEADS * DIM * (full * (full + 1) / 2 + (n - full) * full)


def io_bytes(n: int) -> float:
    """q, k, v, ids in; out and lse out."""
    return n * (2 * HEADS * DIM * 2 + 2 * GROUPS * DIM * 2 + GROUPS * TOP_K * 4 + HEADS * 4.0)


def gathered_bytes(n: int) -> float:
    partial = 2.0 * n * HEADS * TOP_K * (DIM * 2 + 4)
    keys = 2 * GROUPS * DIM * 2.0 * n * max(1.0, n / CHUNK) / 2
    return partial + io_bytes(n) + keys


def label(n: int) -> str:
    return "1M" if n == 1 << 20 else f"{n >> 10}K"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results")
    parser.add_argument("picture")
    arguments = parser.parse_args()
    with open(arguments.results, encoding="utf-8") as file:
        results = json.load(file)

    figure, axes = plt.subplots(figsize=(9, 5.2), layout="constrained")
    across = [30, TENSOR_TF / MEMORY_TB, 1e6]
    axes.plot(across, [min(TENSOR_TF, MEMORY_TB * x) for x in across], color="black", linewidth=1.5)
    axes.text(36, 36 * MEMORY_TB * 1.12, f"{MEMORY_TB} TB/s", rotation=37, fontsize=9)
    axes.text(2e5, TENSOR_TF * 1.03, f"{TENSOR_TF} TFLOP/s", fontsize=9)

    def draw(name: str, color: str, points: list[tuple[int, float, float, float]]) -> None:
        """points: N, TFLOP/s, FLOP a byte as designed and at best."""
        for i, (n, rate, intensity, ideal) in enumerate(points):
            axes.plot([intensity, ideal], [rate, rate], color=color, linewidth=0.6, alpha=0.6)
            axes.plot(ideal, rate, "o", color=color, markerfacecolor="white", markersize=6)
            axes.plot(
                intensity, rate, "o", color=color, markersize=6, label=name if i == 0 else None
            )
            if i in (0, len(points) - 1):
                axes.annotate(
                    label(n),
                    (intensity, rate),
                    (-9 if i == 0 else 9, -12),
                    textcoords="offset points",
                    fontsize=7,
                    ha="center",
                    color=color,
                )

    index, random_picks, neighbours, dense = [], [], [], []
    for row in results["table"]:
        n = row["n"]
        flop = 512.0 * n * n
        least = n * (GROUPS * DIM * 2 + DIM * 2 + GROUPS * TOP_K * 4.0)
        if row["index_tf"] > 0:
            index.append((n, row["index_tf"], flop / least, flop / least))
        flop = attend_flop(n)
        ideal = flop / io_bytes(n)
        random_picks.append((n, row["attend_random_tf"], flop / gathered_bytes(n), ideal))
        neighbours.append((n, row["attend_keep09_tf"], ideal, ideal))
    for row in results["dense"]:
        n = row["n"]
        flop = 2.0 * HEADS * DIM * n * n
        dense.append((n, row["dense_tf"], flop / io_bytes(n), flop / io_bytes(n)))
    draw("index + top-k", "tab:blue", index)
    draw("attend, random picks (gathered)", "tab:red", random_picks)
    draw("attend, neighbours keep 0.9 (query tiles)", "tab:green", neighbours)
    draw("dense attention", "tab:gray", dense)
    peers = []
    for row in results["peers"]:
        if row.get("peer") == "dense" and "ms" in row:
            n = row["n"]
            flop = 2.0 * HEADS * DIM * n * n
            peers.append((n, flop / row["ms"] * 1e-9, flop / io_bytes(n), flop / io_bytes(n)))
    draw("dense attention, cuDNN", "tab:orange", peers)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(100, 1000)
    axes.set_xlim(30, 1e6)
    axes.set_yticks([100, 200, 300, 400, 600, 800], ["100", "200", "300", "400", "600", "800"])
    axes.minorticks_off()
    axes.set_xlabel(
        "FLOP a byte of memory traffic (filled: as designed; hollow: all inputs and outputs once)"
    )
    axes.set_ylabel("TFLOP/s of useful work")
    axes.set_title(
        f"{results['gpu']}, {results['date']}: 64/4 heads, D 128, blocks of 128, K 16, bf16",
        fontsize=10,
    )
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.25)
    figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
