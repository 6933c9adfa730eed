"""MsaAttention against the trainer's plain layer and float64 autograd, in all three phases."""

import copy

import msa_cpp
import oracle
import pytest
import torch
from test_gradients import BACKENDS

from training import model as trainer

HIDDEN, HEADS, GROUPS, DIM, INDEX_DIM, BLOCK, TOP_K, ROTARY = 32, 4, 2, 16, 8, 8, 3, 8
LENGTHS = (45, 1, 30)
TOKENS = sum(LENGTHS)
CU = torch.tensor([0, 45, 46, 76], dtype=torch.int32)


class Config:
    """What the trainer's layer reads of its configuration."""

    hidden_size, num_attention_heads, num_key_value_heads = HIDDEN, HEADS, GROUPS
    head_dim, index_head_dim, rms_norm_eps = DIM, INDEX_DIM, 1e-6
    dense_intermediate_size, swiglu_alpha, swiglu_limit = 8, 1.7, 7.0


def make_module(phase="sparse", **options):
    torch.manual_seed(3)
    module = msa_cpp.MsaAttention(
        HIDDEN, HEADS, GROUPS, DIM, INDEX_DIM, block_size=BLOCK, top_k=TOP_K, phase=phase, **options
    )
    for name, parameter in module.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    return module


def inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(TOKENS, HIDDEN, generator=generator).to(dtype).requires_grad_()
    positions = torch.cat([torch.arange(n) for n in LENGTHS]).float()
    angles = positions[:, None] / 100.0 ** (torch.arange(0, ROTARY, 2) / ROTARY)
    angles = torch.cat((angles, angles), -1)
    return x, (angles.cos(), angles.sin())


def double_forward(module, x, rotary, block_ids):
    """The layer in float64 by the oracle's formulas, with the given selection (None: all)."""
    double = copy.deepcopy(module).double()
    layer = torch.nn.Module()
    layer.self_attn, layer.input_layernorm = double, torch.nn.Identity()
    rotary = [part.double() for part in rotary]
    x = x.detach().double().requires_grad_()
    q, k, v, q_idx, k_idx = without_float32(
        lambda: trainer.before_attention(layer, x, *rotary, DIM, INDEX_DIM)
    )
    if block_ids is None:
        mask = oracle.whole_mask(GROUPS, CU, CU, TOKENS, TOKENS)
    else:
        mask = oracle.selected_mask(block_ids, CU, CU, TOKENS, BLOCK)
    out, _ = oracle.attention(q, k, v, mask)
    kl = oracle.kl(q, k, q_idx, k_idx[:, 0], mask, GROUPS * TOKENS)
    return double, x, double.o_proj(out.reshape(TOKENS, -1)), kl


def without_float32(function):
    """Runs a layer whose norms and rotation go through .float() in float64 throughout."""
    original = torch.Tensor.float
    torch.Tensor.float = lambda tensor: tensor
    try:
        return function()
    finally:
        torch.Tensor.float = original


def selected_ids(module, x, rotary):
    q_idx, k_idx = module._heads(module.indexer, x.detach(), INDEX_DIM, rotary)
    return msa_cpp.index_select_blocks(
        q_idx.detach(), k_idx[:, 0].detach(), CU, top_k=TOP_K, block_size=BLOCK,
        backend=module.backend,
    ).block_ids  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("phase", ["warm_up", "sparse", "dense"])
def test_phase_equals_float64(phase, backend):
    module = make_module(phase, backend=backend)
    x, rotary = inputs()
    y, kl = module(x, CU, rotary)
    ids = selected_ids(module, x, rotary) if phase == "sparse" else None
    double, double_x, wanted, wanted_kl = double_forward(module, x, rotary, ids)
    torch.testing.assert_close(y.double(), wanted, atol=1e-5, rtol=1e-5)
    loss, wanted_loss = (y * y).sum(), (wanted * wanted).sum()
    if phase == "dense":
        assert kl is None
    else:
        torch.testing.assert_close(kl.double(), wanted_kl, atol=1e-6, rtol=1e-4)
        loss, wanted_loss = loss + 5 * kl, wanted_loss + 5 * wanted_kl
    loss.backward()
    wanted_loss.backward()
    theirs = dict(double.named_parameters())
    for name, parameter in [*module.named_parameters(), ("x", x)]:
        wanted = double_x.grad if name == "x" else theirs[name].grad
        if phase == "dense" and name.startswith("indexer."):
            assert parameter.grad is None
            continue
        error = (parameter.grad.double() - wanted).norm() / wanted.norm()
        assert error < 1e-4, f"{name}: {error}"


def test_names_are_the_trainers():
    names = set(make_module().state_dict())
    assert names == set(trainer.Attention(Config).state_dict())


@pytest.mark.parametrize("phase", ["warm_up", "sparse"])
def test_losses_keep_to_their_branches(phase):
    """KL moves the index branch alone; the rest moves everything but it."""
    module = make_module(phase, backend="reference")
    x, rotary = inputs()
    y, kl = module(x, CU, rotary)
    named = dict(module.named_parameters())
    options = {"allow_unused": True, "retain_graph": True}
    from_kl = torch.autograd.grad(kl, [x, *named.values()], **options)
    from_y = torch.autograd.grad(y.sum(), [x, *named.values()], **options)
    for name, kl_gradient, y_gradient in zip(["x", *named], from_kl, from_y, strict=True):
        index = name.startswith("indexer.")
        assert (kl_gradient is not None) == index, name
        assert (y_gradient is not None) == (not index), name


def test_inference_makes_no_loss_and_the_same_output():
    module = make_module(backend="reference")
    x, rotary = inputs()
    trained, kl = module(x, CU, rotary)
    assert kl is not None
    module.eval()
    with torch.no_grad():
        y, kl = module(x, CU, rotary)
    assert kl is None and torch.equal(y, trained)


def test_few_blocks_make_sparse_dense():
    """Sequences of at most K blocks see everything, so both phases give the same."""
    module = make_module(backend="reference").eval()
    x, _ = inputs()
    cu = torch.tensor([0, BLOCK * TOP_K, BLOCK * TOP_K + 9], dtype=torch.int32)
    x = x[: cu[-1]].detach()
    sparse, _ = module(x, cu)
    module.phase = "dense"
    dense, _ = module(x, cu)
    torch.testing.assert_close(sparse, dense, atol=1e-6, rtol=1e-6)


def test_training_brings_the_index_to_the_teacher():
    """Ten steps of warm-up halve the KL loss at least, and the backbone stays as it is."""
    module = make_module("warm_up", backend="reference")
    x, rotary = inputs()
    optimiser = torch.optim.Adam(module.indexer.parameters(), lr=2e-2)
    losses = []
    for _ in range(10):
        _, kl = module(x.detach(), CU, rotary)
        optimiser.zero_grad()
        kl.backward()
        optimiser.step()
        losses.append(kl.item())
    assert losses[-1] < 0.5 * losses[0], losses


def test_compiles_whole():
    torch.compiler.reset()
    module = make_module(backend="reference")
    x, rotary = inputs()
    wanted, wanted_kl = module(x, CU, rotary)
    y, kl = torch.compile(module, fullgraph=True, backend="aot_eager")(x, CU, rotary)
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(kl, wanted_kl)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_module("cold"), "phase is unknown: got 'cold', allowed 'warm_up'"),
        (lambda: setattr(make_module(), "phase", None), "phase is unknown: got None"),
        (lambda: msa_cpp.MsaAttention(8, 3, 2, 4), "got 3 query heads on 2 key-value heads"),
        (lambda: make_module()(torch.zeros(1, 2, HIDDEN), CU), r"got \[1, 2, 32\], allowed \[T"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(msa_cpp.MsaInvalidArgument, match=message):
        make()
