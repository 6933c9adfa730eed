"""The trainer's MSA against plain loops in float64: selection, attention, KL and its gradients."""

import json
from pathlib import Path

import brute
import pytest
import torch
from safetensors.torch import load_file

from training import msa


def tensors(length, seed, heads=4, groups=2, width=8, index=8):
    g = torch.Generator().manual_seed(seed)
    make = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    return (
        make(1, heads, length, width),
        make(1, groups, length, width),
        make(1, groups, length, width),
        make(1, groups, length, index),
        make(1, length, index),
    )


@pytest.mark.parametrize(
    "length,block,top_k", [(37, 4, 3), (64, 8, 2), (50, 4, 1), (29, 8, 16), (64, 4, 5)]
)
def test_selection_and_attention_equal_the_loops(length, block, top_k):
    q, k, v, q_idx, k_idx = tensors(length, length + top_k)
    bitmap = msa.select_all(q_idx.float(), k_idx.float(), block, top_k, chunk=16)
    ids = msa.bitmap_to_ids(bitmap, top_k)
    out = msa.sparse_attention_plain(q, k, v, bitmap, block)
    for g in range(2):
        for i in range(length):
            wanted = brute.select(
                brute.scores(q_idx[0, g, i].tolist(), k_idx[0].tolist(), i, block), i, block, top_k
            )
            assert ids[0, g, i].tolist() == wanted + [-1] * (top_k - len(wanted))
            tokens = [j for j in range(i + 1) if j // block in wanted]
            for h in (2 * g, 2 * g + 1):
                expected = brute.attend(
                    q[0, h, i].tolist(), k[0, g].tolist(), v[0, g].tolist(), tokens
                )[0]
                torch.testing.assert_close(
                    out[0, h, i], torch.tensor(expected, dtype=torch.float64)
                )


def test_ties_go_to_the_lower_block():
    rows = torch.tensor([[31, 17]])
    scores = torch.tensor([1.0, 2.0, 2.0, 0.0, 2.0, -1.0, 2.0, 9.0]).expand(1, 1, 2, 8)
    bitmap = msa.select_blocks(scores, rows, block=4, top_k=3)
    assert msa.bitmap_to_ids(bitmap, 3)[0, 0].tolist() == [[1, 2, 7], [1, 2, 4]]


def test_all_infinite_scores_and_negative_zero_are_ties():
    rows = torch.tensor([[31]])
    minus = torch.full((1, 1, 1, 8), float("-inf"))
    assert msa.bitmap_to_ids(msa.select_blocks(minus, rows, 4, 3), 3)[0, 0, 0].tolist() == [0, 1, 7]
    zeros = torch.tensor([0.0, -0.0, 0.0, -0.0, 0.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 8)
    assert msa.bitmap_to_ids(msa.select_blocks(zeros, rows, 4, 4), 4)[0, 0, 0].tolist() == [
        0,
        1,
        2,
        7,
    ]


def test_nan_scores_are_ignored():
    q_idx, k_idx = torch.ones(1, 1, 32, 8), torch.ones(1, 32, 8)
    k_idx[0, 0:4] = float("nan")
    k_idx[0, 5] = float("nan")
    scores = msa.block_scores(q_idx[:, :, 31:], k_idx, torch.tensor([[31]]), 4)
    assert scores[0, 0, 0, 0] == float("-inf")
    assert torch.isfinite(scores[0, 0, 0, 1:]).all()


def test_scores_keep_float32_under_autocast():
    q_idx, k_idx = (t.bfloat16() for t in tensors(48, 5, index=64)[3:])
    rows = torch.arange(48)[None]
    with torch.autocast("cpu", torch.bfloat16):
        scores = msa.block_scores(q_idx, k_idx, rows, 8)
    assert scores.dtype == torch.float32
    expected = msa.block_scores(q_idx.double(), k_idx.double(), rows, 8)
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=1e-6, check_dtype=False)


@pytest.mark.parametrize("sparse", [False, True])
def test_kl_value_and_gradients(sparse):
    length, block, top_k = 40, 4, 3
    q, k, _, q_idx, k_idx = tensors(length, 7)
    q_idx.requires_grad_(), k_idx.requires_grad_()
    rows = torch.tensor([[0, 5, 22, 39]])
    bitmap = None
    if sparse:
        bitmap = msa.select_blocks(
            msa.block_scores(q_idx[:, :, rows[0]], k_idx, rows, block), rows, block, top_k
        )
    value = msa.kl_rows(q[:, :, rows[0]], k, q_idx[:, :, rows[0]], k_idx, rows, bitmap, block)
    total = 0.0
    for g in range(2):
        for n, i in enumerate(rows[0].tolist()):
            tokens = list(range(i + 1))
            if sparse:
                tokens = [j for j in tokens if bitmap[0, g, n, j // block]]
            expected = brute.kl(
                q[0, 2 * g : 2 * g + 2, i].tolist(),
                k[0, g].tolist(),
                q_idx[0, g, i].tolist(),
                k_idx[0].tolist(),
                tokens,
            )
            assert abs(value[0, g, n].item() - expected) < 2e-6
            total += expected
    value.sum().backward()
    for tensor, place in ((q_idx, (0, 1, 22, 3)), (k_idx, (0, 21, 2)), (k_idx, (0, 0, 0))):
        step, sums = 1e-5, []
        for sign in (1, -1):
            moved_q, moved_k = q_idx.detach().clone(), k_idx.detach().clone()
            (moved_q if tensor is q_idx else moved_k)[place] += sign * step
            moved = 0.0
            for g in range(2):
                for n, i in enumerate(rows[0].tolist()):
                    tokens = [
                        j for j in range(i + 1) if bitmap is None or bitmap[0, g, n, j // block]
                    ]
                    moved += brute.kl(
                        q[0, 2 * g : 2 * g + 2, i].tolist(),
                        k[0, g].tolist(),
                        moved_q[0, g, i].tolist(),
                        moved_k[0].tolist(),
                        tokens,
                    )
            sums.append(moved)
        assert abs(tensor.grad[place].item() - (sums[0] - sums[1]) / (2 * step)) < 2e-5


def test_recalls_of_a_perfect_and_of_an_empty_selection():
    q, k, _, _, _ = tensors(64, 11)
    rows = torch.tensor([[60, 63]])
    p = msa.teacher_probabilities(q[:, :, rows[0]], k, msa.token_mask(rows, 64, None, 4))
    mass = p.view(1, 2, 2, 16, 4).sum(-1)
    best = torch.zeros_like(mass, dtype=torch.bool).scatter(-1, mass.topk(4, -1).indices, True)
    perfect = msa.recall_rows(q[:, :, rows[0]], k, best, rows, 4, 4)
    assert perfect["block_recall"].min() == 1 and perfect["score_recall"].min() > 1 - 1e-6
    nothing = msa.recall_rows(q[:, :, rows[0]], k, torch.zeros_like(best), rows, 4, 4)
    assert nothing["block_recall"].max() == 0 and nothing["score_recall_without_local"].max() == 0


def test_recalls_are_those_of_the_conformance_pack():
    folder = Path(__file__).parents[2] / "conformance" / "pack"
    index = json.loads((folder / "index.json").read_text())
    rule = next(rule for rule in index["rules"] if rule["rule"] == "recall.means")
    case = rule["cases"][0]
    stored = load_file(folder / "recall.means.safetensors")
    tensor = lambda entry: stored[entry["tensor"].split("/")[1]]
    inputs = {name: tensor(entry) for name, entry in case["inputs"].items()}
    block, top_k = case["arguments"]["block_size"], case["arguments"]["top_k"]
    length, num_rows = len(inputs["k"]), len(inputs["q"])
    chosen = inputs["block_ids"].long()
    bitmap = torch.zeros(*chosen.shape[:2], -(-length // block) + 1, dtype=torch.bool)
    bitmap.scatter_(-1, chosen.where(chosen >= 0, bitmap.shape[-1] - 1), True)
    rows = torch.arange(length - num_rows, length)[None]
    q, k = (inputs[name].double().transpose(0, 1)[None].contiguous() for name in ("q", "k"))
    recalls = msa.recall_rows(q, k, bitmap[None, ..., :-1], rows, block, top_k)
    for name, entry in case["expect"].items():
        assert abs(recalls[name].mean().item() - tensor(entry).item()) < 1e-5, name
