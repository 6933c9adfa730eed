"""The acceptance table: what is missing is never met, shares are compared the right way round."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "bench" / "model" / "suite.py"
SPEC = importlib.util.spec_from_file_location("model_suite", PATH)
suite = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(suite)


def entry(length, right, trials, attention="sparse", control="none"):
    return {
        "length": length,
        "right": right,
        "trials": trials,
        "attention": attention,
        "control": control,
    }


def rows(results):
    return {row["row"]: row for row in suite.table(results)}


def run(*entries):
    return {"results": list(entries)}


def test_nothing_measured_is_nothing_met():
    assert not any(row["met"] or row["whole"] for row in suite.table({}))


@pytest.mark.parametrize("right,met", [(198, True), (197, False)])
def test_a_share_is_met_from_its_bound_on(right, met):
    found = rows({"needle-8K": run(entry(8192, right, 200), entry(16384, 0, 200))})["needle 8K"]
    assert (found["right"], found["trials"], found["met"]) == (right, 200, met)


def test_half_of_the_runs_are_not_enough():
    found = rows({"heldout-0": run(entry(32768, 100, 100))})["phrasings held out 32K"]
    assert found["trials"] == 100 and not found["whole"] and not found["met"]
    assert "not whole" in suite.line(found)


@pytest.mark.parametrize("right,met", [(1, True), (2, False)])
def test_a_control_must_stay_below(right, met):
    part = entry(32768, 0, 50, control="removed")
    results = {
        "controls-0": run(entry(32768, 50, 50), entry(32768, right, 50, control="removed")),
        "controls-1": run(part),
    }
    found = rows(results)["control: fact removed"]
    assert (found["right"], found["trials"], found["met"]) == (right, 100, met)


@pytest.mark.parametrize("right,met", [(100, True), (97, True), (96, False)])
def test_sparse_may_be_two_points_below_dense(right, met):
    results = {"tracking-both": run(entry(32768, right, 100), entry(32768, 99, 100, "dense"))}
    assert rows(results)["dense beside it: tracking"]["met"] is met


def test_every_run_of_the_table_exists_and_none_is_idle():
    named = {name for _, runs, *_ in suite.TABLE for name in runs}
    named |= {f"{task}-both" for task in suite.PAIRED}
    assert named == set(suite.RUNS)
