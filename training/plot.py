"""Curves of runs: losses, KL, accuracy of answers; stages are marked by their length."""

import itertools
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read_log(path):
    with open(path, encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def smooth(values, width=9):
    values = np.asarray(values, float)
    return np.array([np.nanmean(values[max(0, i - width + 1) : i + 1]) for i in range(len(values))])


def column(log, name):
    return smooth([np.nan if entry[name] is None else entry[name] for entry in log])


def plot_logs(paths, out):
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8))
    for path in paths:
        log = read_log(path)
        tokens = np.array([entry["tokens"] for entry in log]) / 1e6
        name = Path(path).parent.name
        axes[0].plot(tokens, column(log, "answer_loss"), label=f"{name}: answers")
        axes[0].plot(tokens, column(log, "text_loss"), label=f"{name}: text", alpha=0.6)
        axes[1].plot(tokens, column(log, "kl"), label=name)
        axes[2].plot(tokens, column(log, "answer_accuracy"), label=f"{name}: every token")
        axes[2].plot(tokens, column(log, "first_token_accuracy"), label=f"{name}: first token")
        for before, after in itertools.pairwise(log):
            if before["length"] != after["length"]:
                for axis in axes:
                    axis.axvline(after["tokens"] / 1e6, color="gray", linewidth=0.6)
                axes[0].text(
                    after["tokens"] / 1e6,
                    axes[0].get_ylim()[1],
                    f" {after['length']}",
                    fontsize=7,
                    va="top",
                )
    for axis, title in zip(
        axes, ("cross entropy (nats)", "KL, sum over layers", "accuracy of answer tokens")
    ):
        axis.set_title(title)
        axis.set_xlabel("million tokens")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[1].set_yscale("log")
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)
