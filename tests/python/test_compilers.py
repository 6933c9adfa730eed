"""What PyTorch's own tools say: opcheck, gradcheck, torch.compile, activation checkpointing."""

import cases
import msa_cpp
import pytest
import torch
from torch.utils.checkpoint import checkpoint

REFERENCE = 1
OPS = torch.ops.msa_cpp
SPARSE = (8, None, 0, REFERENCE)  # block_size, scale, layout, backend


@pytest.fixture
def batch():
    return cases.make_batch()


@pytest.fixture
def saved(batch):
    """Detached leaves, selection, out and lse."""
    leaves = [leaf.detach() for leaf in batch.leaves]
    picked = msa_cpp.index_select_blocks(
        *leaves[3:], batch.cu_q, batch.cu_k, top_k=3, block_size=8, with_lse=True,
        backend="reference",
    )  # fmt: skip
    out, lse = msa_cpp.msa_attention(
        *leaves[:3], picked.block_ids, batch.cu_q, batch.cu_k, block_size=8, backend="reference"
    )
    return leaves, picked, out, lse


def step(batch, backend="reference"):
    """A training step as a function of the five leaves: one number."""

    def loss(q, k, v, q_idx, k_idx):
        options = {"block_size": batch.block, "backend": backend}
        picked = msa_cpp.index_select_blocks(
            q_idx, k_idx, batch.cu_q, batch.cu_k, top_k=batch.top_k, with_lse=True, **options
        )
        out, lse = msa_cpp.msa_attention(
            q, k, v, picked.block_ids, batch.cu_q, batch.cu_k, **options
        )
        kl = msa_cpp.kl_loss(
            q, k, lse, q_idx, k_idx, picked.lse_idx, picked.block_ids, batch.cu_q, batch.cu_k,
            **options,
        )  # fmt: skip
        return (out * out).sum() + kl

    return loss


def gradients(function, leaves):
    return torch.autograd.grad(function(*leaves), leaves)


@pytest.mark.parametrize("sparse", [True, False])
def test_opcheck_attention(batch, saved, sparse):
    ids = saved[1].block_ids if sparse else None
    arguments = (batch.q, batch.k, batch.v, ids, batch.cu_q, batch.cu_k, None, None, 0, *SPARSE)
    torch.library.opcheck(OPS.attention_forward, arguments)


def test_opcheck_attention_backward(batch, saved):
    (q, k, v, _, _), picked, out, lse = saved
    dout, dlse = torch.randn_like(out), torch.randn_like(lse)
    rest = (picked.block_ids, batch.cu_q, batch.cu_k, out, lse, *SPARSE)
    torch.library.opcheck(OPS.attention_backward, (dout, dlse, q, k, v, *rest))


def test_opcheck_kl(batch, saved):
    (q, k, *_), picked, _, lse = saved
    rest = (picked.lse_idx, picked.block_ids, batch.cu_q, batch.cu_k, 8, None, None, 0, 1.0, 50.0)
    torch.library.opcheck(
        OPS.kl_forward_backward, (q, k, lse, batch.q_idx, batch.k_idx, *rest, REFERENCE)
    )


@pytest.mark.parametrize(
    "wanted", [(3, True, False, 8), (3, False, False, 0), (0, False, False, 8)]
)
def test_opcheck_index(batch, saved, wanted):
    rows = (*saved[0][3:], batch.cu_q, batch.cu_k, None, None, 0)
    torch.library.opcheck(OPS.index_forward, (*rows, *SPARSE, *wanted))


@pytest.mark.parametrize("layout", [0, 1])
def test_opcheck_select_blocks(layout):
    scores, local = torch.randn(2, 7, 12), torch.arange(-1, 6).int()
    torch.library.opcheck(OPS.select_blocks, (scores, local, 4, layout, REFERENCE))


def test_opcheck_what_writes(batch, saved):
    (q, k, v, q_idx, k_idx), picked, out, lse = saved
    rows = (batch.cu_q, batch.cu_k, None, None, 0, *SPARSE)
    torch.library.opcheck(
        OPS.attention_forward_out, (q, k, v, picked.block_ids, *rows),
        {"out": torch.empty_like(out), "lse": torch.empty_like(lse), "workspace": None},
    )  # fmt: skip
    torch.library.opcheck(
        OPS.index_forward_out, (q_idx, k_idx, *rows, False),
        {"block_ids": torch.empty_like(picked.block_ids), "lse_idx": None, "block_scores": None,
         "workspace": None},
    )  # fmt: skip
    table = torch.arange(21, dtype=torch.int32).view(3, 7)
    lengths = batch.cu_k.diff().int()
    caches = (torch.zeros(21, 8, 2, 16), torch.zeros(21, 8, 2, 16), torch.zeros(21, 8, 8))
    torch.library.opcheck(
        OPS.cache_append,
        (batch.cu_q, table, lengths, k[:58].clone(), v[:58].clone(), k_idx[:58].clone(), *caches,
         REFERENCE),
    )  # fmt: skip


NOT_DOUBLE = pytest.mark.filterwarnings("ignore:Input .* requires gradient and is not a double")


@NOT_DOUBLE
@pytest.mark.parametrize("fast", [True, False], ids=["projections", "every element"])
def test_gradcheck(fast):
    """Finite differences of float32 results, whose arithmetic in `reference` is float64."""
    lengths = ((50, 50), (7, 40), (1, 33)) if fast else ((5, 5), (2, 4))
    batch = cases.make_batch(lengths, dim=8, block=4, top_k=2)
    chosen = msa_cpp.index_select_blocks(
        batch.q_idx.detach(), batch.k_idx.detach(), batch.cu_q, batch.cu_k, top_k=2, block_size=4,
        with_lse=True,
    )  # fmt: skip
    options = {"block_size": 4, "backend": "reference"}

    def attention(q, k, v):
        return msa_cpp.msa_attention(q, k, v, chosen.block_ids, batch.cu_q, batch.cu_k, **options)

    limits = {"eps": 1e-2, "atol": 2e-3, "rtol": 2e-3, "fast_mode": fast}
    assert torch.autograd.gradcheck(attention, batch.leaves[:3], **limits)

    def kl(q_idx, k_idx):
        """lse_idx is made anew: it moves with the projections, as it does in training."""
        again = msa_cpp.index_select_blocks(
            q_idx.detach(), k_idx.detach(), batch.cu_q, batch.cu_k, top_k=0, with_lse=True,
            lse_scope="visible", **options,
        )  # fmt: skip
        return msa_cpp.kl_loss(
            batch.q, batch.k, whole_lse, q_idx, k_idx, again.lse_idx, None, batch.cu_q, batch.cu_k,
            normaliser=1.0, **options,
        )  # fmt: skip

    _, whole_lse = msa_cpp.dense_attention(
        *[leaf.detach() for leaf in batch.leaves[:3]], batch.cu_q, batch.cu_k, backend="reference"
    )
    assert torch.autograd.gradcheck(kl, batch.leaves[3:], **limits)


@NOT_DOUBLE
def test_gradcheck_can_fail(batch):
    """A gradient that is wrong by a fiftieth is found at the limits used above."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q):
            ctx.save_for_backward(q)
            return q * q

        @staticmethod
        def backward(ctx, dout):
            return 2.04 * ctx.saved_tensors[0] * dout

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(Wrong.apply, batch.q, eps=1e-2, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_bits(batch, reentrant):
    wanted = gradients(step(batch), batch.leaves)
    checkpoint(step(batch), *batch.leaves, use_reentrant=reentrant).backward()
    for leaf, theirs in zip(batch.leaves, wanted, strict=True):
        assert torch.equal(leaf.grad, theirs)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager", "inductor"])
def test_compile_whole_step(batch, compiler):
    torch.compiler.reset()
    wanted = gradients(step(batch), batch.leaves)
    got = gradients(torch.compile(step(batch), fullgraph=True, backend=compiler), batch.leaves)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_compile_once_for_any_length():
    """With dynamic shapes a second and third length compile nothing new."""
    torch.compiler.reset()
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    batches = [cases.make_batch(((n, n),), requires_grad=False) for n in (40, 56, 72)]

    @torch.compile(fullgraph=True, backend=backend, dynamic=True)
    def forward(q, k, v, q_idx, k_idx, cu):
        picked = msa_cpp.index_select_blocks(q_idx, k_idx, cu, top_k=3, block_size=8)
        return msa_cpp.msa_attention(q, k, v, picked.block_ids, cu, block_size=8)

    for batch in batches:
        out, lse = forward(*batch.leaves, batch.cu_q)
        picked = msa_cpp.index_select_blocks(
            batch.q_idx, batch.k_idx, batch.cu_q, top_k=3, block_size=8
        )
        wanted = msa_cpp.msa_attention(
            batch.q, batch.k, batch.v, picked.block_ids, batch.cu_q, block_size=8
        )
        assert torch.equal(out, wanted[0]) and torch.equal(lse, wanted[1])
    assert len(compilations) == 1


def test_compile_with_outputs_of_the_caller(batch, saved):
    torch.compiler.reset()
    (q, k, v, q_idx, k_idx), picked, wanted, _ = saved
    ids, out = torch.empty_like(picked.block_ids), torch.empty_like(q)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def forward(q, k, v, q_idx, k_idx):
        options = {"block_size": 8, "backend": "reference"}
        msa_cpp.index_select_blocks(
            q_idx, k_idx, batch.cu_q, batch.cu_k, top_k=3, block_ids=ids, **options
        )
        msa_cpp.msa_attention(q, k, v, ids, batch.cu_q, batch.cu_k, out=out, **options)
        return out * 2

    assert torch.equal(forward(q, k, v, q_idx, k_idx), 2 * wanted)
    assert torch.equal(ids, picked.block_ids) and torch.equal(out, wanted)


def test_fake_tensors_run_nothing(batch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        q = torch.empty(1 << 20, 64, 128, dtype=torch.bfloat16)
        k = torch.empty(1 << 20, 4, 128, dtype=torch.bfloat16)
        ids = torch.empty(4, 1 << 20, 16, dtype=torch.int32)
        cu = torch.empty(2, dtype=torch.int32)
        out, lse = msa_cpp.msa_attention(q, k, k, ids, cu)
        assert out.shape == q.shape and out.dtype == q.dtype
        assert lse.shape == (1 << 20, 64) and lse.dtype == torch.float32
