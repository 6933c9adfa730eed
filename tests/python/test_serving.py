"""Paged caches, decode, plan and run against one packed call over the same tokens."""

import cases
import msa_cpp
import pytest
import torch

BLOCK, TOP_K, HEADS, GROUPS, DIM, INDEX_DIM = 8, 3, 4, 2, 16, 8
LENGTHS = (61, 24, 8)  # ends inside a block, on its edge, one block


class Requests:
    """Three prompts with all that their tokens project to, and empty paged caches for them."""

    def __init__(self, packed_kv=False, dtype=torch.float32):
        generator = torch.Generator().manual_seed(5)

        def random(*shape):
            return torch.randn(*shape, generator=generator).to(dtype)

        self.batch = cases.make_batch(
            tuple((n, n) for n in LENGTHS), HEADS, GROUPS, DIM, INDEX_DIM, BLOCK, TOP_K, dtype,
            requires_grad=False,
        )  # fmt: skip
        pages = 40
        shuffled = torch.randperm(pages, generator=generator).int()
        self.page_table = shuffled[: 3 * 10].view(3, 10).clone()
        nan = float("nan")
        if (
            packed_kv
        ):  # K and V of a page side by side, head by head: strided views of one allocation
            both = torch.full((pages, GROUPS, 2, BLOCK, DIM), nan, dtype=dtype)
            self.k_cache = both[:, :, 0].transpose(1, 2)
            self.v_cache = both[:, :, 1].transpose(1, 2)
        else:
            self.k_cache = torch.full((pages, BLOCK, GROUPS, DIM), nan, dtype=dtype)
            self.v_cache = self.k_cache.clone()
        self.k_idx_cache = torch.full((pages, BLOCK, INDEX_DIM), nan, dtype=dtype)
        self.caches = (self.k_cache, self.v_cache, self.k_idx_cache)

    def rows(self, begins, ends):
        """Tokens begin ... end-1 of each request, packed."""
        starts = [0, *torch.tensor(LENGTHS).cumsum(0).tolist()]
        index = torch.cat(
            [torch.arange(starts[r] + begins[r], starts[r] + ends[r]) for r in range(3)]
        )
        return [leaf[index] for leaf in self.batch.leaves]


def offsets(counts):
    return torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()], dtype=torch.int32)


@pytest.mark.parametrize("backend", cases.KINDS)
@pytest.mark.parametrize("packed_kv", [False, True], ids=["NHD", "K and V packed, HND"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_and_decode_equal_one_call(dtype, packed_kv, backend):
    requests = Requests(packed_kv, dtype)
    batch = requests.batch
    options = {"block_size": BLOCK, "backend": backend}
    picked = msa_cpp.index_select_blocks(
        batch.q_idx, batch.k_idx, batch.cu_q, top_k=TOP_K, **options
    )
    wanted, wanted_lse = msa_cpp.msa_attention(
        batch.q, batch.k, batch.v, picked.block_ids, batch.cu_q, **options
    )
    done = [0, 0, 0]
    got, got_ids = [[], [], []], [[], [], []]
    for ends in [(20, 5, 3), (27, 21, 3), (60, 24, 7), (61, 24, 8)]:
        counts = [end - begin for begin, end in zip(done, ends, strict=True)]
        q, k, v, q_idx, k_idx = requests.rows(done, ends)
        out, lse, ids = msa_cpp.decode(
            q, q_idx, *requests.caches, requests.page_table,
            torch.tensor(ends, dtype=torch.int32), offsets(counts), top_k=TOP_K, k=k, v=v,
            k_idx=k_idx, backend=backend,
        )  # fmt: skip
        first = 0
        for r, count in enumerate(counts):
            got[r].append((out[first : first + count], lse[first : first + count]))
            got_ids[r].append(ids[:, first : first + count])
            first += count
        done = list(ends)
    ids = torch.cat([torch.cat(part, 1) for part in got_ids], 1)
    assert torch.equal(ids, picked.block_ids)
    out = torch.cat([part[0] for parts in got for part in parts])
    lse = torch.cat([part[1] for parts in got for part in parts])
    cases.assert_out(out, wanted.double(), dtype)
    cases.assert_lse(lse, wanted_lse.double(), dtype)


def test_decode_of_one_token_each_and_outputs_of_the_caller():
    requests = Requests()
    q, k, v, q_idx, k_idx = requests.batch.leaves
    lengths = torch.tensor(LENGTHS, dtype=torch.int32)
    msa_cpp.cache_append(
        requests.batch.cu_q, requests.page_table, lengths, k=k, v=v, k_idx=k_idx,
        k_cache=requests.k_cache, v_cache=requests.v_cache, k_idx_cache=requests.k_idx_cache,
    )  # fmt: skip
    q, _, _, q_idx, _ = requests.rows([n - 1 for n in LENGTHS], LENGTHS)
    arguments = (q, q_idx, *requests.caches, requests.page_table, lengths)
    wanted = msa_cpp.decode(*arguments, top_k=TOP_K)
    plan = msa_cpp.plan(
        num_q_heads=HEADS, num_kv_heads=GROUPS, head_dim=DIM, index_dim=INDEX_DIM, top_k=TOP_K,
        block_size=BLOCK, max_tokens=3, max_keys=40, max_batch=3, max_pages=10,
        dtype=torch.float32,
    )  # fmt: skip
    ids = torch.empty(GROUPS, 3, TOP_K, dtype=torch.int32)
    out, lse = torch.empty_like(q), torch.empty(3, HEADS)
    got = msa_cpp.decode(
        *arguments, top_k=TOP_K, block_ids=ids, out=out, lse=lse, workspace=plan.new_workspace()
    )
    assert got[0] is out and got[1] is lse and got[2] is ids
    for mine, theirs in zip(got, wanted, strict=True):
        assert torch.equal(mine, theirs)


def test_copy_pages_copies_all_three_caches():
    requests = Requests()
    for cache in requests.caches:
        cache.normal_()
    before = [cache.clone() for cache in requests.caches]
    msa_cpp.copy_pages(
        torch.tensor([[3, 17], [5, 2]], dtype=torch.int32), k_cache=requests.k_cache,
        v_cache=requests.v_cache, k_idx_cache=requests.k_idx_cache,
    )  # fmt: skip
    for cache, old in zip(requests.caches, before, strict=True):
        assert torch.equal(cache[17], old[3]) and torch.equal(cache[2], old[5])
        untouched = [page for page in range(40) if page not in (2, 17)]
        assert torch.equal(cache[untouched], old[untouched])


def planned(**changes):
    options = {
        "num_q_heads": HEADS, "num_kv_heads": GROUPS, "head_dim": DIM, "index_dim": INDEX_DIM,
        "top_k": TOP_K, "block_size": BLOCK, "max_tokens": 200, "max_keys": 300, "max_batch": 5,
        "dtype": torch.float32,
    }  # fmt: skip
    return msa_cpp.plan(**(options | changes))


@pytest.mark.parametrize("layout", ["head_major", "token_major"])
def test_layouts_hold_the_same_ids(layout):
    batch = Requests().batch
    options = {"top_k": TOP_K, "block_size": BLOCK}
    native = msa_cpp.index_select_blocks(batch.q_idx, batch.k_idx, batch.cu_q, **options)
    other = msa_cpp.index_select_blocks(
        batch.q_idx, batch.k_idx, batch.cu_q, layout=layout, **options
    )
    shaped = other.block_ids if layout == "head_major" else other.block_ids.transpose(0, 1)
    assert torch.equal(shaped, native.block_ids)


def test_run_within_a_plan_equals_the_functions():
    """One plan and one workspace for calls of several sizes; every output is the caller's."""
    plan = planned()
    workspace = plan.new_workspace()
    for lengths in [((50, 50), (7, 40)), ((1, 90),), ((61, 61), (24, 24), (8, 8))]:
        batch = cases.make_batch(lengths, HEADS, GROUPS, DIM, INDEX_DIM, requires_grad=False)
        rows = batch.q.shape[0]
        ids = torch.empty(GROUPS, rows, TOP_K, dtype=torch.int32)
        out, lse = torch.empty_like(batch.q), torch.empty(rows, HEADS)
        lse_idx = torch.empty(GROUPS, rows)
        msa_cpp.run(
            plan, *batch.leaves, batch.cu_q, batch.cu_k, block_ids=ids, out=out, lse=lse,
            lse_idx=lse_idx, workspace=workspace,
        )  # fmt: skip
        picked = msa_cpp.index_select_blocks(
            batch.q_idx, batch.k_idx, batch.cu_q, batch.cu_k, top_k=TOP_K, block_size=BLOCK,
            with_lse=True,
        )  # fmt: skip
        wanted = msa_cpp.msa_attention(
            batch.q, batch.k, batch.v, picked.block_ids, batch.cu_q, batch.cu_k, block_size=BLOCK
        )
        for mine, theirs in zip((ids, lse_idx, out, lse), (*picked[:2], *wanted), strict=True):
            assert torch.equal(mine, theirs)


def test_plans_know_training_and_pages():
    plan = planned(training=True, backend="reference")
    assert "kl_forward_backward" in plan.op_bytes
    paged = planned(max_pages=10)
    assert paged.workspace_bytes == max(paged.op_bytes.values())


def test_larger_calls_need_no_less():
    assert planned().workspace_bytes <= planned(max_tokens=400, max_keys=600).workspace_bytes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": 10}, r"\[run\] more query tokens than planned: got 57, allowed 10"),
        ({"max_keys": 10}, r"\[run\] more key tokens than planned: got 90, allowed 10"),
        ({"max_batch": 1}, r"\[run\] more requests than planned: got 2, allowed 1"),
        ({"dtype": torch.float16}, r"\[run\] q has another type than planned"),
    ],
)
def test_a_call_beyond_its_plan_is_refused(changes, message):
    batch = cases.make_batch(
        ((50, 50), (7, 40)), HEADS, GROUPS, DIM, INDEX_DIM, requires_grad=False
    )
    plan = planned(**changes)
    ids = torch.full((GROUPS, 57, TOP_K), 77, dtype=torch.int32)
    out = torch.full_like(batch.q, 77.0)
    with pytest.raises(msa_cpp.MsaInvalidArgument, match=message):
        msa_cpp.run(
            plan, *batch.leaves, batch.cu_q, batch.cu_k, block_ids=ids, out=out,
            workspace=plan.new_workspace(),
        )  # fmt: skip
    assert (ids == 77).all() and (out == 77.0).all()


@pytest.mark.parametrize("backend", cases.KINDS)
def test_selection_over_scores_is_that_of_the_index(backend):
    batch = Requests().batch
    options = {"top_k": TOP_K, "backend": backend}
    picked = msa_cpp.index_select_blocks(
        batch.q_idx, batch.k_idx, batch.cu_q, block_size=BLOCK, max_blocks=8, **options
    )
    local = torch.cat([torch.arange(n) // BLOCK for n in LENGTHS]).int()
    ids = msa_cpp.select_blocks(picked.block_scores, local_blocks=local, **options)
    assert torch.equal(ids, picked.block_ids)
    other = torch.empty(sum(LENGTHS), GROUPS, TOP_K, dtype=torch.int32)
    msa_cpp.select_blocks(
        picked.block_scores, local_blocks=local, layout="token_major", block_ids=other, **options
    )
    assert torch.equal(other.transpose(0, 1), ids)
    free = msa_cpp.select_blocks(picked.block_scores, **options)
    best = picked.block_scores.topk(TOP_K).indices.sort().values
    rows = picked.block_scores.isfinite().sum(-1) >= TOP_K
    assert torch.equal(free[rows].long(), best[rows])


def test_a_longer_request_than_said_is_refused():
    batch = Requests().batch
    with pytest.raises(ValueError, match="request 0 has more rows than max_query_length: got 61"):
        msa_cpp.dense_attention(batch.q, batch.k, batch.v, batch.cu_q, max_query_length=16)
