"""Forward and backward of the operators against float64 autograd of the formulas."""

import cases
import msa_cpp
import oracle
import pytest
import torch

TRAINING = ("attention_backward", "dense_attention_backward", "kl_forward_backward")
BACKENDS = [
    name
    for name in cases.KINDS
    if not any(msa_cpp.unsupported(op, head_dim=16, backend=name) for op in TRAINING)
]
LENGTHS = {
    "one": ((64, 64),),
    "mixed": ((50, 50), (7, 40), (1, 33)),
    "rows that see nothing": ((9, 5), (0, 12), (20, 20)),
    "spare rows and keys": ((12, 30), (3, 3)),
}


def selection(batch, backend, **options):
    return msa_cpp.index_select_blocks(
        batch.q_idx, batch.k_idx, batch.cu_q, batch.cu_k, top_k=batch.top_k,
        block_size=batch.block, with_lse=True, backend=backend, **options,
    )  # fmt: skip


def test_some_backend_can_train():
    assert "reference" in BACKENDS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
def test_step(sparse, backend, lengths, dtype):
    """out, lse, all gradients (of out and of lse) and the KL loss with its gradients."""
    batch = cases.make_batch(lengths, dtype=dtype)
    rows, keys = batch.q.shape[0], batch.k.shape[0]
    q, k, v, q_idx, k_idx = batch.double()
    if sparse:
        chosen = selection(batch, backend)
        ids = chosen.block_ids
        mask = oracle.selected_mask(ids, batch.cu_q, batch.cu_k, keys, batch.block)
        out, lse = msa_cpp.msa_attention(
            batch.q, batch.k, batch.v, ids, batch.cu_q, batch.cu_k, block_size=batch.block,
            backend=backend,
        )  # fmt: skip
    else:
        chosen = msa_cpp.index_select_blocks(
            batch.q_idx, batch.k_idx, batch.cu_q, batch.cu_k, top_k=0, with_lse=True,
            lse_scope="visible", block_size=batch.block, backend=backend,
        )  # fmt: skip
        ids = None
        mask = oracle.whole_mask(2, batch.cu_q, batch.cu_k, rows, keys)
        out, lse = msa_cpp.dense_attention(
            batch.q, batch.k, batch.v, batch.cu_q, batch.cu_k, backend=backend
        )
    wanted_out, wanted_lse = oracle.attention(q, k, v, mask)
    cases.assert_out(out, wanted_out, dtype)
    cases.assert_lse(lse, wanted_lse, dtype)
    cases.assert_lse(chosen.lse_idx, oracle.index_lse(q_idx, k_idx, mask), dtype)

    generator = torch.Generator().manual_seed(1)
    dout = torch.randn(out.shape, generator=generator).to(dtype)
    dlse = torch.randn(lse.shape, generator=generator)
    dlse = torch.where(lse.isfinite(), dlse, torch.zeros_like(dlse))
    finite = wanted_lse.isfinite()
    got = torch.autograd.grad((out, lse), batch.leaves[:3], (dout, dlse))
    wanted = torch.autograd.grad(
        (wanted_out * dout.double()).sum() + (wanted_lse[finite] * dlse[finite]).sum(), (q, k, v)
    )
    for name, mine, theirs in zip(("dq", "dk", "dv"), got, wanted, strict=True):
        cases.assert_gradient(name, mine, theirs, dtype)

    loss = msa_cpp.kl_loss(
        batch.q, batch.k, lse, batch.q_idx, batch.k_idx, chosen.lse_idx, ids, batch.cu_q,
        batch.cu_k, block_size=batch.block, coefficient=3.0, backend=backend,
    )  # fmt: skip
    wanted_loss = oracle.kl(q, k, q_idx, k_idx, mask, 2.0 * rows, 3.0)
    torch.testing.assert_close(loss.double(), wanted_loss, atol=1e-5, rtol=1e-4)
    got = torch.autograd.grad(loss, batch.leaves[3:])
    wanted = torch.autograd.grad(wanted_loss, (q_idx, k_idx))
    for name, mine, theirs in zip(("dq_idx", "dk_idx"), got, wanted, strict=True):
        cases.assert_gradient(name, mine, theirs, dtype)
