"""The whole model in float64, from the formulas alone: neither Transformers nor the runner.

    x += Wo attention(norm1(x));  x += down((u + 1) * g * sigmoid(alpha * g)), g = min(gate, limit), u = clamp(up)
    norm(x) = x * rsqrt(mean(x^2) + eps) * (1 + w);  RoPE turns the pairs (i, i + R/2) of the first R dims

It reads a folder with Transformers' tensor names and takes the block ids of every sparse layer as given, so that its
logits can stand beside those of two float32 programs that read the same ids. The only choice is the RoPE angle:
position times theta^(-2i/R), here exact to float64, is rounded to float32 by everything that PyTorch trains.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

ROWS_AT_ONCE = 256


class Float64Model:
    def __init__(self, folder, float32_angles):
        folder = Path(folder)
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
        self.weights = {name: value.to(torch.float64) for name, value in tensors.items()}
        self.float32_angles = float32_angles

    def linear(self, name, x):
        return x @ self.weights[name + ".weight"].T

    def norm(self, name, x):
        eps = self.config["rms_norm_eps"]
        scaled = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)
        return scaled * (1 + self.weights[name + ".weight"])

    def angles(self, num_tokens):
        rope = self.config["rope_parameters"]
        width = int(self.config["head_dim"] * rope["partial_rotary_factor"])
        kind = torch.float32 if self.float32_angles else torch.float64
        exponent = torch.arange(0, width, 2, dtype=kind) / width
        frequency = 1.0 / (rope["rope_theta"] ** exponent)
        positions = torch.arange(num_tokens, dtype=kind)
        return (positions[:, None] * frequency).to(torch.float64)

    @staticmethod
    def rotate(x, angles):
        """x [heads, T, D], angles [T, R/2]."""
        half = angles.shape[-1]
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), -1)

    def heads(self, x):
        return x.unflatten(-1, (-1, self.config["head_dim"])).transpose(0, 1)

    def attention(self, layer, x, angles, block_ids):
        """block_ids int32 [Hkv, T, K], or None for a layer that attends to all visible tokens."""
        prefix = f"model.layers.{layer}.self_attn."
        q = self.rotate(
            self.norm(prefix + "q_norm", self.heads(self.linear(prefix + "q_proj", x))), angles
        )
        k = self.rotate(
            self.norm(prefix + "k_norm", self.heads(self.linear(prefix + "k_proj", x))), angles
        )
        v = self.heads(self.linear(prefix + "v_proj", x))
        group = q.shape[0] // k.shape[0]
        num_tokens = x.shape[0]
        out = torch.empty_like(q)
        positions = torch.arange(num_tokens)
        for first in range(0, num_tokens, ROWS_AT_ONCE):
            rows = positions[first : first + ROWS_AT_ONCE]
            num_keys = int(rows[-1]) + 1
            hidden = positions[:num_keys] > rows[:, None]
            for kv_head in range(k.shape[0]):
                here = hidden
                if block_ids is not None:
                    here = hidden | ~self.selected(block_ids[kv_head, rows], num_keys)
                queries = slice(kv_head * group, (kv_head + 1) * group)
                scores = q[queries, rows] @ k[kv_head, :num_keys].T / self.config["head_dim"] ** 0.5
                scores.masked_fill_(here, -torch.inf)
                out[queries, rows] = torch.softmax(scores, -1) @ v[kv_head, :num_keys]
        return self.linear(prefix + "o_proj", out.transpose(0, 1).flatten(1))

    def selected(self, ids, num_keys):
        """[rows, K] block ids -> [rows, num_keys] bool."""
        block_size = self.config["index_block_size"]
        num_blocks = -(-num_keys // block_size)
        marks = torch.zeros(len(ids), num_blocks + 1, dtype=torch.bool)
        ids = torch.from_numpy(ids.astype(np.int64))
        marks.scatter_(1, torch.where(ids < 0, num_blocks, ids), True)
        return marks[:, :num_blocks].repeat_interleave(block_size, 1)[:, :num_keys]

    def feed_forward(self, layer, x):
        prefix = f"model.layers.{layer}.mlp."
        gate, up = self.linear(prefix + "gate_up_proj", x).chunk(2, -1)
        limit = self.config["swiglu_limit"]
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return self.linear(
            prefix + "down_proj",
            (up + 1) * gate * torch.sigmoid(self.config["swiglu_alpha"] * gate),
        )

    @torch.inference_mode()
    def logits(self, tokens, block_ids):
        """tokens [T]; block_ids: layer -> int32 [Hkv, T, K] for the sparse layers. Returns float64 [T, vocab]."""
        x = self.weights["model.embed_tokens.weight"][torch.from_numpy(tokens.astype(np.int64))]
        angles = self.angles(len(tokens))
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self.attention(
                layer, self.norm(prefix + "input_layernorm", x), angles, block_ids.get(layer)
            )
            x = x + self.feed_forward(layer, self.norm(prefix + "post_attention_layernorm", x))
        return self.linear("lm_head", self.norm("model.norm", x)).numpy()
