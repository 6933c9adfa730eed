"""The shape of a model: the keys of Transformers' MiniMaxM3VLTextConfig that matter here."""

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    vocab_size: int = 4096
    hidden_size: int = 256
    num_hidden_layers: int = 5
    num_attention_heads: int = 16
    num_key_value_heads: int = 4
    head_dim: int = 64
    index_head_dim: int = 64
    index_block_size: int = 64
    index_topk_blocks: int = 16
    dense_intermediate_size: int = 512
    rotary_factor: float = 0.5
    rope_theta: float = 5_000_000.0
    rms_norm_eps: float = 1e-6
    swiglu_alpha: float = 1.702
    swiglu_limit: float = 7.0
    max_position_embeddings: int = 1_048_576

    @property
    def group(self):
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def rotary_dim(self):
        return int(self.head_dim * self.rotary_factor)

    def transformers_dict(self):
        """config.json as Transformers 5.23 reads it (and as the runner reads it)."""
        return {
            "architectures": ["MiniMaxM3VLForCausalLM"],
            "model_type": "minimax_m3_vl_text",
            "dtype": "bfloat16",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "dense_intermediate_size": self.dense_intermediate_size,
            "intermediate_size": self.dense_intermediate_size,
            "shared_intermediate_size": self.dense_intermediate_size,
            "num_local_experts": 1,
            "num_experts_per_tok": 1,
            "hidden_act": "silu",
            "swiglu_alpha": self.swiglu_alpha,
            "swiglu_limit": self.swiglu_limit,
            "rms_norm_eps": self.rms_norm_eps,
            "max_position_embeddings": self.max_position_embeddings,
            "rotary_dim": self.rotary_dim,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": self.rope_theta,
                "partial_rotary_factor": self.rotary_factor,
            },
            "layer_types": ["minimax_m3_sparse"] * self.num_hidden_layers,
            "mlp_layer_types": ["dense"] * self.num_hidden_layers,
            "index_n_heads": self.num_key_value_heads,
            "index_head_dim": self.index_head_dim,
            "index_block_size": self.index_block_size,
            "index_topk_blocks": self.index_topk_blocks,
            "index_local_blocks": 1,
            "tie_word_embeddings": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_cache": True,
            "bos_token_id": 0,
            "eos_token_id": 3,
            "pad_token_id": None,
        }

    @staticmethod
    def from_transformers(path):
        with open(path, encoding="utf-8") as handle:
            data = json.load(handle)
        names = {field.name for field in dataclasses.fields(ModelConfig)}
        values = {name: data[name] for name in names if name in data}
        values["rope_theta"] = data["rope_parameters"]["rope_theta"]
        values["rotary_factor"] = data["rope_parameters"]["partial_rotary_factor"]
        return ModelConfig(**values)
