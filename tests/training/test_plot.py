"""The curves: runs share one axis, stages are found, and a log of either kind of step is drawn."""

import json

from training.plot import plot_logs, read_logs, smooth, stages_of


def write_log(folder, lengths, sparse):
    folder.mkdir()
    path = folder / "log.jsonl"
    entries = [
        {
            "tokens": 100 * (n + 1),
            "length": length,
            "sparse": sparse,
            "answer_loss": 1.0,
            "text_loss": 2.0,
            "kl": None if n == 0 else 0.5,
            "answer_accuracy": 0.5,
            "first_token_accuracy": 0.25,
        }
        for n, length in enumerate(lengths)
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_runs_follow_one_another(tmp_path):
    first = write_log(tmp_path / "first", [512, 512, 2048], False)
    second = write_log(tmp_path / "second", [2048, 8192], True)
    entries = read_logs([first, second])
    assert [entry["tokens"] for entry in entries] == [100, 200, 300, 400, 500]
    assert stages_of(entries) == [
        (0, 512, 0, 200),
        (0, 2048, 200, 300),
        (1, 2048, 300, 400),
        (1, 8192, 400, 500),
    ]
    plot_logs([first, second], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_smooth_is_the_mean_of_the_last_nine():
    assert smooth([1, 3]) == [1, 2]
    assert smooth(range(20))[-1] == 15
