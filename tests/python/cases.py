"""What the tests of the Python package share: random packed batches and the spec's tolerances."""

import itertools
from dataclasses import dataclass

import msa_cpp
import torch

KINDS = ("reference", "cpu")


def backends_with(op, **sizes):
    """The backends of host memory that have an op; at least one always has."""
    found = [name for name in KINDS if not msa_cpp.unsupported(op, backend=name, **sizes)]
    assert found, f"no backend has {op}"
    return found


@dataclass
class Batch:
    """Packed requests. Leaves are in the storage type; `double` gives the oracle's copies."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    q_idx: torch.Tensor
    k_idx: torch.Tensor
    cu_q: torch.Tensor
    cu_k: torch.Tensor
    block: int
    top_k: int

    @property
    def leaves(self):
        return self.q, self.k, self.v, self.q_idx, self.k_idx

    def double(self):
        return [leaf.detach().double().requires_grad_() for leaf in self.leaves]


def make_batch(
    lengths=((50, 50), (7, 40), (1, 33)), heads=4, groups=2, dim=16, index_dim=8, block=8, top_k=3,
    dtype=torch.float32, seed=0, requires_grad=True,
):  # fmt: skip
    """lengths: (q_len, k_len) of each request."""
    generator = torch.Generator().manual_seed(seed)
    rows, keys = sum(q for q, _ in lengths), sum(k for _, k in lengths)

    def random(*shape):
        values = torch.randn(*shape, generator=generator).to(dtype)
        return values.requires_grad_(requires_grad)

    def offsets(counts):
        return torch.tensor([0, *itertools.accumulate(counts)], dtype=torch.int32)

    return Batch(
        random(rows, heads, dim), random(keys, groups, dim), random(keys, groups, dim),
        random(rows, groups, index_dim), random(keys, index_dim),
        offsets(q for q, _ in lengths), offsets(k for _, k in lengths), block, top_k,
    )  # fmt: skip


TOLERANCES = {  # absolute, relative, Frobenius, gradients' Frobenius; lse: absolute
    torch.float32: (1e-5, 1e-5, 1e-5, 1e-4, 1e-5),
    torch.bfloat16: (2e-2, 1e-2, 5e-3, 1e-2, 2e-3),
    torch.float16: (2e-2, 1e-2, 5e-3, 1e-2, 2e-3),
}


def frobenius(got, wanted):
    return float((got.double() - wanted).norm() / wanted.norm().clamp_min(1e-30))


def assert_out(got, wanted, dtype):
    absolute, relative, norm, _, _ = TOLERANCES[dtype]
    wanted = wanted.detach()
    torch.testing.assert_close(got.detach().double(), wanted, atol=absolute, rtol=relative)
    assert frobenius(got.detach(), wanted) < norm


def assert_lse(got, wanted, dtype):
    absolute = TOLERANCES[dtype][4]
    relative = absolute if dtype == torch.float32 else 0.0
    torch.testing.assert_close(got.detach().double(), wanted.detach(), atol=absolute, rtol=relative)


def assert_gradient(name, got, wanted, dtype):
    assert got.isfinite().all(), name
    assert frobenius(got, wanted) < TOLERANCES[dtype][3], name
