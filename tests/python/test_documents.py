"""The documents' Python runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = [
    pytest.param(program, id=f"{path.name}-{n}")
    for path in (ROOT / "README.md", ROOT / "docs/python.md")
    for n, program in enumerate(BLOCK.findall(path.read_text(encoding="utf-8")))
]


def test_the_readme_has_a_program():
    assert any(program.id.startswith("README.md") for program in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_runs(program, capsys):
    exec(compile(program, "document", "exec"), {})  # noqa: S102
    printed = capsys.readouterr().out
    for expected in re.findall(r"print\(\"([^\"{]+)", program):
        assert expected in printed
