"""Runs a model folder in Hugging Face Transformers, float32, eager, on the CPU, and records what parity needs.

Prefill goes through Transformers' own cache in chunks (the whole prompt at once would need 7 GB), then greedy tokens
one at a time. At every sparse layer the indexer's output (the block ids) is recorded as it comes, and so are the
query and key vectors that it ranked: they are the last pair that the module's RoPE function gave inside the indexer.
"""

import dataclasses
import gc

import numpy as np
import torch
import transformers
from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl as modeling

CHUNK_TOKENS = 500


@dataclasses.dataclass
class Recording:
    """T = prompt + generated - 1 rows were read; rows of every array stand at positions 0 ... T - 1."""

    version: str
    tokens: np.ndarray  # int32 [T + 1], the prompt and all generated tokens
    prompt_length: int
    block_ids: dict  # layer -> int32 [Hkv, T, K] in Transformers' order, -1 behind
    q_idx: dict  # layer -> float32 [Hkv, T, Di], after norm and RoPE
    k_idx: dict  # layer -> float32 [T, Di]
    logits: np.ndarray  # float32 [T, vocab]
    block_size: int
    top_k: int

    @property
    def num_rows(self):
        return len(self.tokens) - 1

    @property
    def generated(self):
        return self.tokens[self.prompt_length :]


@dataclasses.dataclass
class Shape:
    """What one needs to know to read the raw files of the probe."""

    vocab_size: int
    num_groups: int
    top_k: int
    sparse_layers: list


def shape_of(folder):
    config = transformers.MiniMaxM3VLTextConfig.from_pretrained(folder)
    sparse = [i for i, kind in enumerate(config.layer_types) if kind == "minimax_m3_sparse"]
    return Shape(config.vocab_size, config.num_key_value_heads, config.index_topk_blocks, sparse)


class IndexerRecorder:
    """Hooks on every indexer of a model; `close` takes them off again."""

    def __init__(self, model, top_k):
        self.block_ids, self.q_idx, self.k_idx = {}, {}, {}
        self.top_k = top_k
        self.handles = []
        self.inside = None
        self.rope = modeling.apply_rotary_pos_emb
        modeling.apply_rotary_pos_emb = self.recorded_rope
        for layer in model.model.layers:
            indexer = layer.self_attn.indexer
            if indexer is not None:
                self.handles.append(indexer.register_forward_pre_hook(self.enter))
                self.handles.append(indexer.register_forward_hook(self.leave))

    def enter(self, indexer, _arguments):
        self.inside = indexer.layer_idx

    def recorded_rope(self, q, k, cos, sin, **options):
        q, k = self.rope(q, k, cos, sin, **options)
        if self.inside is not None:
            self.q_idx.setdefault(self.inside, []).append(q[0].numpy().copy())
            self.k_idx.setdefault(self.inside, []).append(k[0, 0].numpy().copy())
        return q, k

    def leave(self, indexer, _arguments, output):
        ids = output[0].numpy().astype(np.int32)
        missing = self.top_k - ids.shape[-1]
        ids = np.pad(ids, ((0, 0), (0, 0), (0, missing)), constant_values=-1)
        self.block_ids.setdefault(self.inside, []).append(ids)
        self.inside = None

    def close(self):
        modeling.apply_rotary_pos_emb = self.rope
        for handle in self.handles:
            handle.remove()


def load(folder):
    """The model, after an assertion that its file has every tensor and no other."""
    model, report = transformers.MiniMaxM3VLForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not report[kind], f"{folder}: {kind} {report[kind]}"
    assert model.config._attn_implementation == "eager"
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    return model.eval()


@torch.inference_mode()
def record(folder, prompt, num_generated):
    """prompt: a sequence of token ids. Greedy generation never stops early."""
    model = load(folder)
    recorder = IndexerRecorder(model, model.config.index_topk_blocks)
    try:
        cache = transformers.DynamicCache(config=model.config)
        tokens = list(prompt)
        logits = []
        for first in range(0, len(prompt), CHUNK_TOKENS):
            chunk = torch.tensor([tokens[first : first + CHUNK_TOKENS]])
            logits.append(
                model(chunk, past_key_values=cache, use_cache=True).logits[0].numpy().copy()
            )
        tokens.append(int(logits[-1][-1].argmax()))
        while len(tokens) < len(prompt) + num_generated:
            step = model(torch.tensor([tokens[-1:]]), past_key_values=cache, use_cache=True)
            logits.append(step.logits[0].numpy().copy())
            tokens.append(int(logits[-1][-1].argmax()))
    finally:
        recorder.close()
    recording = Recording(
        version=transformers.__version__,
        tokens=np.array(tokens, dtype=np.int32),
        prompt_length=len(prompt),
        block_ids={layer: np.concatenate(parts, 1) for layer, parts in recorder.block_ids.items()},
        q_idx={layer: np.concatenate(parts, 1) for layer, parts in recorder.q_idx.items()},
        k_idx={layer: np.concatenate(parts, 0) for layer, parts in recorder.k_idx.items()},
        logits=np.concatenate(logits),
        block_size=model.config.index_block_size,
        top_k=model.config.index_topk_blocks,
    )
    del model, cache
    gc.collect()
    return recording
