"""The bench's scripts: the curve shows what the runs say, the peer repeats the run's calls and joins
it whole, and bad input is one line."""

import importlib.util
import io
import json
from pathlib import Path

import bench_table
import draw_bench
import matplotlib.image
import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("sdpa", ROOT / "bench" / "peers" / "sdpa.py")
sdpa = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sdpa)


def case(phase, context, seconds, method="whole", **more):
    queries = context if phase == "prefill" else 1
    ops = [{"op": name, "seconds": value} for name, value in seconds.items()]
    return {
        "name": f"{phase} {context}",
        "phase": phase,
        "context": context,
        "queries": queries,
        "batch": 1,
        "method": method,
        "requests": [[queries, context]],
        "ops": ops,
        **more,
    }


def run_of(*cases):
    return {
        "format": "msa-bench-1",
        "date": "2026-01-02",
        "machine": {"cpu": "a machine", "threads": 1},
        "layer": {
            "q_heads": 4,
            "kv_heads": 2,
            "head_dim": 16,
            "block_size": 8,
            "top_k": 4,
            "q_type": "float32",
            "kv_type": "bfloat16",
        },
        "cases": list(cases),
    }


@pytest.fixture
def run():
    return run_of(
        case("prefill", 1024, {"index": 0.01, "attend": 0.01, "layer": 0.02, "dense": 0.01}),
        case("prefill", 65536, {"layer": 8.0, "dense": 45.0}, "sampled"),
        case("decode", 1024, {"layer": 0.0002, "dense": 0.0001}),
        case("decode", 65536, {"layer": 0.001, "dense": 0.01}),
    )


def test_points_are_those_of_the_run(run):
    cases = draw_bench.cases_of([run], "prefill")
    assert draw_bench.points(cases, "dense") == [(1024, 0.01, False), (65536, 45.0, True)]
    assert draw_bench.points(cases, "index") == [(1024, 0.01, False)]
    assert draw_bench.checks(cases, "dense") == []


def test_a_whole_run_checks_and_does_not_replace_the_sampled_point(run):
    whole = case("prefill", 65536, {})
    whole["ops"] = [
        {"op": "dense", "seconds": 50.0, "sampled_seconds": 49.0, "sampling_difference": -0.02}
    ]
    for runs in ([run, run_of(whole)], [run_of(whole), run]):
        cases = draw_bench.cases_of(runs, "prefill")
        assert draw_bench.points(cases, "dense")[1] == (65536, 45.0, True)
        assert draw_bench.checks(cases, "dense") == [(65536, 50.0, -0.02)]
    assert "within 2.0 %" in draw_bench.caption([run], cases)


def test_batches_and_several_queries_are_no_part_of_the_curve(run):
    run["cases"] += [
        case("decode", 4096, {"dense": 1.0}) | {"queries": 4},
        case("decode", 4096, {"dense": 1.0}) | {"batch": 2},
    ]
    assert [one["context"] for one in draw_bench.cases_of([run], "decode")] == [1024, 65536]


def test_the_picture_has_ink_of_each_line(run):
    for one in run["cases"]:
        one["peers"] = [
            {"name": name, "seconds": factor * one["ops"][-1]["seconds"], "method": one["method"]}
            for name, factor in (("bfloat16", 2.5), ("float32", 4.0))
        ]
    pixels = matplotlib.image.imread(io.BytesIO(draw_bench.draw([run])))
    assert pixels.shape[1] > 1200
    for color in (draw_bench.DENSE, draw_bench.LAYER, draw_bench.PEER):
        wanted = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        assert (abs(pixels[..., :3] - wanted).max(axis=-1) < 0.02).sum() > 300


def test_the_table_has_a_row_for_each_context_and_the_best_peer(run):
    run["cases"][0] |= {"times_faster": 0.5, "floor_times_faster": 1.25}
    without = bench_table.table([run]).splitlines()
    assert len(without) == 2 + 2
    assert without[2] == (
        "| 1K | 10 ms | 10 ms | 20 ms | 10 ms | 0.50x | 1.25x | - | - | 200 µs | 100 µs | - | - |"
    )
    assert without[3].startswith("| 64K ~ | - | - | 8 s | 45 s |")
    run["cases"][1]["peers"] = [{"name": n, "seconds": s} for n, s in (("a", 50.0), ("b", 40.0))]
    joined = bench_table.table([run]).splitlines()
    assert joined[0].count("PyTorch") == 2
    assert joined[3].startswith("| 64K ~ | - | - | 8 s | 45 s | 40 s |")
    assert len({line.count("|") for line in joined}) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "cases": []}'])
def test_no_run_is_one_line(tmp_path, capsys, text):
    broken = tmp_path / "run.json"
    broken.write_text(text)
    assert draw_bench.main([str(broken), str(tmp_path / "out.png")]) == 2
    assert bench_table.main([str(broken)]) == 2
    assert sdpa.main([str(broken)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.json"]
    assert broken.read_text() == text


def test_peers_repeat_the_calls_of_the_run():
    whole = case("prefill", 1024, {})
    assert sdpa.plan(whole, 2048) == [(1.0, 1024, 1024, 1.0)]
    sampled = case("prefill", 65536, {}, "sampled")
    sampled["tiles"] = [{"weight": 32, "requests": [[1024, 33280]]}]
    ((weight, q_len, k_len, ratio),) = sdpa.plan(sampled, 2048)
    assert (weight, q_len, k_len) == (32.0, 1024, 33280)
    # All k_len products in place of those that the mask leaves: half a tile more.
    assert ratio == pytest.approx(1024 * 33280 / (1024 * 32256 + 1024 * 1025 / 2))
    # A tile near the start would work out half as much again: PyTorch is not asked.
    sampled["tiles"] = [{"weight": 32, "requests": [[1024, 1536]]}]
    assert sdpa.plan(sampled, 2048) is None
    assert sdpa.plan(case("decode", 65536, {}), 2048) == [(1.0, 1, 65536, 1.0)]


def test_peers_are_written_into_the_run(tmp_path, capsys):
    run = run_of(
        case("prefill", 64, {"layer": 1.0, "dense": 2.0}),
        case("decode", 64, {"layer": 1.0, "dense": 2.0}),
    )
    file = tmp_path / "run.json"
    file.write_text(json.dumps(run))
    assert sdpa.main([str(file), "--repeats", "2"]) == 0
    joined = json.loads(file.read_text())
    for one in joined["cases"]:
        assert [peer["type"] for peer in one["peers"]] == ["float32", "bfloat16"]
        assert all(peer["seconds"] > 0 and peer["work_ratio"] == 1 for peer in one["peers"])
        del one["peers"]
    assert joined == run
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]
    assert "layer against best peer" in capsys.readouterr().out
