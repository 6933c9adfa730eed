"""The shared library of this package, and the numbers that its functions take for names.

Functions of `lib` take DLPack tensors as they are (no copy), run on the caller's current stream,
and release the interpreter's lock. Without a workspace they take one from PyTorch's allocator.
"""

from __future__ import annotations

from pathlib import Path

import torch
import tvm_ffi

from . import errors
from .errors import invalid

lib = tvm_ffi.load_module(Path(__file__).with_name("_msa.so"))

# Codes of include/msa/c_api.h.
BACKENDS = {None: 0, "reference": 1, "cpu": 2, "cuda": 3}
LAYOUTS = {"head_major": 0, "token_major": 1}
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
OPS = {
    "index_forward": 0,
    "attention_forward": 1,
    "dense_attention_forward": 2,
    "attention_backward": 8,
    "dense_attention_backward": 9,
    "kl_forward_backward": 10,
    "select_blocks": 12,
}
DLPACK_DEVICES = {"cpu": 1, "cuda": 2}

index_forward = lib.index_forward
attention_forward = lib.attention_forward
attention_backward = lib.attention_backward
kl_forward_backward = lib.kl_forward_backward
cache_append = lib.cache_append
copy_pages = lib.copy_pages
select_blocks = lib.select_blocks


def code(op: str, what: str, table: dict, key: object) -> int:
    """The number of a name, or an error that lists the names."""
    try:
        return table[key]
    except (KeyError, TypeError):
        allowed = ", ".join(repr(name) for name in table)
        raise invalid(op, f"{what} is unknown: got {key!r}, allowed {allowed}") from None


def device_code(op: str, device: torch.device | str) -> int:
    """DLPack's number of a device's type."""
    return code(op, "device", DLPACK_DEVICES, torch.device(device).type)


def description(backend: str | None = None, device: torch.device | str = "cpu") -> str:
    """What does the work for tensors on `device`: "cpu: Highway AVX3, 2 threads"."""
    op = "description"
    return lib.description(code(op, "backend", BACKENDS, backend), device_code(op, device))


def unsupported(
    op: str,
    *,
    num_q_heads: int = 0,
    num_kv_heads: int = 0,
    head_dim: int = 0,
    block_size: int = 0,
    top_k: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    backend: str | None = None,
) -> str:
    """Asks beforehand: "" when the backend has `op` for these sizes, else what it has instead.

    Sizes that an op does not use stay 0; for "index_forward" head_dim is the index dim.
    """
    return lib.unsupported(
        code("unsupported", "backend", BACKENDS, backend),
        device_code("unsupported", device),
        code("unsupported", "op", OPS, op),
        code("unsupported", "dtype", DTYPES, dtype),
        num_q_heads,
        num_kv_heads,
        head_dim,
        block_size,
        top_k,
    )


__all__ = ["description", "errors", "lib", "unsupported"]
