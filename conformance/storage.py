"""Types, random numbers and files of the pack, with NumPy alone.

Random numbers come from the raw bits of a Philox counter, whose stream NumPy promises to keep, and
become numbers by exact arithmetic: the inputs are the same to the bit on every machine.
"""

import json

import numpy as np

NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64", "int32": "I32"}


class Stored:
    """An array as it lies in a file: `bits` in the storage type, `values` in float64 (or int)."""

    def __init__(self, values, dtype):
        self.dtype = dtype
        values = np.asarray(values)
        if dtype == "int32":
            self.bits = values.astype("<i4")
            self.values = self.bits
        elif dtype == "bfloat16":
            self.bits = bfloat16_bits(values)
            wide = (self.bits.astype("<u4") << 16).view("<f4")
            self.values = wide.astype(np.float64)
        else:
            with np.errstate(over="ignore", under="ignore"):
                self.bits = values.astype({"float32": "<f4", "float16": "<f2"}.get(dtype, "<f8"))
            self.values = self.bits.astype(np.float64)

    @property
    def shape(self):
        return self.bits.shape


def bfloat16_bits(values):
    """Round to nearest, ties to even, from float32."""
    with np.errstate(over="ignore"):
        wide = np.asarray(values, dtype="<f4")
    bits = np.ascontiguousarray(wide).view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(wide), 0x7FC0, rounded).astype("<u2")


class Random:
    def __init__(self, seed):
        self._bits = np.random.Philox(key=seed)

    def raw(self, shape):
        count = int(np.prod(shape)) if shape else 1
        return self._bits.random_raw(count).reshape(shape)

    def integers(self, low, high, shape):
        """In [low, high], both ends included."""
        return low + (self.raw(shape) % np.uint64(high - low + 1)).astype(np.int64)

    def normal(self, shape):
        """Nearly normal, variance 1: four 16-bit uniforms added. Exact but for one product."""
        raw = self.raw(shape)
        total = np.zeros(shape, np.int64)
        for part in range(4):
            total += ((raw >> np.uint64(16 * part)) & np.uint64(0xFFFF)).astype(np.int64)
        return (total - 2 * 65535) * (np.sqrt(3.0) / 65536.0)

    def permutation(self, count):
        return np.argsort(self.raw((count,)), kind="stable")


def safetensors_bytes(tensors):
    """The file format: length of the header, header, data. Names in sorted order."""
    header, data = {}, []
    offset = 0
    for name in sorted(tensors):
        stored = tensors[name]
        raw = np.ascontiguousarray(stored.bits).tobytes()
        header[name] = {
            "dtype": NAMES[stored.dtype],
            "shape": list(stored.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        data.append(raw)
        offset += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data)


def read_safetensors(path):
    """name -> Stored-like (dtype, array of the raw storage), for checks of a pack on disk."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    types = {"F32": "<f4", "BF16": "<u2", "F16": "<f2", "F64": "<f8", "I32": "<i4"}
    tensors = {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        begin, end = entry["data_offsets"]
        array = np.frombuffer(raw[8 + size + begin : 8 + size + end], types[entry["dtype"]])
        tensors[name] = (entry["dtype"], array.reshape(entry["shape"]))
    return tensors
