"""MiniMax-M3's text architecture in miniature, every layer MSA, written for training.

x [B, N, hidden] is kept flat as [B * N, hidden] outside attention, so that the compiled pieces before and after
attention have one shape for every length with the same number of tokens in a step. Parameter names are those that
Transformers writes. The index branch reads a detached x: no gradient of the KL loss reaches the backbone, and none of
the language loss reaches the index, whose only output is a selection.
"""

import torch
import torch.nn.functional as F
from torch import nn

from . import msa


class RmsNorm(nn.Module):
    """Gemma's: normalised in float32, times 1 + w."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return (y * (1.0 + self.weight.float())).to(x.dtype)


def rotate(x, cos, sin):
    """NeoX pairs on the first cos.shape[-1] dims. x [T, heads, D], cos and sin [T, rotary]."""
    width = cos.shape[-1]
    head, tail = x[..., :width], x[..., width:]
    first, second = head.chunk(2, -1)
    turned = torch.cat((-second, first), -1)
    head = head.float() * cos[:, None] + turned.float() * sin[:, None]
    return torch.cat((head.to(x.dtype), tail), -1)


class Indexer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.q_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.index_head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.index_head_dim, bias=False)
        self.q_norm = RmsNorm(c.index_head_dim, c.rms_norm_eps)
        self.k_norm = RmsNorm(c.index_head_dim, c.rms_norm_eps)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.q_proj = nn.Linear(c.hidden_size, c.num_attention_heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.num_attention_heads * c.head_dim, c.hidden_size, bias=False)
        self.q_norm = RmsNorm(c.head_dim, c.rms_norm_eps)
        self.k_norm = RmsNorm(c.head_dim, c.rms_norm_eps)
        self.indexer = Indexer(c)


class DenseMlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_up_proj = nn.Linear(c.hidden_size, 2 * c.dense_intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.dense_intermediate_size, c.hidden_size, bias=False)
        self.alpha, self.limit = c.swiglu_alpha, c.swiglu_limit

    def forward(self, x):
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        gate = gate.clamp(max=self.limit)
        up = up.clamp(-self.limit, self.limit)
        return self.down_proj((up + 1.0) * gate * torch.sigmoid(self.alpha * gate))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = DenseMlp(c)
        self.input_layernorm = RmsNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(c.hidden_size, c.rms_norm_eps)


def before_attention(layer, x, cos, sin, head_dim, index_dim):
    """x [T, hidden] -> q [T, Hq, D], k, v [T, Hkv, D], q_idx [T, Hkv, Di], k_idx [T, 1, Di]."""
    a = layer.self_attn
    tokens = x.shape[0]
    h = layer.input_layernorm(x)
    q = rotate(a.q_norm(a.q_proj(h).view(tokens, -1, head_dim)), cos, sin)
    k = rotate(a.k_norm(a.k_proj(h).view(tokens, -1, head_dim)), cos, sin)
    v = a.v_proj(h).view(tokens, -1, head_dim)
    frozen = h.detach()
    i = a.indexer
    q_idx = rotate(i.q_norm(i.q_proj(frozen).view(tokens, -1, index_dim)), cos, sin)
    k_idx = rotate(i.k_norm(i.k_proj(frozen).view(tokens, -1, index_dim)), cos, sin)
    return q, k, v, q_idx, k_idx


def after_attention(layer, x, out):
    x = x + layer.self_attn.o_proj(out)
    return x + layer.mlp(layer.post_attention_layernorm(x))


def answer_loss(head, norm, x, targets, weights):
    """Weighted sum of cross entropies of the given rows, and whether each row's best token is its target."""
    logits = head(norm(x)).float()
    losses = F.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum(), losses.detach(), logits.argmax(-1) == targets


class Operators:
    """The pieces of a step, plain or compiled; one set for a run. fused: the Triton kernels, which need CUDA."""

    def __init__(self, compiled=False, fused=False, chunk=1024):
        def wrap(function):
            return torch.compile(function, dynamic=False) if compiled else function

        if compiled:
            torch._dynamo.config.recompile_limit = 64
        self.before_attention = wrap(before_attention)
        self.after_attention = wrap(after_attention)
        self.answer_loss = wrap(answer_loss)
        self.kl_rows = wrap(msa.kl_rows)
        self.chunk = chunk
        if fused:
            from . import sparse_triton

            self.select = sparse_triton.select_chunk
            self.sparse_attention = sparse_triton.sparse_attention
        else:
            self.select = wrap(msa.select_chunk)
            self.sparse_attention = msa.sparse_attention_plain


class Backbone(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RmsNorm(c.hidden_size, c.rms_norm_eps)


class MsaModel(nn.Module):
    def __init__(self, config, operators=None):
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.operators = operators or Operators()
        exponent = torch.arange(0, config.rotary_dim, 2, dtype=torch.float) / config.rotary_dim
        self.inverse_frequency = nn.Buffer(1.0 / config.rope_theta**exponent, persistent=False)

    def initialise(self, seed):
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                continue
            scale = 0.02 if "embed" in name or "lm_head" in name else parameter.shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                scale *= (2 * self.config.num_hidden_layers) ** -0.5
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        return self

    def forward(self, ids, positions=None, sparse=True, kl=None, recall=False):
        """Last hidden states [B, N, hidden] before the final norm, and what was asked for beside them.

        kl: query rows [B, R] whose KL loss is summed over layers (means over rows and groups). Returns
        (hidden, kl total or None, list of recall dicts of the layers).
        """
        c, ops = self.config, self.operators
        batch, length = ids.shape
        if positions is None:
            positions = torch.arange(length, device=ids.device).expand(batch, -1)
        angle = positions.reshape(-1, 1).float() * self.inverse_frequency
        cos, sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()
        x = self.model.embed_tokens(ids.reshape(-1))
        total, recalls = None, []
        for layer in self.model.layers:
            q, k, v, q_idx, k_idx = ops.before_attention(
                layer, x, cos, sin, c.head_dim, c.index_head_dim
            )
            q, k, v, q_idx = (
                t.view(batch, length, -1, t.shape[-1]).transpose(1, 2) for t in (q, k, v, q_idx)
            )
            k_idx = k_idx.view(batch, length, -1)
            bitmap = None
            if (sparse or recall) and length > c.index_block_size * c.index_topk_blocks:
                with torch.no_grad():
                    bitmap = msa.select_all(
                        q_idx, k_idx, c.index_block_size, c.index_topk_blocks, ops.chunk, ops.select
                    )
            if sparse and bitmap is not None:
                out = ops.sparse_attention(q, k, v, bitmap, c.index_block_size)
            else:
                out = msa.dense_attention(q, k, v)
            if kl is not None:
                part = self.layer_kl(q, k, q_idx, k_idx, kl, bitmap if sparse else None)
                total = part if total is None else total + part
            if recall and bitmap is not None:
                with torch.no_grad():
                    recalls.append(
                        msa.recall_rows(
                            take_rows(q, kl),
                            k,
                            take_rows(bitmap, kl),
                            kl,
                            c.index_block_size,
                            c.index_topk_blocks,
                        )
                    )
            x = ops.after_attention(layer, x, out.transpose(1, 2).reshape(batch * length, -1))
        return x.view(batch, length, -1), total, recalls

    def layer_kl(self, q, k, q_idx, k_idx, rows, bitmap):
        chosen = None if bitmap is None else take_rows(bitmap, rows)
        return self.operators.kl_rows(
            take_rows(q.detach(), rows),
            k.detach(),
            take_rows(q_idx, rows),
            k_idx,
            rows,
            chosen,
            self.config.index_block_size,
        ).mean()

    def logits(self, hidden):
        return self.lm_head(self.model.norm(hidden))


def take_rows(x, rows):
    """x [B, H, N, W] at rows [B, R] -> [B, H, R, W]."""
    index = rows[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
    return x.gather(2, index)
