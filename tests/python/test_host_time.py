"""The benchmark of host time runs and says what it measures; its limit is for idle machines."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "bench/python/host_time.py"


def bench(*options):
    command = [sys.executable, str(SCRIPT), "--batches", "3", "--calls", "20", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_op_has_a_line():
    result = bench()
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("cpu: ")
    names = [line.split()[0] for line in lines[1:]]
    assert names == ["index_select_blocks", "msa_attention", "dense_attention", "cache_append"]
    assert all(line.count(" us") == 2 for line in lines[1:])


def test_a_limit_is_kept():
    assert bench("--limit", "0.001").returncode == 1
    assert bench("--limit", "1e9").returncode == 0
