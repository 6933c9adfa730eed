"""Makes the trainer importable and its commands runnable from the repository's root."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """A corpus of half a megabyte of this machine's text, packed by the project's own code."""
    from training.corpus import pack

    path = tmp_path_factory.mktemp("corpus") / "corpus.npz"
    pack(path, megabytes=0.5)
    return path
