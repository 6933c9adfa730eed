"""What the two-minute CI run must show: the KL loss halves, and the index picks better than chance.

Block recall is taken over rows with more than K visible blocks, in dense steps' terms (teacher = dense attention), next
to that of random picks: the local block and K - 1 of the others, drawn by a fixed seed.
"""

import statistics

import torch

from . import msa
from .loader import make_batch


@torch.no_grad()
def recalls(run, batches=4):
    """Mean block recall without the local block: (of the index, of random picks)."""
    stage = run.preset.stages[-1]
    generator = torch.Generator().manual_seed(0)
    found, chance = [], []

    def random_select(q_idx, k_idx, first, block, top_k):
        rows = torch.arange(first, first + q_idx.shape[2]).expand(q_idx.shape[0], -1)
        scores = torch.rand(*q_idx.shape[:3], -(-k_idx.shape[1] // block), generator=generator)
        return msa.select_blocks(scores, rows, block, top_k)

    for select, into in ((msa.select_chunk, found), (random_select, chance)):
        run.model.operators.select = select
        for number in range(batches):
            batch = make_batch(run.loader.maker, run.seed + 1000, 0, stage, number)
            layers = run.model(
                torch.from_numpy(batch["ids"]),
                torch.from_numpy(batch["positions"]),
                False,
                torch.from_numpy(batch["kl"]).long(),
                recall=True,
            )[2]
            into += [layer["block_recall_without_local"] for layer in layers]
    run.model.operators.select = msa.select_chunk
    return torch.cat(found).mean().item(), torch.cat(chance).mean().item()


def check_ci(run):
    first = run.records[0]["kl"]
    last = statistics.median(record["kl"] for record in run.records[-5:])
    index, chance = recalls(run)
    good = last < 0.5 * first and index >= 2.0 * chance
    print(f"steps {run.step}, seconds {run.elapsed:.0f}, seed {run.seed}")
    print(
        f"KL, all layers: first {first:.4f}, last {last:.4f}, ratio {last / first:.3f} (must be below 0.5)"
    )
    print(
        f"block recall without the local block: index {index:.3f}, random picks {chance:.3f}, "
        f"ratio {index / max(chance, 1e-9):.2f} (must be at least 2)"
    )
    print("PASS" if good else "FAIL")
    return 0 if good else 1
