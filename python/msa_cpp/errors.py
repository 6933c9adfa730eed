"""Exceptions of msa_cpp. Every message reads `[op] what is wrong: got ..., allowed ...`.

Each class is also the built-in exception that a Python programmer would expect, so code that knows
nothing of this package can catch it. A call that raises has written nothing to its outputs.
"""

from __future__ import annotations

import tvm_ffi


@tvm_ffi.register_error
class MsaError(RuntimeError):
    """Whatever the library refuses; by itself a broken invariant inside it: please report it."""


@tvm_ffi.register_error
class MsaInvalidArgument(MsaError, ValueError):
    """A type, device, shape, stride, layout, length or pointer that the contract does not allow."""


@tvm_ffi.register_error
class MsaUnsupported(MsaError, NotImplementedError):
    """A valid request that the backend has no implementation for; the message says what it has."""


@tvm_ffi.register_error
class MsaOutOfMemory(MsaError, MemoryError):
    """Memory that the call needs could not be had."""


def invalid(op: str, message: str) -> MsaInvalidArgument:
    """The exception for an argument that Python has to check, in the library's own form."""
    return MsaInvalidArgument(f"[{op}] {message}")
