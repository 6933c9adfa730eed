"""Runs parity_probe (tests/parity/parity_probe.cpp) and reads the raw files that it writes."""

import dataclasses
import struct
import subprocess

import numpy as np


@dataclasses.dataclass
class ForwardResult:
    block_ids: dict  # layer -> int32 [Hkv, rows, K], as the index branch chose them
    logits: np.ndarray  # float32 [tokens, vocab]
    generated: np.ndarray  # int32


class Probe:
    def __init__(self, program, scratch):
        self.program = program
        self.scratch = scratch

    def run(self, *arguments):
        command = [str(self.program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: status {done.returncode}, {done.stderr}"

    def forward(self, folder, tokens, shape, *, rows, num_generated=0, feed=None, chunk=1024):
        """shape: a Shape. The first `rows` tokens go in chunks, the rest one at a time; then greedy
        generation. feed: as block_ids of the result, read by attention in place of the chosen ones."""
        files = {
            name: self.scratch / name for name in ("tokens", "ids", "logits", "generated", "feed")
        }
        np.asarray(tokens, dtype=np.int32).tofile(files["tokens"])
        arguments = ["--rows", rows, "--chunk", chunk]
        for name in ("tokens", "ids", "logits"):
            arguments += ["--" + name, files[name]]
        if num_generated:
            arguments += ["--generated", files["generated"], "--generate", num_generated]
        if feed is not None:
            fed = np.stack([feed[layer] for layer in shape.sparse_layers])
            np.ascontiguousarray(fed, dtype=np.int32).tofile(files["feed"])
            arguments += ["--feed", files["feed"]]
        self.run("forward", folder, *arguments)
        num_rows = len(tokens) + max(num_generated - 1, 0)
        ids = np.fromfile(files["ids"], dtype=np.int32)
        ids = ids.reshape(len(shape.sparse_layers), shape.num_groups, num_rows, shape.top_k)
        generated = np.zeros(0, dtype=np.int32)
        if num_generated:
            generated = np.fromfile(files["generated"], dtype=np.int32)
            assert len(generated) == num_generated
        return ForwardResult(
            dict(zip(shape.sparse_layers, ids, strict=True)),
            np.fromfile(files["logits"], dtype=np.float32).reshape(len(tokens), shape.vocab_size),
            generated,
        )

    def tokenize(self, tokenizer_file, texts):
        """texts: bytes each. Returns (ids, decoded bytes) for each, or None where encode refused."""
        source, results = self.scratch / "texts", self.scratch / "results"
        packed = [struct.pack("<I", len(texts))]
        for text in texts:
            packed += [struct.pack("<I", len(text)), text]
        source.write_bytes(b"".join(packed))
        self.run("tokenize", tokenizer_file, source, results)
        data = results.read_bytes()
        place, answers = 0, []
        for _ in texts:
            (num_ids,) = struct.unpack_from("<i", data, place)
            place += 4
            if num_ids < 0:
                answers.append(None)
                continue
            ids = list(struct.unpack_from(f"<{num_ids}i", data, place))
            place += 4 * num_ids
            (num_bytes,) = struct.unpack_from("<I", data, place)
            place += 4
            answers.append((ids, data[place : place + num_bytes]))
            place += num_bytes
        assert place == len(data)
        return answers
