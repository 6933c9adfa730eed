"""A pack in memory: rules with their cases, and the files they become.

  index.json             every rule: name, demand, op, file, cases with arguments, inputs, results
  RULE.safetensors       tensors; one that several rules need lies in the file of the first

A tensor is named FILE/NAME, without the file's ending.
"""

import json

from conformance.cases import View
from conformance.storage import NAMES, safetensors_bytes

VERSION = 1
SOURCE = "docs/maths.md"
SHARED_BYTES = 4096


class Pack:
    def __init__(self):
        self.rules = []
        self.tensors = {}  # rule -> name -> Stored
        self._names = {}  # content -> FILE/NAME

    def add(self, rule, demand, op, cases, **more):
        """One rule. `more` goes into the index as it is (bitwise: rows that agree to the bit)."""
        if rule in self.tensors:
            raise ValueError(f"rule {rule} is there twice")
        self.tensors[rule] = {}
        entries = [self._case(rule, case) for case in cases]
        if len({entry["name"] for entry in entries}) != len(entries):
            raise ValueError(f"rule {rule} has two cases of one name")
        self.rules.append({"rule": rule, "demand": " ".join(demand.split()), "op": op,
                           "files": files_of(entries), **more, "cases": entries})  # fmt: skip

    def _case(self, rule, case):
        name = case["name"]
        entry = {"name": name, "arguments": case["arguments"], "inputs": {}}
        for key, value in case["inputs"].items():
            stored = value.base if isinstance(value, View) else value
            text = self._tensor(rule, f"{name}.{key}", stored)
            if isinstance(value, View):
                entry["inputs"][key] = {"tensor": text, "shape": value.shape,
                                        "strides": value.strides, "offset": value.offset}  # fmt: skip
            else:
                entry["inputs"][key] = {"tensor": text}
        if case.get("refused"):
            entry["refused"] = True
            return entry
        entry["expect"] = {}
        for key, value in case["expect"].items():
            value = dict(value)
            value["tensor"] = self._tensor(rule, f"{name}.expected.{key}", value["tensor"])
            if "factor" in value:
                value["factor"] = self._tensor(rule, f"{name}.factor.{key}", value["factor"])
            entry["expect"][key] = value
        return entry

    def _tensor(self, rule, name, stored):
        """The name under which these very numbers lie in the pack."""
        raw = stored.bits.tobytes()
        content = (stored.dtype, stored.shape, raw)
        if len(raw) < SHARED_BYTES:  # not worth a reader's look into another rule's file
            content = (*content, rule, name)
        if content not in self._names:
            self._names[content] = f"{rule}/{name}"
            self.tensors[rule][name] = stored
        return self._names[content]

    def files(self):
        """name -> bytes."""
        index = {"format": "msa-conformance", "version": VERSION, "source": SOURCE,
                 "types": sorted(NAMES.values()), "rules": self.rules}  # fmt: skip
        files = {"index.json": index_text(index).encode()}
        for rule, tensors in self.tensors.items():
            if tensors:
                files[f"{rule}.safetensors"] = safetensors_bytes(tensors)
        return files


def files_of(cases):
    """The files that the cases of a rule need."""
    names = set()
    for case in cases:
        for entry in [*case["inputs"].values(), *case.get("expect", {}).values()]:
            names.update(entry[key].split("/")[0] for key in ("tensor", "factor") if key in entry)
    return sorted(f"{name}.safetensors" for name in names)


def index_text(index):
    """JSON with one line for each case, so that a change of a case is a change of a line."""
    rules = index["rules"]
    head = json.dumps({key: value for key, value in index.items() if key != "rules"})
    lines = [head[:-1] + ', "rules": [']
    for n, rule in enumerate(rules):
        start = json.dumps({key: value for key, value in rule.items() if key != "cases"})
        lines.append(start[:-1] + ', "cases": [')
        cases = [json.dumps(case) for case in rule["cases"]]
        lines += [f"  {text}," for text in cases[:-1]] + [f"  {cases[-1]}"]
        lines.append("]}" + ("," if n + 1 < len(rules) else ""))
    return "\n".join([*lines, "]}", ""])
