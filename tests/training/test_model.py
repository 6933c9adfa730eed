"""The model: detached index, checkpoint and resume bit for bit, export into Transformers."""

import dataclasses

import pytest
import torch

from training.config import ModelConfig
from training.export import export_folder, load_folder
from training.model import MsaModel, before_attention
from training.presets import PRESETS, Stage
from training.structure import structured_start
from training.train import Run

TINY = ModelConfig(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=16,
    num_key_value_heads=4,
    head_dim=16,
    index_head_dim=16,
    index_block_size=16,
    index_topk_blocks=3,
    dense_intermediate_size=48,
)


def grads(model, index):
    return [
        (name, p.grad) for name, p in model.named_parameters() if (".indexer." in name) == index
    ]


@pytest.mark.parametrize("sparse", [False, True])
def test_kl_reaches_only_the_index_and_language_loss_never_does(sparse):
    model = MsaModel(TINY).initialise(0)
    ids = torch.randint(4, 4096, (1, 160), generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([[20, 90, 159]])
    _, kl, _ = model(ids, None, sparse, rows)
    kl.backward()
    assert all(g is None or g.abs().max() == 0 for _, g in grads(model, False))
    assert all(g is not None and g.abs().max() > 0 for _, g in grads(model, True))
    model.zero_grad(set_to_none=True)
    hidden, _, _ = model(ids, None, sparse, rows)
    torch.nn.functional.cross_entropy(model.logits(hidden)[0, :-1], ids[0, 1:]).backward()
    assert all(g is None or g.abs().max() == 0 for _, g in grads(model, True))
    assert all(g is not None and g.abs().max() > 0 for _, g in grads(model, False))


def test_resume_is_bit_for_bit(small_corpus, tmp_path):
    preset = dataclasses.replace(
        PRESETS["ci"],
        model=TINY,
        checkpoint_seconds=1e9,
        stages=(Stage(128, 2, 0.5, 0.0, 4, 64), Stage(160, 2, 0.5, 0.5, 4, 64)),
    )
    whole = Run(preset, 3, tmp_path / "whole", small_corpus, steps=8, device="cpu", log_every=1)
    whole.train()
    first = Run(preset, 3, tmp_path / "parts", small_corpus, steps=8, device="cpu", log_every=1)
    first.train(stop_step=5)
    second = Run(preset, 3, tmp_path / "parts", small_corpus, steps=8, device="cpu", log_every=1)
    second.resume()
    assert second.step == 5
    second.train()
    for (name, a), (_, b) in zip(whole.model.named_parameters(), second.model.named_parameters()):
        assert torch.equal(a, b), name
    assert [r["answer_loss"] for r in whole.records[5:]] == [
        r["answer_loss"] for r in second.records
    ]


def test_bf16_steps_dense_and_sparse_stay_close_to_float32(small_corpus, tmp_path):
    stage = Stage(192, 2, 1.0, 1.0, 8, 96)
    preset = dataclasses.replace(PRESETS["ci"], model=TINY, stages=(stage,))
    results = []
    for autocast in (False, True):
        run = Run(
            preset, 0, tmp_path, small_corpus, steps=3, device="cpu", autocast=autocast, log_every=1
        )
        run.train()
        results.append([(record["answer_loss"], record["kl"]) for record in run.records])
        assert all(record["sparse"] for record in run.records)
    torch.testing.assert_close(
        torch.tensor(results[1]), torch.tensor(results[0]), atol=0.1, rtol=0.1
    )


def test_export_loads_in_transformers_with_equal_logits(tmp_path):
    transformers = pytest.importorskip("transformers.models.minimax_m3_vl.modeling_minimax_m3_vl")
    model = MsaModel(TINY).initialise(5)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    export_folder(model, tmp_path)
    other, report = transformers.MiniMaxM3VLForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float32
    )
    assert (
        not report["missing_keys"]
        and not report["unexpected_keys"]
        and not report["mismatched_keys"]
    )
    ours = load_folder(tmp_path)
    ids = torch.randint(4, 4096, (1, 300), generator=generator)
    with torch.no_grad():
        expected = other(ids).logits
        hidden, _, _ = ours(ids)
        torch.testing.assert_close(ours.logits(hidden), expected, atol=2e-5, rtol=1e-4)


def test_structured_start_looks_at_places_and_only_there():
    config = ModelConfig(hidden_size=192, num_hidden_layers=3)
    model = MsaModel(config).initialise(0)
    structured_start(model, 0, quiet_tokens=[5, 6])
    norms = model.model.embed_tokens.weight[:, 1:].norm(dim=1)
    assert norms[5] < 0.5 * norms[7]
    ids = torch.randint(4, 4096, (64,), generator=torch.Generator().manual_seed(0))
    angle = torch.arange(64)[:, None].float() * model.inverse_frequency
    cos, sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()
    q, k, *_ = before_attention(
        model.model.layers[0], model.model.embed_tokens(ids), cos, sin, 64, 64
    )
    for head, offset in enumerate((1, 2, 3, 4)):
        weights = (q[50, head] @ k[:51, 0].T / 8).softmax(-1)
        assert weights.argmax() == 50 - offset and weights.max() > 0.5
    with pytest.raises(ValueError, match="structure"):
        structured_start(MsaModel(ModelConfig(num_hidden_layers=2)), 0)


def test_export_refuses_weights_over_the_limit(tmp_path):
    model = MsaModel(dataclasses.replace(ModelConfig(), dense_intermediate_size=768))
    with pytest.raises(ValueError, match="size of the weights"):
        export_folder(model, tmp_path)
