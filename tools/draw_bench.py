"""Draws time against context length: python3 tools/draw_bench.py CURVE.json [...] PICTURE.png

Reads what `msa bench --context 1K 2K ... 1M --json > CURVE.json` wrote, one file or several of one
layer, and draws two log-log panels: reading the whole context (prefill), and one more token after
it (decode). Dots are whole runs; rings are sampled: query tiles at even distances, integrated. A
cross is a whole run of a length that was also sampled (msa bench --whole). Peers that
bench/peers/sdpa.py wrote into a file are drawn too.

Needs matplotlib alone (tools/requirements-picture.txt). The background is opaque, so that the
picture is the same on light and on dark pages.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from pathlib import Path

PAPER, INK, FAINT, GRID = "#fbfaf7", "#22262b", "#6b7178", "#dcd9d0"
DENSE, LAYER, INDEX, ATTEND, PEER = "#b3261e", "#1f5fa8", "#5aa05a", "#c08a2b", "#8a63b0"
SERIES = (
    ("dense", "dense attention", DENSE, "-", 2.2),
    ("layer", "MSA: index + attend", LAYER, "-", 2.2),
    ("index", "index branch", INDEX, "--", 1.3),
    ("attend", "attend", ATTEND, ":", 1.6),
)
PANELS = (("prefill", "reading the whole context"), ("decode", "one more token"))
DOTS_PER_INCH = 150


class BadRun(Exception):
    """What was read is no run of msa bench with a curve in it."""


def read_run(path: str) -> dict:
    try:
        run = json.loads(Path(path).read_text(encoding="utf-8"))
        if run["format"] != "msa-bench-1":
            raise ValueError(f"format {run['format']!r}")
        for case in run["cases"]:
            (case["phase"], case["context"], case["method"], case["queries"], case["ops"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRun(f"{path}: got no JSON of `msa bench --json`: {error!r}") from error
    return run


def cases_of(runs: list[dict], phase: str) -> list[dict]:
    """The curve's cases: single requests, and of decode a single query."""
    return [
        case
        for run in runs
        for case in run["cases"]
        if case["phase"] == phase and case["batch"] == 1
        if phase == "prefill" or case["queries"] == 1
    ]


def points(cases: list[dict], name: str) -> list[tuple[int, float, bool]]:
    """(context, seconds, sampled), by context; of a length measured twice the sampled one."""
    best: dict[int, tuple[float, bool]] = {}
    for case in cases:
        for op in case["ops"]:
            if op["op"] != name:
                continue
            if "sampled_seconds" in op:  # the whole run that checks the sampling
                best.setdefault(case["context"], (op["sampled_seconds"], True))
            elif case["method"] == "sampled" or case["context"] not in best:
                best[case["context"]] = (op["seconds"], case["method"] == "sampled")
    return [(context, *best[context]) for context in sorted(best)]


def checks(cases: list[dict], name: str) -> list[tuple[int, float, float]]:
    """(context, whole seconds, sampling difference) of the runs that check the sampling."""
    return [
        (case["context"], op["seconds"], op["sampling_difference"])
        for case in cases
        for op in case["ops"]
        if op["op"] == name and "sampling_difference" in op
    ]


def peer_points(cases: list[dict]) -> dict[str, list[tuple[int, float, bool]]]:
    peers: dict[str, list[tuple[int, float, bool]]] = {}
    for case in sorted(cases, key=lambda case: case["context"]):
        for peer in case.get("peers", []):
            point = (case["context"], peer["seconds"], peer["method"] == "sampled")
            peers.setdefault(peer["name"], []).append(point)
    return peers


def short_count(count: float) -> str:
    for unit, size in (("M", 1 << 20), ("K", 1 << 10)):
        if count >= size:
            return f"{count / size:g}{unit}"
    return f"{count:g}"


def short_seconds(seconds: float, most: float = 180.0) -> str:
    """Three digits and a unit; minutes from `most` seconds on."""
    if seconds >= most:
        return f"{seconds / 60:.3g} min"
    for unit, scale in (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if seconds < 999.5 * scale:
            return f"{float(f'{seconds / scale:.3g}'):g} {unit}"
    return f"{seconds:g} s"


def draw_line(axes, line, label, color, style, width):
    contexts, seconds, _ = zip(*line, strict=True)
    line_style = {"linestyle": style, "linewidth": width, "color": color}
    axes.plot(contexts, seconds, label=label, zorder=3, **line_style)
    for context, second, ring in line:
        face = PAPER if ring else color
        axes.plot(context, second, "o", color=color, markerfacecolor=face, markersize=5.5, zorder=4)
    return contexts[-1], seconds[-1]


def draw_panel(axes, cases: list[dict], title: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    ends = {}
    for name, label, color, style, width in SERIES:
        line = points(cases, name)
        if line:
            ends[name] = draw_line(axes, line, label, color, style, width)
    for number, (name, line) in enumerate(sorted(peer_points(cases).items())):
        draw_line(axes, line, name, PEER, ("-.", (0, (1, 1)))[number % 2], 1.3)
    for name, color in (("dense", DENSE), ("layer", LAYER)):
        for context, seconds, _ in checks(cases, name):
            axes.plot(context, seconds, "x", color=INK, markersize=8, markeredgewidth=1.6, zorder=5)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    contexts = sorted({case["context"] for case in cases})
    axes.xaxis.set_major_locator(FixedLocator(contexts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=20))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_seconds(value, math.inf)))
    axes.set_xlim(contexts[0] / 1.25, contexts[-1] * 3.2)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_title(title, color=INK, fontsize=12, loc="left")
    axes.set_xlabel("tokens of context", color=INK, fontsize=10.5)
    axes.tick_params(colors=INK, labelsize=9.5, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for name in ("dense", "layer"):
        if name in ends:
            context, seconds = ends[name]
            color = DENSE if name == "dense" else LAYER
            text = axes.annotate(short_seconds(seconds), (context, seconds), (8, -3))
            text.set(color=color, fontsize=10.5, fontweight="bold")
            text.set_anncoords("offset points")
    if {"dense", "layer"} <= ends.keys():
        (context, slow), (_, fast) = ends["dense"], ends["layer"]
        middle = (slow * fast) ** 0.5
        axes.annotate(
            f"{slow / fast:.1f}x",
            (context, middle),
            (8, -4),
            textcoords="offset points",
            color=INK,
            fontsize=13,
            fontweight="bold",
        )


def caption(runs: list[dict], all_cases: list[dict]) -> str:
    layer, machine = runs[0]["layer"], runs[0]["machine"]
    text = (
        f"{layer['q_heads']} query heads on {layer['kv_heads']} KV heads of {layer['head_dim']}, "
        f"{layer['top_k']} blocks of {layer['block_size']} tokens a query, {layer['q_type']} "
        f"queries, {layer['kv_type']} caches; {machine['threads']} threads, {machine['cpu']}, "
        f"{runs[0]['date']}.\nDots: measured whole. Rings: sampled, query tiles at even distances "
        "stand for all."
    )
    found = checks(all_cases, "layer") + checks(all_cases, "dense")
    if found:
        worst = max(found, key=lambda check: abs(check[2]))
        text += (
            f" Crosses: whole runs at {short_count(worst[0])}; sampling is within "
            f"{100 * abs(worst[2]):.1f} % of them."
        )
    return text


def draw(runs: list[dict]) -> bytes:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(phase, title, cases_of(runs, phase)) for phase, title in PANELS]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        raise BadRun("got no prefill and no decode of single requests, allowed some")
    figure, grid = plt.subplots(1, len(panels), figsize=(6.0 * len(panels), 5.6), squeeze=False)
    figure.patch.set_facecolor(PAPER)
    for axes, (_, title, cases) in zip(grid[0], panels, strict=True):
        axes.set_facecolor(PAPER)
        draw_panel(axes, cases, title)
    grid[0][0].set_ylabel("time, one attention layer", color=INK, fontsize=10.5)
    legend = grid[0][0].legend(loc="upper left", frameon=False, fontsize=10)
    for text in legend.get_texts():
        text.set_color(INK)
    everything = [case for panel in panels for case in panel[2]]
    figure.text(0.012, 0.015, caption(runs, everything), color=FAINT, fontsize=8.8, va="bottom")
    figure.tight_layout(rect=(0, 0.075, 1, 1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, facecolor=PAPER)
    plt.close(figure)
    return buffer.getvalue()


def main(arguments: list[str] | None = None) -> int:
    names = sys.argv[1:] if arguments is None else arguments
    if len(names) < 2:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    try:
        picture = draw([read_run(name) for name in names[:-1]])
        target = Path(names[-1])
        new = target.with_name(target.name + ".new")
        new.write_bytes(picture)
        os.replace(new, target)
    except (BadRun, OSError) as error:
        print(f"draw_bench: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
