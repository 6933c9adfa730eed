"""The text around the facts: sources and documentation that any Linux machine has, never this project's files.

Python sources, C headers, manual pages, package documentation and licences are listed, put in an order that depends on
their paths alone, cut to a share of the budget each, and split by file: one file in twenty is held out. `pack` writes
one compressed file (tokens of both parts and a manifest) that can be carried to another machine.
"""

import gzip
import hashlib
import json
import os
import sys
import sysconfig
from pathlib import Path

import numpy as np

from .tokenizer import load_tokenizer, train_tokenizer

PROJECT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"
DEFAULT_PACK = DATA / "corpus.npz"
LARGEST_FILE = 150_000
SMALLEST_FILE = 800
HELD_OUT_ONE_IN = 20


def sources():
    """(kind, share of the budget, folders, name endings); an ending of None takes every file."""
    python = sysconfig.get_paths()
    return [
        ("python", 0.36, [python["stdlib"], "/usr/lib/python3"], (".py",)),
        ("packages", 0.10, [python["purelib"]], (".py", ".md", ".rst", ".txt")),
        (
            "headers",
            0.16,
            ["/usr/include", "/usr/local/include", "/usr/lib/gcc"],
            (".h", ".hpp", ".hh"),
        ),
        (
            "manual",
            0.16,
            [
                "/usr/share/man/man1",
                "/usr/share/man/man3",
                "/usr/share/man/man5",
                "/usr/share/man/man7",
                "/usr/share/man/man8",
            ],
            (".gz",),
        ),
        ("documentation", 0.16, ["/usr/share/doc"], None),
        ("licences", 0.02, ["/usr/share/common-licenses"], None),
        ("perl", 0.04, ["/usr/share/perl", "/usr/share/perl5"], (".pm", ".pl", ".pod")),
    ]


def file_key(path):
    return hashlib.sha256(str(path).encode()).hexdigest()


def is_held_out(path):
    return int(file_key(Path(path).name)[:8], 16) % HELD_OUT_ONE_IN == 0


def read_text(path):
    """The text of a file, or None where it is not plain UTF-8 of a useful size."""
    try:
        with open(path, "rb") as handle:
            data = handle.read(LARGEST_FILE * 2)
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        if not SMALLEST_FILE <= len(data) or b"\0" in data:
            return None
        text = data[:LARGEST_FILE].decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, gzip.BadGzipFile):
        return None
    return text if sum(character.isspace() for character in text[:2000]) > 100 else None


def plain_manual(text):
    """A manual page without most of its markup."""
    lines = []
    for line in text.split("\n"):
        if line.startswith(('.\\"', "'\\\"")):
            continue
        if line.startswith("."):
            parts = line.split(None, 1)
            line = parts[1].strip('"') if len(parts) > 1 else ""
        for mark in ("\\fB", "\\fI", "\\fR", "\\fP", "\\&", "\\c"):
            line = line.replace(mark, "")
        lines.append(line.replace("\\-", "-"))
    return "\n".join(lines)


def list_files(folders, endings):
    found = {}
    for folder in folders:
        for base, directories, names in os.walk(folder):
            directories[:] = [
                d for d in directories if d not in ("__pycache__", "test", "tests", "idlelib")
            ]
            if "site-packages" in base and "site-packages" not in folder:
                continue
            for name in names:
                path = Path(base) / name
                if (endings is None or name.endswith(endings)) and PROJECT not in path.parents:
                    found[file_key(path)] = path
    return [found[key] for key in sorted(found)]


def gather(megabytes):
    """[(kind, path, text)] of at most that many megabytes, in a fixed order, each text once."""
    chosen, seen = [], set()
    for kind, share, folders, endings in sources():
        left = share * megabytes * 1e6
        for path in list_files(folders, endings):
            if left <= 0:
                break
            text = read_text(path)
            if text is None:
                continue
            if kind == "manual":
                text = plain_manual(text)
            digest = hashlib.sha256(text.encode()).digest()
            if digest in seen:
                continue
            seen.add(digest)
            chosen.append((kind, path, text))
            left -= len(text)
    return chosen


def pack(out=DEFAULT_PACK, tokenizer_path=None, megabytes=35, fresh_tokenizer=False):
    chosen = gather(megabytes)
    if not chosen:
        raise SystemExit("[corpus] found no text on this machine")
    if fresh_tokenizer:
        train_tokenizer((text for _, path, text in chosen if not is_held_out(path)), tokenizer_path)
    tokenizer = load_tokenizer(tokenizer_path)
    parts = {"train": [], "held_out": []}
    manifest = {"files": {"train": 0, "held_out": 0}, "characters": {}, "megabytes": megabytes}
    for start in range(0, len(chosen), 256):
        batch = chosen[start : start + 256]
        for (kind, path, text), encoding in zip(
            batch,
            tokenizer.encode_batch_fast(
                [t.rstrip("\n") + "\n" for _, _, t in batch], add_special_tokens=False
            ),
        ):
            part = "held_out" if is_held_out(path) else "train"
            parts[part].append(np.asarray(encoding.ids, np.uint16))
            manifest["files"][part] += 1
            manifest["characters"][kind] = manifest["characters"].get(kind, 0) + len(text)
    order = np.random.default_rng(0)
    arrays = {}
    for part, pieces in parts.items():
        arrays[part] = np.concatenate([pieces[i] for i in order.permutation(len(pieces))])
    manifest["tokens"] = {part: len(array) for part, array in arrays.items()}
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, manifest=json.dumps(manifest), **arrays)
    os.replace(temporary, out)
    print(json.dumps(manifest), file=sys.stderr)
    return manifest


class Corpus:
    """Token arrays of a packed corpus."""

    def __init__(self, path=DEFAULT_PACK):
        with np.load(path, allow_pickle=False) as data:
            self.train = data["train"]
            self.held_out = data["held_out"]
            self.manifest = json.loads(str(data["manifest"]))
