"""Presets: a model, its stages and its rates. A stage is a share of the budget at one length."""

from dataclasses import dataclass, field

from .config import ModelConfig
from .sequences import DEFAULT_FLAVOURS

FACTS = (62, 6, 0, 0, 28, 4)
# Twice as often answers that are put together from several places; mostly several values, mostly chains.
MANY_PLACES = (24, 12, 34, 20, 6, 4)
CHAINS = (26, 12, 16, 36, 6, 4)
PHRASINGS = (40, 12, 19, 20, 5, 4)


@dataclass(frozen=True)
class Stage:
    length: int
    rows: int
    share: float
    sparse_share: float
    kl_rows: int
    loss_rows: int
    flavours: tuple = DEFAULT_FLAVOURS
    cloze: float = 0.05


@dataclass(frozen=True)
class Preset:
    model: ModelConfig
    stages: tuple
    rates: dict = field(default_factory=lambda: {"muon": 0.02, "adam": 3e-3, "index": 2e-3})
    structured: bool = False
    warmup_steps: int = 100
    decay_share: float = 0.3
    seconds: float = 0.0
    steps: int = 0
    workers: int = 0
    chunk: int = 1024
    threads: int = 0  # 0: PyTorch's own choice
    checkpoint_seconds: float = 300.0


PRESETS = {
    "h200": Preset(
        model=ModelConfig(),
        stages=(
            Stage(512, 128, 0.10, 0.0, 16, 16384),
            Stage(2048, 32, 0.16, 0.0, 32, 16384),
            Stage(8192, 8, 0.33, 0.6, 64, 16384),
            Stage(32768, 2, 0.31, 0.8, 192, 16384),
            Stage(65536, 1, 0.10, 0.9, 256, 16384),
        ),
        seconds=500.0,
        workers=14,
        chunk=4096,
        checkpoint_seconds=1e9,
    ),
    # Goes on from the model of "h200" (--init): long documents only, falling rates throughout.
    "h200-long": Preset(
        model=ModelConfig(),
        stages=(
            Stage(8192, 8, 0.35, 0.7, 64, 16384),
            Stage(32768, 2, 0.45, 0.85, 192, 16384),
            Stage(65536, 1, 0.20, 0.9, 256, 16384),
        ),
        rates={"muon": 0.01, "adam": 1.5e-3, "index": 1.5e-3},
        warmup_steps=50,
        decay_share=0.9,
        seconds=430.0,
        workers=14,
        chunk=4096,
        checkpoint_seconds=1e9,
    ),
    # Goes on from the model of "h200-long": several values in one answer and chains, which come last.
    "h200-many": Preset(
        model=ModelConfig(),
        stages=(
            Stage(2048, 32, 0.10, 0.6, 64, 16384, MANY_PLACES),
            Stage(8192, 8, 0.40, 0.8, 128, 16384, MANY_PLACES),
            Stage(32768, 2, 0.35, 0.9, 512, 16384, MANY_PLACES),
            Stage(65536, 1, 0.15, 0.9, 512, 16384, MANY_PLACES),
        ),
        rates={"muon": 0.01, "adam": 1.5e-3, "index": 1.5e-3},
        warmup_steps=50,
        decay_share=0.9,
        seconds=290.0,
        workers=15,
        chunk=4096,
        checkpoint_seconds=1e9,
    ),
    # Goes on from the model of "h200-many": chains. Many dense steps, whose KL shows the index what it did not pick.
    "h200-chains": Preset(
        model=ModelConfig(),
        stages=(
            Stage(8192, 8, 0.35, 0.6, 192, 16384, CHAINS),
            Stage(32768, 2, 0.50, 0.6, 768, 16384, CHAINS),
            Stage(65536, 1, 0.15, 0.7, 768, 16384, CHAINS),
        ),
        rates={"muon": 0.006, "adam": 1e-3, "index": 2.5e-3},
        warmup_steps=50,
        decay_share=0.9,
        seconds=310.0,
        workers=15,
        chunk=4096,
        checkpoint_seconds=1e9,
    ),
    # Goes on from the model of "h200-chains": phrasings in any words (prose.py, clauses.py,
    # reword.py), which short documents teach fastest.
    "h200-phrasings": Preset(
        model=ModelConfig(),
        stages=(
            Stage(2048, 32, 0.42, 0.6, 64, 16384, PHRASINGS),
            Stage(8192, 8, 0.25, 0.6, 192, 16384, PHRASINGS),
            Stage(32768, 2, 0.23, 0.6, 768, 16384, PHRASINGS),
            Stage(65536, 1, 0.10, 0.7, 768, 16384, PHRASINGS),
        ),
        rates={"muon": 0.012, "adam": 2e-3, "index": 2e-3},
        warmup_steps=50,
        decay_share=0.8,
        seconds=525.0,
        workers=15,
        chunk=4096,
        checkpoint_seconds=1e9,
    ),
    "cpu": Preset(
        model=ModelConfig(hidden_size=192, num_hidden_layers=3, dense_intermediate_size=384),
        stages=(
            Stage(256, 4, 0.40, 0.0, 4, 256, FACTS, 0.6),
            Stage(256, 4, 0.35, 0.0, 4, 256, FACTS, 0.15),
            Stage(2048, 1, 0.25, 0.5, 16, 512, FACTS, 0.1),
        ),
        rates={"muon": 0.01, "adam": 3e-3, "index": 2e-3},
        structured=True,
        warmup_steps=30,
        seconds=5400.0,
        checkpoint_seconds=120.0,
    ),
    "ci": Preset(
        model=ModelConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            index_head_dim=32,
            index_block_size=16,
            index_topk_blocks=4,
            dense_intermediate_size=128,
        ),
        stages=(Stage(512, 2, 0.6, 0.0, 32, 256), Stage(512, 2, 0.4, 0.5, 32, 256)),
        rates={"muon": 0.02, "adam": 3e-3, "index": 5e-3},
        warmup_steps=10,
        steps=400,
        threads=1,  # so small that two threads wait for each other more than they work
    ),
}
