"""Draws a run of the demo: python3 tools/draw_demo.py [RUN.json] PICTURE.png

Reads what `msa demo --json` prints, from a file or from standard input. Each fact is a band, in the
order of the document: from left to right the document's blocks, from top to bottom a row for each
layer and group. A mark is a block that the row's selection read to predict the first token of the
answer; the column is the block that holds the fact. `make picture` runs both for the README.

Needs matplotlib alone (tools/requirements-picture.txt). The background is opaque, so that the
picture is the same on light and on dark pages.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

PAPER, BAND = "#fbfaf7", "#efede6"
INK, FAINT = "#22262b", "#6b7178"
READ, FACT, FACT_COLUMN, WRONG = "#3d6fb4", "#e4572e", "#f9d3c3", "#b3261e"

# Inches, from the top and the left.
WIDTH, MARGIN, TEXT_WIDTH, TEXT_GAP = 10.0, 0.28, 3.1, 0.2
HEAD, FOOT, BAND_HEIGHT, BAND_GAP = 1.28, 0.78, 0.74, 0.24
DOTS_PER_INCH = 180
NARROWEST_MARK = 0.0125  # 1 pixel where the picture is shown 900 wide
FACT_MARK = 0.042
LAYER_GAP = 0.5  # rows


RUN_KEYS = {
    "tokens",
    "blocks",
    "block_size",
    "top_k",
    "layers",
    "groups",
    "haystack",
    "seed",
    "facts",
}
FACT_KEYS = {"question", "answer", "expected", "right", "depth", "block", "readers", "blocks_read"}


class BadRun(Exception):
    """What was read is no run of the demo."""


def read_run(text):
    try:
        run = json.loads(text)
        missing = sorted(RUN_KEYS - run.keys())
        for fact in [] if missing else run["facts"]:
            missing += sorted(FACT_KEYS - fact.keys())
    except (ValueError, AttributeError, TypeError) as error:
        raise BadRun(f"got no JSON of `msa demo --json`: {error}") from error
    if missing:
        raise BadRun(
            f"got a run without {', '.join(missing)}, allowed what `msa demo --json` prints"
        )
    rows = run["layers"] * run["groups"]
    if not run["facts"] or any(len(fact["blocks_read"]) != rows for fact in run["facts"]):
        raise BadRun("got no facts with a list of blocks for each layer and group")
    return run


def write_whole(path, content):
    """The file appears when all of it is written, or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class Picture:
    """A figure whose coordinates are inches from its top left corner."""

    def __init__(self, run):
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        self.run = run
        self.facts = sorted(run["facts"], key=lambda fact: fact["block"])
        self.height = HEAD + FOOT + len(self.facts) * (BAND_HEIGHT + BAND_GAP) - BAND_GAP
        self.figure = plt.figure(figsize=(WIDTH, self.height), dpi=DOTS_PER_INCH, facecolor=PAPER)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(self.height, 0))
        self.axes.axis("off")
        self.renderer = self.figure.canvas.get_renderer()
        self.left = MARGIN + TEXT_WIDTH
        self.right = WIDTH - MARGIN - 0.48
        self.block = (self.right - self.left) / run["blocks"]

    def text(self, x, y, words, size, color=INK, **more):
        return self.axes.text(x, y, words, size=size, color=color, parse_math=False, **more)

    def left_text(self, y, words, size, color=INK, **more):
        """Text before a band, cut where it would run into it."""
        artist = self.text(MARGIN, y, words, size, color, **more)
        room = (TEXT_WIDTH - TEXT_GAP) * DOTS_PER_INCH
        while artist.get_window_extent(self.renderer).width > room:
            words = words[:-1].rstrip()
            artist.set_text(words + "…")

    def box(self, x, y, width, height, color):
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((x, y), width, height, facecolor=color, linewidth=0))

    def x_of(self, block):
        """The middle of a block."""
        return self.left + (block + 0.5) * self.block

    def mark(self, block, y, height, color, narrowest):
        width = max(self.block, narrowest)
        self.box(self.x_of(block) - width / 2, y, width, height, color)

    def head(self):
        run = self.run
        right = sum(fact["right"] for fact in self.facts)
        share = 100 * run["top_k"] / run["blocks"]
        title = f"{right} of {len(self.facts)} facts found in {run['tokens']:,} tokens"
        self.text(MARGIN, 0.42, title, 17, weight="bold")
        self.text(
            MARGIN,
            0.70,
            f"To answer, each row (one group of heads in one layer) reads {run['top_k']} of "
            f"{run['blocks']} blocks, {share:.2g} % of the document. One of the {run['blocks']} holds the fact.",
            9.5,
        )
        x, y = self.left, 0.99
        self.box(x, y - 0.06, 0.025, 0.12, READ)
        self.text(x + 0.1, y, "a block that was read", 8, FAINT, va="center")
        x += 1.65
        self.pointer(x, y)
        self.box(x + 0.1, y - 0.06, FACT_MARK, 0.12, FACT_COLUMN)
        self.text(x + 0.22, y, "the block with the fact", 8, FAINT, va="center")
        x += 1.85
        self.box(x, y - 0.06, FACT_MARK, 0.12, FACT)
        self.text(x + 0.1, y, "the fact was read", 8, FAINT, va="center")

    def pointer(self, x, y):
        self.axes.plot(x, y, marker="v", color=FACT, markersize=5, markeredgewidth=0)

    def band(self, fact, top, named):
        layers, groups = self.run["layers"], self.run["groups"]
        row = BAND_HEIGHT / (layers * groups + LAYER_GAP * (layers - 1))
        step = row * (groups + LAYER_GAP)
        for layer in range(layers):
            self.box(self.left, top + layer * step, self.right - self.left, row * groups, BAND)
        self.mark(fact["block"], top - 0.03, BAND_HEIGHT + 0.06, FACT_COLUMN, FACT_MARK)
        for layer in range(layers):
            for group in range(groups):
                y = top + layer * step + group * row
                for block in fact["blocks_read"][layer * groups + group]:
                    if block != fact["block"]:
                        self.mark(block, y, row * 0.9, READ, NARROWEST_MARK)
                if fact["block"] in fact["blocks_read"][layer * groups + group]:
                    self.mark(fact["block"], y, row * 0.9, FACT, FACT_MARK)
            if named:
                middle = top + layer * step + groups * row / 2
                self.text(self.right + 0.07, middle, f"layer {layer}", 6.5, FAINT, va="center")
        self.pointer(self.x_of(fact["block"]), top - 0.07)

    def words(self, fact, top):
        self.left_text(top + 0.13, fact["question"], 8, FAINT)
        if fact["right"]:
            self.left_text(top + 0.40, fact["answer"], 12, weight="bold")
        else:
            words = f"{fact['answer']} (wrong: {fact['expected']})"
            self.left_text(top + 0.40, words, 12, WRONG, weight="bold")
        rows = len(fact["blocks_read"])
        self.left_text(
            top + 0.64,
            f"block {fact['block']}, {100 * fact['depth']:.0f} % deep, "
            f"read by {fact['readers']} of {rows} rows",
            7.5,
            FAINT,
        )

    def foot(self, bottom):
        tokens = self.run["blocks"] * self.run["block_size"]
        self.axes.plot((self.left, self.right), (bottom + 0.1,) * 2, color=FAINT, linewidth=0.6)
        for quarter in range(5):
            x = self.left + (self.right - self.left) * quarter / 4
            self.axes.plot((x, x), (bottom + 0.1, bottom + 0.14), color=FAINT, linewidth=0.6)
            label = f"{tokens * quarter // 4:,}"
            self.text(x, bottom + 0.27, label, 7.5, FAINT, ha="center")
        self.text(
            (self.left + self.right) / 2,
            bottom + 0.47,
            "position in the document, in tokens",
            8,
            FAINT,
            ha="center",
        )
        self.left_text(bottom + 0.27, self.run["haystack"], 7.5, FAINT)
        self.left_text(bottom + 0.47, f"seed {self.run['seed']}", 7.5, FAINT)

    def draw(self):
        self.head()
        for n, fact in enumerate(self.facts):
            top = HEAD + n * (BAND_HEIGHT + BAND_GAP)
            self.words(fact, top)
            self.band(fact, top, named=n == 0)
        self.foot(self.height - FOOT)

    def png(self):
        memory = io.BytesIO()
        self.figure.savefig(memory, format="png", metadata={"Software": None})
        return memory.getvalue()


def main(arguments):
    if len(arguments) not in (1, 2):
        print(__doc__.split("\n")[0], file=sys.stderr)
        return 2
    try:
        text = Path(arguments[0]).read_text() if len(arguments) == 2 else sys.stdin.read()
        picture = Picture(read_run(text))
        picture.draw()
        write_whole(Path(arguments[-1]), picture.png())
    except (BadRun, OSError) as error:
        print(f"draw_demo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
