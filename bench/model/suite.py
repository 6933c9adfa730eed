"""The acceptance table of the shipped model: every `msa eval` run that it needs, then one table.

    python3 bench/model/suite.py --msa build/release/bin/msa --jobs 8 --out runs/eval [--model FOLDER] [--only NAME ...]

A run is one process of one thread (MSA_THREADS=1), --jobs of them at a time. Its JSON is kept in --out, and a run whose
JSON is there is not done again, so a suite that was cut off goes on. Runs of one row add up: "needle 32K" is ten
documents that are asked with both attentions and ten more. --summary writes the numbers, also by depth and by kind of
value, and the commands as JSON. Status 1 if a figure is missed.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import time
from pathlib import Path

# Runs of one kind: name, arguments of `msa eval`, documents in all, documents of one run, seed of the first run.
# Those that take longest come first, so that the last worker does not end long after the others.
KINDS = (
    ("needle-128K", "needle --length 128K", 5, 1, 300),
    *(
        (f"{task}-both", f"{task} --length 32K --attention both", 10, 2, 100)
        for task in ("needle", "multikey", "multivalue", "tracking")
    ),
    ("controls", "needle --length 32K --control removed random-blocks", 10, 2, 110),
    ("needle-64K", "needle --length 64K", 20, 2, 200),
    ("value-first", "needle --kind value_first --length 32K", 20, 5, 120),
    *(
        (f"{task}-more", f"{task} --length 32K", 10, 5, 120)
        for task in ("multikey", "multivalue", "tracking")
    ),
    ("multikey-255", "multikey --distractors 255 --length 32K", 20, 4, 130),
    ("heldout", "needle --phrasings heldout --length 32K", 20, 4, 140),
    ("needle-16K", "needle --length 16K", 20, 10, 150),
    ("needle-8K", "needle --length 8K", 20, 10, 160),
    ("typed", "needle --length 32K --facts-file cli/typed_facts.txt", 1, 1, 100),
)
RUNS_OF = {
    name: tuple(f"{name}-{part}" for part in range(documents // each))
    for name, _, documents, each, _ in KINDS
}
RUNS = {
    run: f"{arguments} --documents {each} --seed {seed + part}"
    for name, arguments, _, each, seed in KINDS
    for part, run in enumerate(RUNS_OF[name])
}

# (row, kinds whose trials add up, length, attention, control, share demanded: at least, or below when negative)
TABLE = (
    ("needle 8K", ("needle-8K",), 8192, "sparse", "none", 0.99),
    ("needle 16K", ("needle-16K",), 16384, "sparse", "none", 0.99),
    ("needle 32K", ("needle-both", "controls"), 32768, "sparse", "none", 0.99),
    ("needle 64K", ("needle-64K",), 65536, "sparse", "none", 0.99),
    ("needle 128K", ("needle-128K",), 131072, "sparse", "none", 0.96),
    ("phrasings held out 32K", ("heldout",), 32768, "sparse", "none", 0.93),
    ("typed facts 32K", ("typed",), 32768, "sparse", "none", 0.85),
    ("value first 32K", ("value-first",), 32768, "sparse", "none", 0.90),
    ("31 distractors 32K", ("multikey-both", "multikey-more"), 32768, "sparse", "none", 0.98),
    ("255 distractors 32K", ("multikey-255",), 32768, "sparse", "none", 0.95),
    ("three values 32K", ("multivalue-both", "multivalue-more"), 32768, "sparse", "none", 0.85),
    ("chains of three 32K", ("tracking-both", "tracking-more"), 32768, "sparse", "none", 0.80),
    ("control: fact removed", ("controls",), 32768, "sparse", "removed", -0.02),
    (
        "control: random blocks",
        ("controls",),
        32768,
        "sparse",
        "random-blocks",
        -0.20,
    ),
)
PAIRED = ("needle", "multikey", "multivalue", "tracking")
MOST_BELOW_DENSE = 0.02


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--msa", type=Path, required=True, help="the program")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs' JSON")
    parser.add_argument("--model", type=Path, help="model folder (default: the shipped one)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=sorted(RUNS_OF), help="these kinds alone")
    parser.add_argument("--skip", nargs="+", choices=sorted(RUNS_OF), default=[])
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after this time")
    parser.add_argument("--summary", type=Path, help="write the table's numbers here")
    return parser.parse_args()


def run(options, name, began):
    """Seconds taken, or None where the run was there already or the time was over."""
    path = options.out / f"{name}.json"
    if path.exists() or time.monotonic() - began > options.seconds:
        return None
    command = [str(options.msa), "eval", *RUNS[name].split(), "--json"]
    if options.model:
        command += ["--model", str(options.model)]
    start = time.monotonic()
    environment = os.environ | {"MSA_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"[suite] {name}: status {done.returncode}, {done.stderr.strip()}")
    temporary = path.with_suffix(".tmp")
    temporary.write_text(done.stdout)
    temporary.replace(path)
    return time.monotonic() - start


def load(folder):
    return {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in RUNS
        if (folder / f"{name}.json").exists()
    }


def chosen(results, kinds, length, attention, control):
    """(entries of the runs that are there, whether all runs are there)."""
    runs = [run for kind in kinds for run in RUNS_OF[kind]]
    entries = [entry for run in runs for entry in results.get(run, {"results": []})["results"]]
    wanted = (length, attention, control)
    fitting = [e for e in entries if (e["length"], e["attention"], e["control"]) == wanted]
    return fitting, all(run in results for run in runs)


def count(entries):
    """(right, trials)"""
    return tuple(sum(entry[part] for entry in entries) for part in ("right", "trials"))


def by_depth(entries):
    """[right, trials] of each fifth of the document, from its top."""
    fifths = [[0, 0] for _ in range(5)]
    for entry in entries:
        for tenth, found in enumerate(entry["by_depth_tenth"]):
            fifths[tenth // 2][0] += found["right"]
            fifths[tenth // 2][1] += found["total"]
    return fifths


def by_kind(entries):
    """{kind of value: [right, trials]}"""
    kinds = {}
    for entry in entries:
        for kind, found in entry["by_kind"].items():
            right, trials = kinds.get(kind, (0, 0))
            kinds[kind] = [right + found["right"], trials + found["total"]]
    return kinds


def table(results):
    """Rows of the table: {row, right, trials, by depth and kind of value, demanded, met}."""
    rows = []
    for row, kinds, length, attention, control, demanded in TABLE:
        entries, whole = chosen(results, kinds, length, attention, control)
        right, trials = count(entries)
        share = right / trials if trials else 0.0
        met = whole and (share >= demanded if demanded > 0 else share < -demanded)
        rows.append(
            {
                "row": row,
                "right": right,
                "trials": trials,
                "by_depth_fifth": by_depth(entries),
                "by_kind": by_kind(entries),
                "whole": whole,
                "demanded": demanded,
                "met": met,
            }
        )
    for task in PAIRED:
        kinds = (f"{task}-both",)
        entries, whole = chosen(results, kinds, 32768, "sparse", "none")
        right, trials = count(entries)
        dense, _ = count(chosen(results, kinds, 32768, "dense", "none")[0])
        met = whole and trials > 0 and (dense - right) / trials <= MOST_BELOW_DENSE
        row = {"row": f"dense beside it: {task}", "right": right, "trials": trials, "dense": dense}
        rows.append(row | {"whole": whole, "met": met})
    return rows


def line(row):
    if "dense" in row:
        demanded = f"dense {row['dense']}, at most 2 points above"
    else:
        sign = "at least" if row["demanded"] > 0 else "below"
        demanded = f"{sign} {abs(row['demanded']) * 100:g} %"
    share = f"{100 * row['right'] / row['trials']:.1f} %" if row["trials"] else "-"
    state = "met" if row["met"] else "NOT MET" if row["whole"] else "not whole"
    return f"| {row['row']} | {row['right']} of {row['trials']} | {share} | {demanded} | {state} |"


def summary(about, rows, commands):
    """JSON with a row or a command a line."""
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items()]
    parts.append('"rows": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n]")
    pairs = [f"{json.dumps(name)}: {json.dumps(command)}" for name, command in commands.items()]
    parts.append('"commands": {\n  ' + ",\n  ".join(pairs) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main():
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    kinds = [kind for kind in options.only or RUNS_OF if kind not in options.skip]
    names = [name for kind in kinds for name in RUNS_OF[kind]]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        waiting = {pool.submit(run, options, name, began): name for name in names}
        for done, future in enumerate(concurrent.futures.as_completed(waiting), 1):
            seconds = future.result()
            if seconds is not None:
                print(
                    f"{done}/{len(names)} {waiting[future]}: {seconds:.0f} s, "
                    f"{time.monotonic() - began:.0f} s since the start",
                    file=sys.stderr,
                )
    results = load(options.out)
    rows = table(results)
    print("| what | right | share | demanded | |\n| --- | --- | --- | --- | --- |")
    print("\n".join(map(line, rows)))
    if options.summary:
        about = {
            "date": time.strftime("%Y-%m-%d"),
            "model": str(options.model or "models/msa-mini"),
        }
        commands = {name: f"msa eval {RUNS[name]}" for name in results}
        options.summary.write_text(summary(about, rows, commands))
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
