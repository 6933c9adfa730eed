"""Writes a small random MiniMax-M3 text model, twice: with the names that Transformers writes, and as published.

    python tests/parity/make_models.py FOLDER    ->  FOLDER/transformers  FOLDER/published

The heads have the production geometry (D = Di = 128, groups of 16, blocks of 128, top-k 16); the rest is small: two
KV heads, a full-attention layer between two sparse ones, a vocabulary of 512. Norm weights lie on both sides of zero,
so that a reader that forgets the 1 + w, or mixes two norms up, is caught. The published copy follows the checkpoints
of MiniMax-M3: `language_model.` before every name, index projections beside q, k and v, gate and up apart, and the
sparse_attention_config group with rotary_dim and rope_theta in config.json. Both hold the same float32 numbers, and
no tokenizer.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import MiniMaxM3VLForCausalLM, MiniMaxM3VLTextConfig

SEED = 20251
SPARSE_LAYERS = [True, False, True]
NORM_SPREAD = 0.3
WEIGHT_GAIN = 1.6
EMBEDDING_SPREAD = 1.0


def configuration():
    return MiniMaxM3VLTextConfig(
        vocab_size=512,
        hidden_size=256,
        num_hidden_layers=len(SPARSE_LAYERS),
        num_attention_heads=32,
        num_key_value_heads=2,
        head_dim=128,
        dense_intermediate_size=384,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5},
        rotary_dim=64,
        index_n_heads=2,
        index_head_dim=128,
        index_block_size=128,
        index_topk_blocks=16,
        index_local_blocks=1,
        layer_types=[
            "minimax_m3_sparse" if sparse else "full_attention" for sparse in SPARSE_LAYERS
        ],
        mlp_layer_types=["dense"] * len(SPARSE_LAYERS),
        bos_token_id=0,
        eos_token_id=1,
    )


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim == 1:
                spread = NORM_SPREAD
            elif "embed_tokens" in name:
                spread = EMBEDDING_SPREAD
            else:
                spread = WEIGHT_GAIN / parameter.shape[1] ** 0.5
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))


def published_name_tensors(tensors):
    """The tensors of a Transformers file under the names of the published checkpoints."""
    published = {}
    for name, value in tensors.items():
        if name.endswith("mlp.gate_up_proj.weight"):
            gate, up = value.chunk(2, 0)
            published[name.replace("gate_up_proj", "gate_proj")] = gate.contiguous()
            published[name.replace("gate_up_proj", "up_proj")] = up.contiguous()
        else:
            published[name.replace("self_attn.indexer.", "self_attn.index_")] = value
    return {"language_model." + name: value for name, value in published.items()}


def published_configuration(config):
    frequency = [int(kind == "minimax_m3_sparse") for kind in config.layer_types]
    return {
        "model_type": "minimax_m3_vl_text",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "dense_intermediate_size": config.dense_intermediate_size,
        "hidden_act": "swigluoai",
        "swiglu_alpha": config.swiglu_alpha,
        "swiglu_limit": config.swiglu_limit,
        "rms_norm_eps": config.rms_norm_eps,
        "use_gemma_norm": True,
        "use_qk_norm": True,
        "rotary_dim": config.rotary_dim,
        "rope_theta": config.rope_parameters["rope_theta"],
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": False,
        "moe_layer_freq": [0] * config.num_hidden_layers,
        "sparse_attention_config": {
            "use_sparse_attention": True,
            "sparse_index_dim": config.index_head_dim,
            "sparse_num_index_heads": config.index_n_heads,
            "sparse_topk_blocks": config.index_topk_blocks,
            "sparse_block_size": config.index_block_size,
            "sparse_score_type": "max",
            "sparse_init_block": 0,
            "sparse_local_block": config.index_local_blocks,
            "sparse_attention_freq": frequency,
        },
    }


def write_models(folder):
    """Returns the two folders: Transformers' names, published names."""
    config = configuration()
    model = MiniMaxM3VLForCausalLM(config)
    randomise(model, SEED)
    ours, published = Path(folder) / "transformers", Path(folder) / "published"
    model.save_pretrained(ours)
    tensors = load_file(ours / "model.safetensors")
    published.mkdir(parents=True, exist_ok=True)
    save_file(
        published_name_tensors(tensors), published / "model.safetensors", metadata={"format": "pt"}
    )
    text = json.dumps(published_configuration(config), indent=2) + "\n"
    (published / "config.json").write_text(text, encoding="utf-8")
    return ours, published


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_models.py FOLDER")
    for written in write_models(sys.argv[1]):
        print(written)
