"""What the parity tests need from outside: the probe and the shipped model.

MSA_PARITY_PROBE names another parity_probe than that of the default build, MSA_PARITY_MODEL another folder than
models/msa-mini. Neither is ever skipped: a test that has nothing to compare with fails.
"""

import os
from pathlib import Path

import pytest
from probe import Probe

ROOT = Path(__file__).resolve().parents[2]
PROBE_PLACES = ("build/release/bin/parity_probe", "build/bin/parity_probe")


@pytest.fixture(scope="session")
def probe(tmp_path_factory):
    given = os.environ.get("MSA_PARITY_PROBE")
    places = [Path(given)] if given else [ROOT / place for place in PROBE_PLACES]
    for place in places:
        if place.is_file():
            return Probe(place, tmp_path_factory.mktemp("probe"))
    pytest.fail(
        f"no parity_probe: looked at {[str(p) for p in places]}; build with `make test`, or "
        "name one in MSA_PARITY_PROBE"
    )


def shipped(*names):
    folder = Path(os.environ.get("MSA_PARITY_MODEL", ROOT / "models" / "msa-mini"))
    for name in names:
        assert (folder / name).is_file(), f"the shipped model lacks {folder / name}"
    return folder


@pytest.fixture(scope="session")
def shipped_folder():
    return shipped("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture(scope="session")
def tokenizer_file():
    return shipped("tokenizer.json") / "tokenizer.json"
