"""MsaAttention: the attention layer of MiniMax-M3 with both branches, for training and inference.

The index branch reads a detached input, so the KL loss moves the index projections alone and the
language loss everything else. Parameter names are those that Transformers writes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .errors import invalid
from .functional import dense_attention, index_select_blocks, kl_loss, msa_attention

PHASES = ("warm_up", "sparse", "dense")


class RmsNorm(nn.Module):
    """x / rms(x) * (1 + weight) over the last axis, computed in float32."""

    def __init__(self, width: int, eps: float = 1e-6, **factory) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, **factory))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return (y * (1.0 + self.weight.float())).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (NeoX pairs) on the first dims of x [T, heads, D]; cos, sin [T, rotary]."""
    width = cos.shape[-1]
    head, tail = x[..., :width], x[..., width:]
    first, second = head.chunk(2, -1)
    turned = torch.cat((-second, first), -1)
    head = head.float() * cos[:, None] + turned.float() * sin[:, None]
    return torch.cat((head.to(x.dtype), tail), -1)


class Indexer(nn.Module):
    """Projections of the index branch: Hkv index queries and one index key for each token."""

    def __init__(
        self, hidden_size: int, num_kv_heads: int, index_dim: int, eps: float, **factory
    ) -> None:
        super().__init__()
        self.q_proj = nn.Linear(hidden_size, num_kv_heads * index_dim, bias=False, **factory)
        self.k_proj = nn.Linear(hidden_size, index_dim, bias=False, **factory)
        self.q_norm = RmsNorm(index_dim, eps, **factory)
        self.k_norm = RmsNorm(index_dim, eps, **factory)


class MsaAttention(nn.Module):
    """Attention with an index branch, and a switch for the three phases of a model's life.

    | phase | main branch | KL loss, in training mode |
    | --- | --- | --- |
    | "warm_up" | all visible tokens | over all visible tokens |
    | "sparse" | the picked blocks | over the picked blocks |
    | "dense" | all visible tokens | none: the index branch rests |

    Args:
        hidden_size: width of x.
        num_q_heads, num_kv_heads, head_dim: Hq, Hkv, D; Hq is a multiple of Hkv.
        index_dim: Di; default head_dim.
        block_size, top_k: B and K.
        phase: the first phase; `phase` may be set at any time.
        eps: of the norms.
        kl_coefficient: multiplies the KL loss; its gradients too.
        backend: see msa_cpp.functional.
        device, dtype: of the parameters.

    Raises:
        MsaInvalidArgument: an unknown phase, or heads that do not form groups.
    """

    def __init__(
        self,
        hidden_size: int,
        num_q_heads: int,
        num_kv_heads: int,
        head_dim: int,
        index_dim: int | None = None,
        *,
        block_size: int = 128,
        top_k: int = 16,
        phase: str = "sparse",
        eps: float = 1e-6,
        kl_coefficient: float = 1.0,
        backend: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_kv_heads < 1 or num_q_heads % num_kv_heads != 0:
            raise invalid(
                "MsaAttention",
                f"heads do not form groups: got {num_q_heads} query heads on {num_kv_heads} "
                f"key-value heads, allowed a multiple",
            )
        factory = {"device": device, "dtype": dtype}
        self.head_dim = head_dim
        self.index_dim = head_dim if index_dim is None else index_dim
        self.block_size = block_size
        self.top_k = top_k
        self.kl_coefficient = kl_coefficient
        self.backend = backend
        self.phase = phase
        self.q_proj = nn.Linear(hidden_size, num_q_heads * head_dim, bias=False, **factory)
        self.k_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=False, **factory)
        self.v_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=False, **factory)
        self.o_proj = nn.Linear(num_q_heads * head_dim, hidden_size, bias=False, **factory)
        self.q_norm = RmsNorm(head_dim, eps, **factory)
        self.k_norm = RmsNorm(head_dim, eps, **factory)
        self.indexer = Indexer(hidden_size, num_kv_heads, self.index_dim, eps, **factory)

    @property
    def phase(self) -> str:
        """ "warm_up", "sparse" or "dense"."""
        return self._phase

    @phase.setter
    def phase(self, phase: str) -> None:
        if phase not in PHASES:
            allowed = ", ".join(map(repr, PHASES))
            raise invalid("MsaAttention", f"phase is unknown: got {phase!r}, allowed {allowed}")
        self._phase = phase

    def forward(
        self, x: Tensor, cu_seqlens: Tensor, rotary: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of packed sequences to themselves.

        Args:
            x: [T, hidden_size].
            cu_seqlens: int32 [batch + 1], where each sequence begins.
            rotary: cos and sin [T, rotary_dim] for the first dims of every head, both branches.

        Returns:
            (y [T, hidden_size], KL loss float32 [] or None). The loss is there in training mode and
            in the phases that have one; add it to the model's.

        Raises:
            MsaInvalidArgument, MsaUnsupported.
        """
        if x.ndim != 2:
            raise invalid(
                "MsaAttention", f"x has the wrong shape: got {list(x.shape)}, allowed [T, hidden]"
            )
        tokens = x.shape[0]
        learns = self.training and torch.is_grad_enabled() and self._phase != "dense"
        q, k = self._heads(self, x, self.head_dim, rotary)
        v = self.v_proj(x).view(tokens, -1, self.head_dim)
        block_ids = lse_idx = None
        if self._phase == "sparse" or learns:
            q_idx, k_idx = self._heads(self.indexer, x.detach(), self.index_dim, rotary)
            k_idx = k_idx[:, 0]
            block_ids, lse_idx, _ = index_select_blocks(
                q_idx.detach(), k_idx.detach(), cu_seqlens,
                top_k=self.top_k if self._phase == "sparse" else 0, block_size=self.block_size,
                with_lse=learns, lse_scope="selected" if self._phase == "sparse" else "visible",
                backend=self.backend,
            )  # fmt: skip
        if self._phase == "sparse":
            out, lse = msa_attention(
                q, k, v, block_ids, cu_seqlens, block_size=self.block_size, backend=self.backend
            )
        else:
            out, lse = dense_attention(q, k, v, cu_seqlens, backend=self.backend)
        loss = None
        if learns:
            loss = kl_loss(
                q, k, lse, q_idx, k_idx, lse_idx, block_ids, cu_seqlens, block_size=self.block_size,
                coefficient=self.kl_coefficient, backend=self.backend,
            )  # fmt: skip
        return self.o_proj(out.reshape(tokens, -1)), loss

    @staticmethod
    def _heads(branch, x, dim, rotary):
        """Normed and rotated queries [T, heads, dim] and keys [T, key heads, dim] of a branch."""
        q = branch.q_norm(branch.q_proj(x).view(x.shape[0], -1, dim))
        k = branch.k_norm(branch.k_proj(x).view(x.shape[0], -1, dim))
        if rotary is None:
            return q, k
        return rotate(q, *rotary), rotate(k, *rotary)

    def extra_repr(self) -> str:
        return f"block_size={self.block_size}, top_k={self.top_k}, phase={self._phase!r}"
