"""The two-minute run of the trainer: KL halves, the index beats random picks."""

import subprocess
import sys


def test_two_minute_run(root, small_corpus, tmp_path):
    command = [
        sys.executable,
        "-m",
        "training",
        "--preset",
        "ci",
        "--out",
        str(tmp_path / "run"),
        "--corpus",
        str(small_corpus),
    ]
    result = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=600, check=False
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "KL, all layers" in result.stdout and "block recall" in result.stdout
    assert (tmp_path / "run" / "checkpoint.pt").exists() and (
        tmp_path / "run" / "log.jsonl"
    ).exists()
