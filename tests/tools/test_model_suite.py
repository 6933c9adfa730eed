"""The acceptance table: what is missing is never met, shares are compared the right way round."""

import importlib.util
import json
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
        "by_depth_tenth": [{"right": 0, "total": 0}] * 9 + [{"right": right, "total": trials}],
        "by_kind": {"word": {"right": right, "total": trials}},
    }


def rows(results):
    return {row["row"]: row for row in suite.table(results)}


def run(*entries):
    return {"results": list(entries)}


def whole(kind, *entries):
    """Results of all runs of the kind: the entries are the first's, the others have none."""
    runs = suite.RUNS_OF[kind]
    return {runs[0]: run(*entries)} | {name: run() for name in runs[1:]}


def test_nothing_measured_is_nothing_met():
    assert not any(row["met"] or row["whole"] for row in suite.table({}))


@pytest.mark.parametrize("right,met", [(198, True), (197, False)])
def test_a_share_is_met_from_its_bound_on(right, met):
    found = rows(whole("needle-8K", entry(8192, right, 200), entry(16384, 0, 200)))["needle 8K"]
    assert (found["right"], found["trials"], found["met"]) == (right, 200, met)


def test_depths_and_kinds_of_all_runs_add_up():
    first, second = entry(8192, 90, 100), entry(8192, 99, 100)
    second["by_depth_tenth"] = second["by_depth_tenth"][::-1]
    second["by_kind"] = {"code": {"right": 49, "total": 50}, "word": {"right": 50, "total": 50}}
    found = rows(whole("needle-8K", first, second))["needle 8K"]
    assert found["by_depth_fifth"] == [[99, 100], [0, 0], [0, 0], [0, 0], [90, 100]]
    assert found["by_kind"] == {"word": [140, 150], "code": [49, 50]}


def test_the_summary_is_json():
    results = whole("needle-8K", entry(8192, 198, 200))
    text = suite.summary({"model": "m"}, suite.table(results), {"needle-8K-0": "msa eval needle"})
    found = json.loads(text)
    assert found["rows"][0]["right"] == 198 and len(found["rows"]) == len(rows({}))
    assert found["commands"] == {"needle-8K-0": "msa eval needle"} and found["model"] == "m"


def test_half_of_the_runs_are_not_enough():
    found = rows({"heldout-0": run(entry(32768, 100, 100))})["phrasings held out 32K"]
    assert found["trials"] == 100 and not found["whole"] and not found["met"]
    assert "not whole" in suite.line(found)


@pytest.mark.parametrize("right,met", [(1, True), (2, False)])
def test_a_control_must_stay_below(right, met):
    part = entry(32768, 0, 50, control="removed")
    results = whole(
        "controls", entry(32768, 50, 50), entry(32768, right, 50, control="removed"), part
    )
    found = rows(results)["control: fact removed"]
    assert (found["right"], found["trials"], found["met"]) == (right, 100, met)


@pytest.mark.parametrize("right,met", [(100, True), (97, True), (96, False)])
def test_sparse_may_be_two_points_below_dense(right, met):
    results = whole("tracking-both", entry(32768, right, 100), entry(32768, 99, 100, "dense"))
    assert rows(results)["dense beside it: tracking"]["met"] is met


def test_every_kind_of_the_table_exists_and_none_is_idle():
    named = {name for _, kinds, *_ in suite.TABLE for name in kinds}
    named |= {f"{task}-both" for task in suite.PAIRED}
    assert named == set(suite.RUNS_OF)


def test_runs_of_a_kind_have_all_its_documents_and_other_seeds():
    for name, _, documents, each, _ in suite.KINDS:
        arguments = [suite.RUNS[run].split() for run in suite.RUNS_OF[name]]
        assert len(arguments) * each == documents
        assert len({words[-1] for words in arguments}) == len(arguments)
