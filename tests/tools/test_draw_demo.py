"""The README's picture: what it shows is what the run says, and bad input is one line."""

import io
import json

import draw_demo
import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

LAYERS, GROUPS, BLOCKS = 2, 3, 64


def fact(block, right=True, readers=()):
    """A fact that the rows of `readers` read; every row reads block 0 too."""
    return {
        "question": "What is $x$?" if right else "What is " + "a very long name " * 9 + "?",
        "answer": "4711",
        "expected": "4711" if right else "4712",
        "right": right,
        "depth": block / BLOCKS,
        "block": block,
        "readers": len(readers),
        "blocks_read": [[0, block] if row in readers else [0] for row in range(LAYERS * GROUPS)],
    }


@pytest.fixture
def run():
    return {
        "tokens": 4090,
        "blocks": BLOCKS,
        "block_size": 64,
        "top_k": 2,
        "layers": LAYERS,
        "groups": GROUPS,
        "haystack": "hay",
        "seed": 7,
        "facts": [fact(48, False), fact(16, True, (1, 5))],
    }


def share(pixels, color):
    wanted = matplotlib.colors.to_rgb(color)
    return np.mean(np.all(np.abs(pixels[..., :3] - wanted) < 0.02, axis=-1))


def test_marks_stand_where_the_run_says(run):
    picture = draw_demo.Picture(run)
    picture.draw()
    pixels = matplotlib.image.imread(io.BytesIO(picture.png()), format="png")
    assert np.all(pixels[..., 3] == 1), "opaque on any page"
    height, width = pixels.shape[:2]
    assert width == draw_demo.WIDTH * draw_demo.DOTS_PER_INCH

    def around(block, band):
        """The pixels of a block in the band, which are sorted by their facts' blocks."""
        top = draw_demo.HEAD + band * (draw_demo.BAND_HEIGHT + draw_demo.BAND_GAP)
        x, half = picture.x_of(block), draw_demo.FACT_MARK / 2
        rows = (np.array([top, top + draw_demo.BAND_HEIGHT]) / picture.height * height).astype(int)
        columns = (np.array([x - half, x + half]) / draw_demo.WIDTH * width).astype(int)
        return pixels[rows[0] : rows[1], columns[0] + 1 : columns[1] - 1]

    read = share(around(16, 0), draw_demo.FACT)
    assert 0.7 * 2 / 6 < read < 2 / 6, "two of six rows read the first fact"
    assert share(around(48, 1), draw_demo.FACT) == 0, "no row read the other"
    assert share(around(48, 1), draw_demo.FACT_COLUMN) > 0.9
    assert share(around(0, 1), draw_demo.READ) > 0.7
    assert share(around(30, 0), draw_demo.READ) == 0


def test_one_command_draws_a_file(run, tmp_path, capsys):
    source, picture = tmp_path / "run.json", tmp_path / "run.png"
    source.write_text(json.dumps(run))
    assert draw_demo.main([str(source), str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"layers": 1}', '{"layers": 1, "groups": 1, "facts": []}']
)
def test_what_is_no_run_is_refused_in_a_line(text, tmp_path, capsys):
    source, picture = tmp_path / "run.json", tmp_path / "run.png"
    source.write_text(text)
    assert draw_demo.main([str(source), str(picture)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not picture.exists()


def test_a_file_that_cannot_be_read_or_written(run, tmp_path, capsys):
    source = tmp_path / "run.json"
    assert draw_demo.main([str(source), str(tmp_path / "run.png")]) == 2
    source.write_text(json.dumps(run))
    assert draw_demo.main([str(source), str(tmp_path / "none" / "run.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
