"""Routes, refusals of a resume, and runs of several processes."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch

from training.config import ModelConfig
from training.presets import PRESETS, Stage
from training.routes import WARM_UP, check_route, step_of
from training.train import Run

TINY = ModelConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=16,
    index_head_dim=16,
    index_block_size=16,
    index_topk_blocks=3,
    dense_intermediate_size=48,
)
PRESET = dataclasses.replace(
    PRESETS["ci"],
    model=TINY,
    checkpoint_seconds=1e9,
    stages=(Stage(128, 2, 1.0, 0.5, 4, 64),),
)
STEPS = 3


def make_run(corpus, folder, steps=10, seed=3, preset=PRESET, **options):
    return Run(preset, seed, folder, corpus, steps=steps, device="cpu", log_every=1, **options)


@pytest.mark.parametrize("route", ["full", "pt", "cpt"])
def test_routes_change_phase_where_they_say(small_corpus, tmp_path, route):
    run = make_run(small_corpus, tmp_path, route=route)
    index = [p.detach().clone() for n, p in run.model.named_parameters() if ".indexer." in n]
    run.train()
    sparse = [record["sparse"] for record in run.records]
    learns = [record["kl"] is not None for record in run.records]
    now = [p for n, p in run.model.named_parameters() if ".indexer." in n]
    moved = any(not torch.equal(a, b) for a, b in zip(index, now))
    if route == "full":
        assert not any(sparse) and not any(learns) and not moved
    else:
        assert sparse == [step >= WARM_UP * 10 for step in range(10)] and all(learns) and moved


def test_without_a_route_the_stage_decides():
    assert step_of(None, 0.9, False) == (False, True) and step_of(None, 0.1, True) == (True, True)


def test_cpt_needs_a_dense_checkpoint():
    with pytest.raises(ValueError, match=r"--route cpt: got no --init"):
        check_route("cpt", None)
    check_route("cpt", "folder")
    check_route("pt", None)


@pytest.mark.parametrize(
    "other, said",
    [
        ({"seed": 4}, "seed: got 3, allowed 4"),
        ({"route": "pt"}, "route: got , allowed pt"),
        (
            {
                "preset": dataclasses.replace(
                    PRESET, model=dataclasses.replace(TINY, hidden_size=64)
                )
            },
            r"config: got \{'hidden_size': 32\}, allowed \{'hidden_size': 64\}",
        ),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(small_corpus, tmp_path, other, said):
    make_run(small_corpus, tmp_path, steps=1).train()
    with pytest.raises(ValueError, match=r"\[training\] resume, " + said):
        make_run(small_corpus, tmp_path, **other).resume()


def gradients_of_one_step(corpus, folder, rank):
    """Gradients of rank's rows, by a run that is alone."""
    run = make_run(corpus, folder)
    run.loader.rank = rank
    for optimizer in run.optimizers:
        optimizer.step = optimizer.zero_grad = lambda **_: None
    run.train_step(0)
    return [p.grad for p in run.model.parameters()]


def test_two_processes_average_their_gradients_and_stay_equal(small_corpus, tmp_path, root):
    """Each process saves the gradients of its first step as exchanged, and its weights at the end."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        "from tests.training import test_runs as t\n"
        "corpus, folder = sys.argv[1:]\n"
        "run = t.make_run(corpus, folder, steps=t.STEPS)\n"
        "average = run.ranks.average\n"
        "def save(parameters):\n"
        "    parameters = list(parameters)\n"
        "    average(parameters)\n"
        "    if run.step == 0:\n"
        "        gradients = [p.grad for p in parameters]\n"
        "        torch.save(gradients, f'{folder}/first-{run.ranks.rank}.pt')\n"
        "run.ranks.average = save\n"
        "run.train()\n"
        "torch.save(list(run.model.parameters()), f'{folder}/last-{run.ranks.rank}.pt')\n"
    )
    both = tmp_path / "both"
    both.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    environment = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [*command, str(script), str(small_corpus), str(both)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first = [torch.load(both / f"first-{rank}.pt") for rank in (0, 1)]
    last = [torch.load(both / f"last-{rank}.pt") for rank in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(*first))
    assert all(torch.equal(a, b) for a, b in zip(*last))
    halves = [gradients_of_one_step(small_corpus, tmp_path / str(r), r) for r in (0, 1)]
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in zip(*halves))
    for a, b, mean in zip(*halves, first[0]):
        torch.testing.assert_close((a + b) / 2, mean, atol=1e-6, rtol=1e-4)
    log = [json.loads(line) for line in (both / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(1, STEPS + 1)), "one process writes"
    assert log[-1]["tokens"] == STEPS * 2 * 2 * 128
