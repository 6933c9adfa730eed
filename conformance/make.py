"""Makes the conformance pack: python3 -m conformance.make [--check] [FOLDER]

Writes conformance/pack: exact results for every rule of docs/maths.md, made by brute force in
float64 (conformance/brute.py). Needs Python 3.11 and NumPy. With --check nothing is written: the
files in the folder are compared with those that would be. Inputs, ids and scores must be the same
to the bit; float64 results to 1e-12 relative, since math libraries differ in their last bits.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from conformance import rules_attention, rules_caches, rules_index, rules_training
from conformance.pack import Pack
from conformance.storage import read_safetensors

FOLDER = Path(__file__).resolve().parent / "pack"
MAX_BYTES = 20_000_000


def make_pack():
    pack = Pack()
    for room in (rules_index, rules_attention, rules_caches, rules_training):
        room.add_rules(pack)
    return pack


def differences(folder, pack):
    """Sentences on where the folder is not what the pack would be."""
    files = pack.files()
    found = {path.name for path in folder.iterdir()}
    for name in sorted(found ^ set(files)):
        yield f"{name}: {'should not be there' if name in found else 'is missing'}"
    if (folder / "index.json").read_bytes() != files["index.json"]:
        yield "index.json: differs"
    for rule, tensors in pack.tensors.items():
        path = folder / f"{rule}.safetensors"
        if not tensors or not path.exists():
            continue
        stored = read_safetensors(path)
        if set(stored) != set(tensors):
            yield f"{path.name}: has other tensors"
            continue
        for name, tensor in tensors.items():
            _, array = stored[name]
            if not same(array, tensor.bits):
                yield f"{path.name}: {name} differs"


def same(got, expected):
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    if got.dtype != np.float64:
        return got.tobytes() == expected.tobytes()
    return np.allclose(got, expected, rtol=1e-12, atol=1e-14, equal_nan=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--list", action="store_true", help="print the names of the rules")
    arguments = parser.parse_args()
    pack = make_pack()
    if arguments.list:
        print("\n".join(rule["rule"] for rule in pack.rules))
        return 0
    if arguments.check:
        problems = list(differences(arguments.folder, pack))
        print("\n".join(problems) or f"{arguments.folder}: as made, {len(pack.rules)} rules")
        return 1 if problems else 0
    files = pack.files()
    total = sum(map(len, files.values()))
    if total > MAX_BYTES:
        print(f"the pack is too large: got {total} bytes, allowed {MAX_BYTES}", file=sys.stderr)
        return 1
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (arguments.folder / name).write_bytes(content)
    for path in arguments.folder.glob("*.safetensors"):
        if path.name not in files:
            path.unlink()
    cases = sum(len(rule["cases"]) for rule in pack.rules)
    print(f"{arguments.folder}: {len(pack.rules)} rules, {cases} cases, {total / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
