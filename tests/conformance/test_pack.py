"""The pack on disk is what conformance/make.py writes, and its gradients are gradients."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from conformance import brute
from conformance.cases import Shape, make_request, random_ids
from conformance.make import FOLDER, MAX_BYTES, differences, make_pack
from conformance.storage import Random, Stored

SHAPE = Shape(kv_heads=1, group=2, dim=8, index_dim=8, block_size=4, top_k=2)


def test_pack_on_disk_is_as_made(tmp_path):
    pack = make_pack()
    assert list(differences(FOLDER, pack)) == []
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MAX_BYTES
    for path in FOLDER.iterdir():
        (tmp_path / path.name).symlink_to(path)
    changed = tmp_path / "index.scores.safetensors"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.unlink()
    changed.write_bytes(content)
    (tmp_path / "index.nan.safetensors").unlink()
    (tmp_path / "stranger.safetensors").write_bytes(b"")
    found = " ".join(differences(tmp_path, pack))
    for name in ("index.scores", "index.nan", "stranger"):
        assert name in found


@pytest.fixture(params=["sparse", "dense"])
def small(request):
    """A request in float64, whose ids leave blocks out, or None for all visible tokens."""
    made = make_request(1, 5, 22, SHAPE, "float64", index=False)
    made.update(make_request(2, 5, 22, SHAPE, "float64"))
    return made, random_ids(3, 5, 22, SHAPE) if request.param == "sparse" else None


def central_differences(function, array, places, step=1e-6):
    results = []
    for place in places:
        keep = array[place]
        array[place] = keep + step
        above = function()
        array[place] = keep - step
        below = function()
        array[place] = keep
        results.append((above - below) / (2 * step))
    return results


def some_places(array, count=12):
    flat = Random(9).permutation(array.size)[:count]
    return [np.unravel_index(n, array.shape) for n in flat]


def test_attention_gradients(small):
    request, ids = small
    random = Random(4)
    out, lse, _ = brute.attention(request, ids, SHAPE.block_size)
    dout, dlse = random.normal(out.shape), random.normal(lse.shape)

    def weighted():
        new_out, new_lse, _ = brute.attention(request, ids, SHAPE.block_size)
        return float(np.sum(new_out * dout) + np.sum(new_lse * dlse))

    gradients = brute.attention_gradients(request, ids, SHAPE.block_size, out, lse, dout, dlse)
    for name, gradient in zip(("q", "k", "v"), gradients, strict=True):
        places = some_places(request[name])
        expected = central_differences(weighted, request[name], places)
        assert np.allclose([gradient[place] for place in places], expected, atol=1e-7), name


def test_kl_gradients(small):
    request, ids = small
    lse = brute.attention(request, ids, SHAPE.block_size)[1]
    scale = brute.scale_of(SHAPE.index_dim)

    def loss(gradients=False):
        lse_idx = np.zeros((1, 5))
        for t in range(5):
            tokens = brute.row_tokens(request, ids, t, 0, SHAPE.block_size)
            products = brute.dots(request["q_idx"][t, 0], request["k_idx"][tokens])
            lse_idx[0, t] = brute.log_sum_exp([scale * x for x in products])
        value, *rest = brute.kl(request, ids, SHAPE.block_size, lse, lse_idx, 3.0, 7.0)
        return rest if gradients else value

    assert loss() > 0
    for name, gradient in zip(("q_idx", "k_idx"), loss(gradients=True), strict=True):
        places = some_places(request[name])
        expected = central_differences(loss, request[name], places)
        assert np.allclose([gradient[place] for place in places], expected, atol=1e-7), name


def test_merged_parts_are_the_whole():
    request = make_request(6, 3, 30, SHAPE, "float64", index=False)
    parts = []
    for blocks in ([0, 3, 5], [1, 2, 4, 6, 7]):
        ids = np.full((1, 3, 8), -1)
        ids[:, :, : len(blocks)] = blocks
        parts.append(brute.attention(request, ids, SHAPE.block_size)[:2])
    out, lse = brute.merge(parts)
    whole_out, whole_lse, _ = brute.attention(request, None, SHAPE.block_size)
    assert np.allclose(out, whole_out) and np.allclose(lse, whole_lse)


def test_rounding_to_bfloat16():
    values = [1.0, 1.00390625, 1.01171875, 3.3895313892515355e38, 3.4e38, -0.0, np.inf, np.nan]
    bits = [0x3F80, 0x3F80, 0x3F82, 0x7F7F, 0x7F80, 0x8000, 0x7F80, 0x7FC0]
    assert Stored(values, "bfloat16").bits.tolist() == bits


def test_reader_in_the_documentation(tmp_path):
    """The program of docs/conformance.md, on a kernel that is right and on one that is not."""
    text = (FOLDER.parent.parent / "docs/conformance.md").read_text()
    (tmp_path / "reader.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    kernel = """
import os
import re
import subprocess
import sys

import numpy as np
from conformance import brute
def index_forward(arguments, inputs):
    if "page_table" in inputs or arguments["id_layout"] != "head_major":
        return dict.fromkeys(("block_ids", "block_scores", "lse_idx"))
    cu_q, cu_k = inputs["cu_seqlens_q"], inputs["cu_seqlens_k"]
    tokens, groups, _ = inputs["q_idx"].shape
    ids = np.full((groups, tokens, arguments["top_k"]), -1)
    for r in range(len(cu_q) - 1):
        request = {"q_idx": inputs["q_idx"][cu_q[r] : cu_q[r + 1]].astype(float),
                   "k_idx": inputs["k_idx"][cu_k[r] : cu_k[r + 1]].astype(float)}
        ids[:, cu_q[r] : cu_q[r + 1]] = brute.index(
            request, arguments["block_size"], arguments["top_k"], arguments.get("scale"))[0]
    return {"block_ids": ids, "block_scores": None}
"""
    (tmp_path / "my_kernel.py").write_text(kernel)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "reader.py"), str(FOLDER)],
        check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent.parent)},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) >= 30
    for line in lines:
        pages = any(word in line for word in ("paged", "shared_pages", "token_major"))
        assert (".block_ids" in line) == pages, line
        assert line.startswith(("FAIL index.", "pass index.")), line
