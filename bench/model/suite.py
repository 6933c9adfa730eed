"""The acceptance table of the shipped model: every `msa eval` run that it needs, then one table.

    python3 bench/model/suite.py --msa build/release/bin/msa --jobs 8 --out runs/eval [--model FOLDER] [--only NAME ...]

A run is one process of one thread (MSA_THREADS=1), --jobs of them at a time. Its JSON is kept in --out, and a run whose
JSON is there is not done again, so a suite that was cut off goes on. Runs of one row add up: "needle 32K" is ten
documents that are asked with both attentions and ten more. --summary writes the numbers as JSON. Status 1 if a figure
is missed.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import time
from pathlib import Path

# name: arguments of `msa eval`. The longest first, so that the last worker does not end long after the others.
RUNS = {
    f"{task}-both": f"{arguments} --length 32K --documents 10 --seed 101 --attention both"
    for task, arguments in {
        "multikey": "multikey",
        "needle": "needle",
        "multivalue": "multivalue",
        "tracking": "tracking",
        "value-first": "needle --kind value_first",
    }.items()
}
RUNS |= {
    f"needle-64K-{part}": f"needle --length 64K --documents 5 --seed {200 + part}"
    for part in range(4)
}
RUNS |= {
    f"needle-128K-{part}": f"needle --length 128K --documents {count} --seed {300 + part}"
    for part, count in enumerate((2, 2, 1))
}
RUNS |= {
    f"controls-{part}": f"needle --length 32K --documents 5 --seed {110 + part}"
    " --control removed random-blocks"
    for part in range(2)
}
RUNS |= {
    f"{name}-{part}": f"{arguments} --length 32K --documents 10 --seed {101 + part}"
    for name, arguments in {
        "multikey-255": "multikey --distractors 255",
        "heldout": "needle --phrasings heldout",
    }.items()
    for part in range(2)
}
RUNS |= {
    f"{task}-more": f"{arguments} --length 32K --documents 10 --seed 102"
    for task, arguments in {
        "multikey": "multikey",
        "multivalue": "multivalue",
        "tracking": "tracking",
        "value-first": "needle --kind value_first",
    }.items()
}
RUNS |= {
    "needle-16K": "needle --length 16K --documents 20 --seed 101",
    "needle-8K": "needle --length 8K --documents 20 --seed 101",
    "typed": "needle --length 32K --facts-file cli/typed_facts.txt --seed 100",
}

# (row, runs whose trials add up, length, attention, control, share demanded: at least, or below when negative)
TABLE = (
    ("needle 8K", ("needle-8K",), 8192, "sparse", "none", 0.99),
    ("needle 16K", ("needle-16K",), 16384, "sparse", "none", 0.99),
    ("needle 32K", ("needle-both", "controls-0", "controls-1"), 32768, "sparse", "none", 0.99),
    ("needle 64K", tuple(f"needle-64K-{n}" for n in range(4)), 65536, "sparse", "none", 0.99),
    ("needle 128K", tuple(f"needle-128K-{n}" for n in range(3)), 131072, "sparse", "none", 0.96),
    ("phrasings held out 32K", ("heldout-0", "heldout-1"), 32768, "sparse", "none", 0.93),
    ("typed facts 32K", ("typed",), 32768, "sparse", "none", 0.85),
    ("value first 32K", ("value-first-both", "value-first-more"), 32768, "sparse", "none", 0.90),
    ("31 distractors 32K", ("multikey-both", "multikey-more"), 32768, "sparse", "none", 0.98),
    ("255 distractors 32K", ("multikey-255-0", "multikey-255-1"), 32768, "sparse", "none", 0.95),
    ("three values 32K", ("multivalue-both", "multivalue-more"), 32768, "sparse", "none", 0.85),
    ("chains of three 32K", ("tracking-both", "tracking-more"), 32768, "sparse", "none", 0.80),
    ("control: fact removed", ("controls-0", "controls-1"), 32768, "sparse", "removed", -0.02),
    (
        "control: random blocks",
        ("controls-0", "controls-1"),
        32768,
        "sparse",
        "random-blocks",
        -0.20,
    ),
)
PAIRED = ("needle", "value-first", "multikey", "multivalue", "tracking")
MOST_BELOW_DENSE = 0.02


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--msa", type=Path, required=True, help="the program")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs' JSON")
    parser.add_argument("--model", type=Path, help="model folder (default: the shipped one)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=sorted(RUNS), help="these runs alone")
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


def count(results, runs, length, attention, control):
    """(right, trials, whether all runs are there)."""
    right = trials = 0
    for name in runs:
        for entry in results.get(name, {"results": []})["results"]:
            if (entry["length"], entry["attention"], entry["control"]) == (
                length,
                attention,
                control,
            ):
                right, trials = right + entry["right"], trials + entry["trials"]
    return right, trials, all(name in results for name in runs)


def table(results):
    """Rows of the table: {row, right, trials, demanded, met}."""
    rows = []
    for row, runs, length, attention, control, demanded in TABLE:
        right, trials, whole = count(results, runs, length, attention, control)
        share = right / trials if trials else 0.0
        met = whole and (share >= demanded if demanded > 0 else share < -demanded)
        rows.append(
            {
                "row": row,
                "right": right,
                "trials": trials,
                "whole": whole,
                "demanded": demanded,
                "met": met,
            }
        )
    for task in PAIRED:
        runs = (f"{task}-both",)
        right, trials, whole = count(results, runs, 32768, "sparse", "none")
        dense, _, _ = count(results, runs, 32768, "dense", "none")
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


def main():
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    names = [name for name in RUNS if not options.only or name in options.only]
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
        commands = {name: f"msa eval {RUNS[name]}" for name in results}
        options.summary.write_text(
            json.dumps({"rows": rows, "commands": commands}, indent=1) + "\n"
        )
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
