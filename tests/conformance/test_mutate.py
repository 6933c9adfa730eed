"""The faults that tools/mutate.py seeds fit the code and name rules that exist.

Building them takes minutes: that is `python3 tools/mutate.py`, and not part of `make test`.
"""

import json

import pytest
from mutate import FAULTS, ROOT, seed

RULES = {
    rule["rule"] for rule in json.loads((ROOT / "conformance/pack/index.json").read_text())["rules"]
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_can_be_seeded(fault, tmp_path):
    seed(fault, tmp_path)
    assert (tmp_path / fault.file).read_text() != (ROOT / "src" / fault.file).read_text()
    assert fault.rule in RULES
    assert fault.file.endswith(".cpp") or fault.sources
    assert all((ROOT / "src" / source).exists() for source in fault.compiled())


def test_at_least_twelve_faults():
    assert len(FAULTS) >= 12
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
