"""What is wrong is refused by name and shape, before anything is written; the next call works."""

import os
import subprocess
import sys

import cases
import msa_cpp
import pytest
import torch

HEADS, GROUPS, DIM, ROWS, KEYS = 4, 2, 16, 58, 123


@pytest.fixture
def arguments():
    """A valid call of attention with outputs of the caller, full of 77."""
    batch = cases.make_batch(requires_grad=False)
    picked = msa_cpp.index_select_blocks(
        batch.q_idx, batch.k_idx, batch.cu_q, batch.cu_k, top_k=3, block_size=8
    )
    return {
        "q": batch.q, "k": batch.k, "v": batch.v, "block_ids": picked.block_ids,
        "cu_seqlens_q": batch.cu_q, "cu_seqlens_k": batch.cu_k, "block_size": 8,
        "out": torch.full_like(batch.q, 77.0), "lse": torch.full((ROWS, HEADS), 77.0),
    }  # fmt: skip


def check_refused(arguments, error, *words):
    """The call raises with all words in its message, in both ways to call; nothing is written."""
    with pytest.raises(error) as raised:
        msa_cpp.msa_attention(**arguments)
    for word in words:
        assert word in str(raised.value), str(raised.value)
    assert str(raised.value).startswith("[")
    for name in ("out", "lse"):
        if isinstance(arguments.get(name), torch.Tensor):
            assert (arguments[name] == 77.0).all(), name


WRONG = {
    "dtype of q": ("q", lambda t: t.double(), ["q has a type", "float64", "float32"]),
    "dtype of ids": ("block_ids", lambda t: t.long(), ["block_ids has a type", "int64"]),
    "ids that are no numbers": ("block_ids", lambda t: t.float(), ["block_ids", "got float32"]),
    "offsets of int64": ("cu_seqlens_q", lambda t: t.long(), ["cu_seqlens_q", "int64"]),
    "bool": ("q", lambda t: t > 0, ["q has a type", "bool"]),
    "complex": ("q", lambda t: t.to(torch.complex64), ["q has a type", "complex64"]),
    "v of another type": ("v", lambda t: t.half(), ["v has the wrong type", "float16"]),
    "out of another type": ("out", lambda t: t.half(), ["out", "float16", "float32"]),
    "rank of q": ("q", lambda t: t[0], ["q has the wrong rank", "got 2, allowed 3"]),
    "five axes": ("q", lambda t: t[None, None], ["q has the wrong rank", "got 5"]),
    "no axes": ("block_size", lambda _: 0, ["block_size is wrong: got 0"]),
    "shape of v": ("v", lambda t: t[:-1], ["v has the wrong shape", "[122, 2, 16]", "[123, 2"]),
    "shape of out": ("out", lambda t: t[:-1].clone(), ["out has the wrong shape", "[57, 4, 16]"]),
    "shape of lse": ("lse", lambda t: t.T.contiguous(), ["lse has the wrong shape", "[4, 58]"]),
    "ids in the other layout": (
        "block_ids",
        lambda t: t.transpose(0, 1).contiguous(),
        ["block_ids has the wrong shape", "[58, 2, 3]", "[2, 58, any]"],
    ),
    "stride of q": (
        "q", lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
        ["q is strided on its last axis", "got stride 4"],
    ),
    "out over itself": (
        "out", lambda t: t[:1].expand(ROWS, HEADS, DIM), ["out overlaps itself", "[0, 16, 1]"],
    ),
    "heads": ("q", lambda t: t[:, :3].contiguous(), ["3 query heads on 2 key-value heads"]),
    "scale": ("scale", lambda _: -1.0, ["scale is wrong: got -1"]),
    "layout": ("layout", lambda _: "row_major", ["layout is unknown", "'row_major'"]),
    "backend": ("backend", lambda _: "tpu", ["backend is unknown", "'tpu'", "'reference'"]),
    "offsets that fall": (
        "cu_seqlens_q", lambda t: t.flip(0).contiguous(), ["cu_seqlens_q[0] is wrong: got 58"],
    ),
    "offsets past the tensor": (
        "cu_seqlens_k", lambda t: t + torch.tensor([0, 0, 0, 9]).int(), ["past the tensor"],
    ),
    "batch": ("cu_seqlens_k", lambda t: t[:-1], ["cu_seqlens_k has the wrong shape"]),
    "workspace of floats": (
        "workspace", lambda _: torch.empty(1 << 20), ["workspace is wrong", "float32"],
    ),
    "small workspace": (
        "workspace", lambda _: torch.empty(64, dtype=torch.uint8), ["too small: got 64 bytes"],
    ),
    "misaligned workspace": (
        "workspace", lambda _: torch.empty(1 << 22, dtype=torch.uint8)[1:], ["misaligned"],
    ),
    "missing ids": ("block_ids", lambda _: None, ["block_ids are missing"]),
    "a list for q": ("q", lambda t: t.tolist(), ["q is no tensor: got list"]),
    "None for k": ("k", lambda _: None, ["k is no tensor: got None"]),
    "device of the backend": ("backend", lambda _: "cuda", ["[context] the cuda backend cannot"]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "change", "words"), WRONG.values(), ids=WRONG.keys())
def test_attention_refuses(arguments, name, change, words):
    wrong = arguments | {name: change(arguments.get(name))}
    check_refused(wrong, msa_cpp.MsaError, *words)
    if name not in ("out", "lse", "workspace"):
        wrong.pop("out")
        wrong.pop("lse")
        check_refused(wrong, msa_cpp.MsaError, *words)
    out, _ = msa_cpp.msa_attention(**arguments)
    assert (out != 77.0).all()


def test_lse_without_out(arguments):
    arguments.pop("out")
    check_refused(arguments, msa_cpp.MsaInvalidArgument, "lse= is given without out=")


def test_classes_are_the_ones_python_knows(arguments):
    for error in (ValueError, RuntimeError, msa_cpp.MsaError):
        with pytest.raises(error):
            msa_cpp.msa_attention(**arguments | {"block_size": -1})
    with pytest.raises(NotImplementedError, match="head dim 12, allowed multiples of 8"):
        q, kv = torch.zeros(1, 1, 12), torch.zeros(1, 1, 12)
        msa_cpp.dense_attention(q, kv, kv, torch.tensor([0, 1]).int(), backend="cpu")


def test_out_has_no_gradient(arguments):
    arguments["q"] = arguments["q"].clone().requires_grad_()
    check_refused(arguments, ValueError, "out= has no gradient", "[58, 4, 16]")
    with torch.no_grad():
        msa_cpp.msa_attention(**arguments)
    assert (arguments["out"] != 77.0).all()


def test_gradients_of_the_selection():
    batch = cases.make_batch()
    picked = msa_cpp.index_select_blocks(
        batch.q_idx, batch.k_idx, batch.cu_q, batch.cu_k, top_k=3, block_size=8, with_lse=True,
        max_blocks=7,
    )  # fmt: skip
    assert not picked.block_ids.requires_grad
    for made in (picked.lse_idx, picked.block_scores):
        with pytest.raises(msa_cpp.MsaInvalidArgument) as raised:
            made[made.isfinite()].sum().backward()
        for word in ("the selection has no gradient", "[58, 2, 8]", "[123, 8]", "kl_loss"):
            assert word in str(raised.value)
    with pytest.raises(ValueError, match="out= has no gradient"):
        msa_cpp.index_select_blocks(
            batch.q_idx, batch.k_idx, batch.cu_q, batch.cu_k, top_k=3, block_size=8,
            block_ids=picked.block_ids,
        )  # fmt: skip


def test_keys_in_pages_have_no_gradient():
    cache = torch.zeros(4, 8, 2, 16, requires_grad=True)
    table, lengths = torch.zeros(1, 1).int(), torch.tensor([1]).int()
    rows = {"page_table": table, "kv_lens": lengths}
    cu = torch.tensor([0, 1]).int()
    with pytest.raises(ValueError, match=r"keys in pages have no gradient: got k \[4, 8, 2, 16\]"):
        msa_cpp.dense_attention(torch.zeros(1, 4, 16), cache, cache, cu, **rows)
    with pytest.raises(ValueError, match=r"k_cache requires grad: got \[4, 8, 2, 16\]"):
        msa_cpp.cache_append(
            cu, table, lengths, k=torch.zeros(1, 2, 16), v=torch.zeros(1, 2, 16), k_cache=cache,
            v_cache=cache,
        )  # fmt: skip


def kl_arguments(batch, top_k=3):
    options = {"block_size": 8, "backend": "reference"}
    rows = (batch.cu_q, batch.cu_k)
    picked = msa_cpp.index_select_blocks(
        batch.q_idx, batch.k_idx, *rows, top_k=top_k, with_lse=True, **options
    )
    _, lse = msa_cpp.msa_attention(batch.q, batch.k, batch.v, picked.block_ids, *rows, **options)
    return {
        "q": batch.q, "k": batch.k, "lse": lse, "q_idx": batch.q_idx, "k_idx": batch.k_idx,
        "lse_idx": picked.lse_idx, "block_ids": picked.block_ids, "cu_seqlens_q": batch.cu_q,
        "cu_seqlens_k": batch.cu_k, **options,
    }  # fmt: skip


def test_lse_of_another_selection():
    batch = cases.make_batch()
    good, other = kl_arguments(batch), kl_arguments(batch, top_k=2)
    _, whole = msa_cpp.dense_attention(
        batch.q, batch.k, batch.v, batch.cu_q, batch.cu_k, backend="reference"
    )
    wrong = [
        ({"lse": other["lse"]}, ["lse [58, 4] of another selection", "block_ids [2, 58, 3]"]),
        ({"lse_idx": other["lse_idx"]}, ["lse_idx [2, 58] of another selection"]),
        ({"lse": whole}, ["lse [58, 4] over all visible tokens and block_ids [2, 58, 3]"]),
        ({"block_ids": None}, ["lse [58, 4] over selected blocks and none"]),
    ]
    for change, words in wrong:
        with pytest.raises(msa_cpp.MsaInvalidArgument) as raised:
            msa_cpp.kl_loss(**good | change)
        for word in words:
            assert word in str(raised.value), str(raised.value)
    loss = msa_cpp.kl_loss(**good)
    copied = good | {"block_ids": good["block_ids"].clone()}  # the same ids in another tensor
    assert torch.equal(msa_cpp.kl_loss(**copied), loss)
    good["block_ids"][0, -1, 0] = 0
    with pytest.raises(msa_cpp.MsaInvalidArgument, match="were written since"):
        msa_cpp.kl_loss(**good)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("lse", lambda t: t[:-1].detach().clone(), ["lse has the wrong shape", "[57, 4]"]),
        ("lse", lambda t: t.detach().half(), ["lse has the wrong type", "float16"]),
        ("lse_idx", lambda t: t.detach().T.contiguous(), ["lse_idx has the wrong shape"]),
        ("k_idx", lambda t: t[:-1], ["k_idx has the wrong shape", "[122, 8]", "[123, 8]"]),
        ("coefficient", lambda _: float("nan"), ["coefficient is wrong"]),
        ("normaliser", lambda _: 0.0, ["normaliser is wrong: got 0"]),
    ],
)
def test_kl_refuses(name, change, words):
    good = kl_arguments(cases.make_batch())
    with pytest.raises(msa_cpp.MsaInvalidArgument) as raised:
        msa_cpp.kl_loss(**good | {name: change(good.get(name))})
    for word in words:
        assert word in str(raised.value), str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 3, "lse_scope": "all"}, "lse_scope is unknown: got 'all'"),
        ({"top_k": 0}, "no output is asked for"),
        ({"top_k": 3, "max_blocks": 2}, "block_scores"),
    ],
)
def test_index_refuses(options, message):
    batch = cases.make_batch()
    with pytest.raises(msa_cpp.MsaInvalidArgument, match=message):
        msa_cpp.index_select_blocks(
            batch.q_idx, batch.k_idx, batch.cu_q, batch.cu_k, block_size=8, **options
        )


def test_negative_top_k():
    batch = cases.make_batch()
    with pytest.raises(msa_cpp.MsaInvalidArgument, match="got -1"):
        msa_cpp.index_select_blocks(batch.q_idx, batch.k_idx, batch.cu_q, batch.cu_k, top_k=-1)


def test_pages_outside_the_cache_and_plans_of_nothing():
    q, cache = torch.zeros(1, 4, 16), torch.zeros(4, 8, 2, 16)
    table, lengths = torch.tensor([[9]]).int(), torch.tensor([3]).int()
    with pytest.raises(ValueError, match=r"page_table\[0, 0\] is outside the cache: got 9"):
        msa_cpp.decode(q, torch.zeros(1, 2, 8), cache, cache, torch.zeros(4, 8, 8), table, lengths,
                       top_k=1)  # fmt: skip
    with pytest.raises(ValueError, match=r"k_cache has the wrong shape: got \[4, 8, 2\]"):
        msa_cpp.decode(q, q, cache[..., 0], cache, cache, table, lengths, top_k=1)
    sizes = {"num_kv_heads": 2, "head_dim": 16, "index_dim": 8, "top_k": 3, "max_tokens": 5}
    with pytest.raises(ValueError, match="3 query heads on 2"):
        msa_cpp.plan(num_q_heads=3, max_keys=5, block_size=8, **sizes)
    with pytest.raises(ValueError, match="dtype is unknown: got torch.float64"):
        msa_cpp.plan(num_q_heads=4, max_keys=5, block_size=8, dtype=torch.float64, **sizes)


def run_with(environment, program):
    command = [sys.executable, "-c", "import msa_cpp\n" + program]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_the_environment_chooses(name):
    result = run_with({"MSA_BACKEND": name}, "print(msa_cpp.description())")
    assert result.stdout.startswith(f"{name}:"), result.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"MSA_BACKEND": "cuda"}, "cuda"),
        ({"MSA_BACKEND": "gpu"}, "MSA_BACKEND"),
        ({"MSA_THREADS": "0"}, "MSA_THREADS"),
    ],
)
def test_the_environment_is_checked(environment, words):
    result = run_with(environment, "print(msa_cpp.description())")
    assert result.returncode == 1
    assert "msa_cpp.errors.Msa" in result.stderr and words in result.stderr
