"""The figures of `msa bench` as Markdown: python3 tools/bench_table.py RUN.json [...]

Prints the table of docs/bench.md: a row for each context, with index, attend, layer and dense
attention of prefill and decode, how many times faster the layer is, and how many times it would be
were both as fast as the machine allows. Where bench/peers/sdpa.py has joined PyTorch, its best time
has a column. ~ marks what was sampled. Several runs of one layer make one table; of a context that
two runs have, the later run counts.
"""

from __future__ import annotations

import sys

from draw_bench import BadRun, cases_of, read_run, short_count, short_seconds

OPS = ("index", "attend", "layer", "dense")
PHASES = ("prefill", "decode")


def times_cell(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def peer_seconds(case: dict) -> float | None:
    return min((peer["seconds"] for peer in case.get("peers", [])), default=None)


def phase_cells(case: dict | None, has_peers: bool) -> list[str]:
    if case is None:
        return ["-"] * (len(OPS) + 2 + has_peers)
    seconds = {op["op"]: op["seconds"] for op in case["ops"]}
    cells = [short_seconds(seconds[name]) if name in seconds else "-" for name in OPS]
    if has_peers:
        peer = peer_seconds(case)
        cells.append("-" if peer is None else short_seconds(peer))
    return [
        *cells,
        times_cell(case.get("times_faster")),
        times_cell(case.get("floor_times_faster")),
    ]


def table(runs: list[dict]) -> str:
    by_phase = {
        phase: {case["context"]: case for case in cases_of(runs, phase)} for phase in PHASES
    }
    contexts = sorted(set().union(*by_phase.values()))
    if not contexts:
        raise BadRun("got no prefill and no decode of single requests, allowed some")
    has_peers = any("peers" in case for cases in by_phase.values() for case in cases.values())
    titles = [*OPS, *(["PyTorch"] if has_peers else []), "faster", "at the roofs"]
    heads = ["context"]
    for phase in PHASES:
        heads += [f"{phase}: {titles[0]}", *titles[1:]]
    lines = [heads, ["---"] * len(heads)]
    for context in contexts:
        cases = [by_phase[phase].get(context) for phase in PHASES]
        sampled = any(case is not None and case["method"] == "sampled" for case in cases)
        row = [short_count(context) + (" ~" if sampled else "")]
        for case in cases:
            row += phase_cells(case, has_peers)
        lines.append(row)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    names = sys.argv[1:] if arguments is None else arguments
    if not names:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    try:
        print(table([read_run(name) for name in names]))
    except BadRun as error:
        print(f"bench_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
