"""The names of msa_cpp.compat: proxy pass, top-k and attention on pages, against float64."""

import math

import msa_cpp
import oracle
import pytest
import torch
from msa_cpp.compat import (
    fmha_sm100,
    fmha_sm100_plan,
    sparse_atten_func,
    sparse_topk_select,
)

PAGE, DIM, GROUPS, HEADS, TOP_K = 8, 16, 2, 8, 3
QO, KV = (9, 1, 20), (60, 33, 20)


class Pages:
    """Two caches, as a proxy of one head and as the real one, on shuffled pages."""

    def __init__(self):
        generator = torch.Generator().manual_seed(2)
        counts = [-(-n // PAGE) for n in KV]
        self.kv_indices = torch.randperm(sum(counts) + 5, generator=generator)[: sum(counts)].int()

        def random(*shape):
            return torch.randn(*shape, generator=generator)

        self.proxy, self.k, self.v = (
            random(sum(counts) + 5, heads, PAGE, DIM) for heads in (1, GROUPS, GROUPS)
        )
        self.q_idx, self.q = random(sum(QO), GROUPS, DIM), random(sum(QO), HEADS, DIM)
        self.counts = counts
        self.lens = torch.tensor(QO, dtype=torch.int32), torch.tensor(KV, dtype=torch.int32)

    def packed(self, pages):
        """[Tk, heads, D] in float64: what the pages hold, request after request."""
        parts, first = [], 0
        for count, length in zip(self.counts, KV, strict=True):
            own = pages[self.kv_indices[first : first + count].long()]
            parts.append(own.transpose(1, 2).flatten(0, 1)[:length])
            first += count
        return torch.cat(parts).double()


CU_Q, CU_K = torch.tensor([0, 9, 10, 30]), torch.tensor([0, 60, 93, 113])


def test_proxy_selection_and_attention_on_pages():
    pages = Pages()
    plan = fmha_sm100_plan(*pages.lens, GROUPS, page_size=PAGE, output_maxscore=True)
    nothing, max_score = fmha_sm100(
        pages.q_idx, pages.proxy, None, plan, kv_indices=pages.kv_indices,
        sm_scale=1 / math.sqrt(DIM), output_o=False, output_maxscore=True,
    )  # fmt: skip
    assert nothing is None and max_score.shape == (GROUPS, 8, 30)
    wanted = oracle.block_scores(
        pages.q_idx.double(), pages.packed(pages.proxy)[:, 0], CU_Q, CU_K, PAGE, 8
    )
    torch.testing.assert_close(max_score.transpose(1, 2).double(), wanted, atol=1e-5, rtol=1e-5)

    picked = sparse_topk_select(max_score, TOP_K)
    assert picked.shape == (30, GROUPS, TOP_K)
    best = max_score.transpose(1, 2).topk(TOP_K).values
    scores = max_score.permute(2, 0, 1).gather(-1, picked.clamp_min(0).long())
    assert torch.equal(scores.sort().values, best.transpose(0, 1).sort().values)
    assert torch.equal(sparse_topk_select(max_score.contiguous(), TOP_K), picked)

    plan = fmha_sm100_plan(
        *pages.lens, HEADS, num_kv_heads=GROUPS, page_size=PAGE, kv_block_num=TOP_K
    )
    out, _ = fmha_sm100(
        pages.q, pages.k, pages.v, plan, kv_indices=pages.kv_indices, kv_block_indexes=picked
    )
    mask = oracle.selected_mask(picked.transpose(0, 1), CU_Q, CU_K, 113, PAGE)
    real = (pages.packed(pages.k), pages.packed(pages.v))
    wanted, _ = oracle.attention(pages.q.double(), *real, mask)
    torch.testing.assert_close(out.double(), wanted, atol=1e-5, rtol=1e-5)


def test_dense_and_offsets():
    """Every query as a request of its own, at the position that its offset says."""
    pages = Pages()
    plan = fmha_sm100_plan(*pages.lens, HEADS, num_kv_heads=GROUPS, page_size=PAGE)
    wanted, _ = fmha_sm100(pages.q, pages.k, pages.v, plan, kv_indices=pages.kv_indices)
    alone = fmha_sm100_plan(
        torch.ones(9, dtype=torch.int32), torch.full((9,), 60, dtype=torch.int32), HEADS,
        num_kv_heads=GROUPS, page_size=PAGE, qo_offset=torch.arange(51, 60),
    )  # fmt: skip
    out = torch.empty(9, HEADS, DIM)
    made, _ = fmha_sm100(
        pages.q[:9], pages.k, pages.v, alone, kv_indices=pages.kv_indices[:8].repeat(9), out=out
    )
    assert made is out
    torch.testing.assert_close(out, wanted[:9], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: plan_of(p, causal=False), NotImplementedError, "causal=False is not supported"),
        (lambda p: plan_of(p, use_fp8_kvcache=True), NotImplementedError, "use_fp8_kvcache is not"),
        (lambda p: plan_of(p, num_kv_splits=4), NotImplementedError, "num_kv_splits is not"),
        (
            lambda p: plan_of(p, qo_offset=torch.tensor([60, 0, 0])),
            ValueError,
            "request 0 does not",
        ),
        (lambda p: plan_of(p, qo_offset=torch.tensor([0])), ValueError, "lengths differ"),
        (lambda p: sparse_atten_func(), NotImplementedError, "allowed msa_cpp.msa_attention"),
        (lambda p: run_of(p, plan_of(p, kv_block_num=4)), ValueError, "got None, allowed 4"),
        (lambda p: run_of(p, plan_of(p), output_maxscore=True), ValueError, "output_maxscore are"),
        (lambda p: run_of(p, plan_of(p), lse=True), NotImplementedError, "lse is not supported"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call(Pages())
    assert isinstance(raised.value, msa_cpp.MsaError)


def plan_of(pages, **options):
    return fmha_sm100_plan(*pages.lens, HEADS, num_kv_heads=GROUPS, page_size=PAGE, **options)


def run_of(pages, plan, **options):
    return fmha_sm100(pages.q, pages.k, pages.v, plan, kv_indices=pages.kv_indices, **options)
