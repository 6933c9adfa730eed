"""Curves of training: losses, KL and accuracy of answers over the tokens seen, as one picture.

Several logs are runs that went on from one another, in that order, and share one axis. Shades are
stages, with their document length; a dashed line is where the next run begins. The background is
opaque, so that the picture is the same on light and on dark pages.
"""

import json

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PAPER, SHADE, INK, FAINT = "#fbfaf7", "#efede6", "#22262b", "#6b7178"
BLUE, ORANGE = "#3d6fb4", "#e4572e"
SMOOTHED = 9  # log entries, of 20 steps each


def read_logs(paths):
    """All entries in order; tokens count on over the runs, and each entry knows its run."""
    entries, before = [], 0
    for number, path in enumerate(paths):
        with open(path, encoding="utf-8") as handle:
            run = [json.loads(line) for line in handle]
        for entry in run:
            entries.append(entry | {"tokens": entry["tokens"] + before, "run": number})
        before += run[-1]["tokens"] if run else 0
    return entries


def stages_of(entries):
    """(number of the run, length, first token, last token) of each stretch of one length in one run."""
    stages, begin = [], 0
    for n, entry in enumerate(entries):
        following = entries[n + 1] if n + 1 < len(entries) else None
        key = (entry["run"], entry["length"])
        if following is None or (following["run"], following["length"]) != key:
            stages.append((*key, begin, entry["tokens"]))
            begin = entry["tokens"]
    return stages


def smooth(values):
    """The mean of the last few values."""
    values = np.asarray(values, float)
    return [values[max(0, i - SMOOTHED + 1) : i + 1].mean() for i in range(len(values))]


def curve(axis, entries, name, color, label):
    kept = [entry for entry in entries if entry[name] is not None]
    if kept:
        tokens = [entry["tokens"] / 1e6 for entry in kept]
        axis.plot(
            tokens, smooth([entry[name] for entry in kept]), color, label=label, linewidth=1.4
        )


def short_length(length):
    return f"{length // 1024}K" if length % 1024 == 0 else str(length)


def mark_stages(axes, stages):
    narrow = 0.03 * stages[-1][3]  # here two labels touch: the second stands higher
    last, height = -narrow, 1.02
    for n, (run, length, begin, end) in enumerate(stages):
        for axis in axes:
            if n % 2 == 0:
                axis.axvspan(begin / 1e6, end / 1e6, color=SHADE, linewidth=0, zorder=0)
            if n > 0 and run != stages[n - 1][0]:
                axis.axvline(begin / 1e6, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        middle = (begin + end) / 2
        height = 1.075 if middle - last < narrow and height == 1.02 else 1.02
        last = middle
        axes[0].annotate(
            short_length(length),
            (middle / 1e6, height),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=8,
            color=FAINT,
        )


def plot_logs(paths, out):
    entries = read_logs(paths)
    figure, axes = plt.subplots(3, 1, figsize=(10, 7.6), sharex=True, facecolor=PAPER)
    losses, kl, accuracy = axes
    mark_stages(axes, stages_of(entries))
    curve(losses, entries, "text_loss", BLUE, "other text")
    curve(losses, entries, "answer_loss", ORANGE, "answers")
    losses.set_ylabel("cross entropy, nats")
    dense = [entry for entry in entries if not entry["sparse"]]
    sparse = [entry for entry in entries if entry["sparse"]]
    curve(kl, dense, "kl", BLUE, "dense steps: over all earlier tokens")
    curve(kl, sparse, "kl", ORANGE, "sparse steps: over the selected tokens")
    kl.set_ylabel("KL of the index,\nsum over layers")
    curve(accuracy, entries, "answer_accuracy", BLUE, "tokens of answers")
    curve(
        accuracy, entries, "first_token_accuracy", ORANGE, "their first tokens: was the fact found?"
    )
    accuracy.set_ylabel("share right")
    accuracy.set_ylim(0, 1.02)
    accuracy.set_xlabel("million tokens seen", color=INK)
    for axis in axes:
        axis.set_facecolor(PAPER)
        axis.margins(x=0)
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", color="#d9d6cd", linewidth=0.6)
        axis.tick_params(colors=FAINT, labelsize=8.5, length=3)
        axis.yaxis.label.set(color=INK, fontsize=9.5)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(FAINT)
        if axis.lines:
            axis.legend(fontsize=8.5, frameon=False, labelcolor=INK)
    losses.set_title(
        "Above: the length of the documents, in tokens. Dashed: the next run goes on from here.",
        loc="left",
        pad=28,
        fontsize=10,
        color=INK,
    )
    figure.align_ylabels()
    figure.tight_layout()
    figure.savefig(out, dpi=150)
    plt.close(figure)
