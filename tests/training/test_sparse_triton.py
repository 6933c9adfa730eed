"""The Triton kernels against the plain path: on CUDA where there is one, else in Triton's interpreter
(tests/conftest.py)."""

import pytest
import torch

from training import msa, sparse_triton

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def inputs(batch, heads, group, length, width, seed):
    """Tensors as the model makes them: [B, N, heads, D] in memory, seen as [B, heads, N, D]."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(DEVICE)

    main = [
        draw(batch, length, count, width).transpose(1, 2) for count in (heads * group, heads, heads)
    ]
    return main, draw(batch, heads, length, width), draw(batch, length, width)


@pytest.mark.parametrize("first,rows,block", [(0, 96, 16), (37, 50, 16), (95, 1, 32)])
def test_block_scores(first, rows, block):
    _, q_idx, k_idx = inputs(2, 3, 1, 96, 16, first)
    q_idx, k_idx = q_idx[:, :, first : first + rows].clone(), k_idx.clone()
    k_idx[0, 5] = float("nan")
    places = torch.arange(first, first + rows, device=DEVICE).expand(2, -1)
    expected = msa.block_scores(q_idx, k_idx, places, block)
    got = sparse_triton.block_scores(q_idx, k_idx, first, block)
    torch.testing.assert_close(got, expected, atol=1e-2 if CUDA else 1e-5, rtol=0)


@pytest.mark.parametrize("blocks,top_k", [(8, 3), (40, 16), (5, 9), (7, 1)])
def test_selection_with_ties_and_infinities(blocks, top_k):
    block, first = 4, 3
    rows = blocks * block - first
    generator = torch.Generator().manual_seed(blocks)
    scores = torch.randint(-2, 3, (2, 2, rows, blocks), generator=generator).float().to(DEVICE)
    scores[0, 0, ::3] = float("-inf")
    scores[1, 1, ::2, 1] = float("inf")
    scores[0, 1, :, 0] = -0.0
    places = torch.arange(first, first + rows, device=DEVICE).expand(2, -1)
    expected = msa.select_blocks(scores, places, block, top_k)
    got = sparse_triton.select_blocks(scores, first, block, top_k)
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    "batch,heads,group,length,width,block,top_k",
    [(1, 2, 2, 128, 16, 16, 3), (2, 1, 4, 128, 32, 64, 1), (1, 2, 1, 96, 16, 16, 4), (1, 1, 3, 64, 16, 16, 2)],
)  # fmt: skip
def test_attention_and_its_gradients(batch, heads, group, length, width, block, top_k):
    main, q_idx, k_idx = inputs(batch, heads, group, length, width, 7 + group)
    bitmap = msa.select_all(q_idx, k_idx, block, top_k, chunk=32)
    assert not bitmap[:, :, -1].all()
    plain = [tensor.clone().requires_grad_() for tensor in main]
    fused = [tensor.clone().requires_grad_() for tensor in main]
    expected = msa.sparse_attention_plain(*plain, bitmap, block)
    got = sparse_triton.sparse_attention(*fused, bitmap, block)
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    tolerance = (
        {"atol": 2e-2, "rtol": 2e-2} if CUDA else {"atol": 5e-6, "rtol": 1e-5}
    )  # TF32 on CUDA
    torch.testing.assert_close(got, expected, **tolerance)
    for a, b in zip(
        torch.autograd.grad(got, fused, weight), torch.autograd.grad(expected, plain, weight)
    ):
        torch.testing.assert_close(a, b, **tolerance)


def test_a_length_that_is_no_multiple_of_the_tile_is_refused():
    bitmap = torch.ones(1, 24, 2, dtype=torch.bool, device=DEVICE)
    with pytest.raises(ValueError, match="got 24"):
        sparse_triton.touched_blocks(bitmap)
