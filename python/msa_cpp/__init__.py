"""MiniMax Sparse Attention (arXiv 2606.13392) as PyTorch operators, forward and backward.

    from msa_cpp import index_select_blocks, msa_attention, kl_loss

Functions are in msa_cpp.functional, whose head says what they share: packed sequences, layouts,
workspace, backends. docs/python.md is the guide.
"""

from . import operators
from ._library import description, lib, unsupported
from .errors import MsaError, MsaInvalidArgument, MsaOutOfMemory, MsaUnsupported
from .functional import (
    Selection,
    dense_attention,
    index_select_blocks,
    kl_loss,
    msa_attention,
    select_blocks,
)
from .module import MsaAttention
from .serving import Plan, cache_append, copy_pages, decode, plan, run

__version__ = lib.version()

__all__ = [
    "MsaAttention",
    "MsaError",
    "MsaInvalidArgument",
    "MsaOutOfMemory",
    "MsaUnsupported",
    "Plan",
    "Selection",
    "cache_append",
    "copy_pages",
    "decode",
    "dense_attention",
    "description",
    "index_select_blocks",
    "kl_loss",
    "msa_attention",
    "operators",
    "plan",
    "run",
    "select_blocks",
    "unsupported",
]
