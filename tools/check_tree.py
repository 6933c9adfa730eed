"""Guards the habits of the tree: python3 tools/check_tree.py

Looks at the files that git knows and reports every breach as FILE:LINE: what; status 1 if any.

- code and documents have at most 500 lines; code has at most 100 columns, Python comments 120
- no tabs (but in the Makefile), no spaces at line ends, a newline at the end of a file
- links and file names in Markdown lead to files that exist
- the C++ program in README.md is examples/embed.cpp, to the letter
- every test source is listed in its CMakeLists.txt and every test program is run by ctest
- work left to do names its issue: "TO" + "DO(#12): ..."
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 500
MAX_COLUMNS = 100
MAX_PYTHON_COLUMNS = 120  # ruff keeps code to 100; comments may hold a wider formula
CODE = {".c", ".cpp", ".h", ".cu", ".cuh", ".py", ".cmake", ".sh"}
TEXT = CODE | {".md", ".txt", ".toml", ".ini"}
ROOMS = "bench|cli|cmake|docs|examples|include|models|python|runner|src|tests|tools|training"

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH_IN_CODE = re.compile(rf"`((?:{ROOMS})/[\w./+-]+\.\w+)`")
FENCE = re.compile(r"^```cpp\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LEFT_TO_DO = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b(?!\(#\d+\))")
TEST_PROGRAM = re.compile(r"add_executable\(\s*(\w+_test)\b")
REGISTERED = re.compile(r"(?:gtest_discover_tests\(\s*|add_test\([^)]*COMMAND\s+)(\w+)")


def known_files() -> list[Path]:
    """Files in the index, and new ones that are not ignored, as paths below the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = sorted(set(filter(None, listing.split("\0"))))
    return [Path(name) for name in names if (ROOT / name).is_file()]


def is_text_of_ours(path: Path) -> bool:
    return path.suffix in TEXT or path.name == "Makefile" or path.parts[0] == ".ci"


def check_lines(path: Path, text: str) -> list[tuple[int, str]]:
    breaches = []
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    else:
        breaches.append((len(lines), "no newline at the end of the file"))
    if len(lines) > MAX_LINES:
        breaches.append((len(lines), f"too long: got {len(lines)} lines, allowed {MAX_LINES}"))
    is_code = path.suffix in CODE or path.name in ("Makefile", "CMakeLists.txt")
    columns = MAX_PYTHON_COLUMNS if path.suffix == ".py" else MAX_COLUMNS
    for number, line in enumerate(lines, 1):
        if "\t" in line and path.name != "Makefile":
            breaches.append((number, "a tab"))
        if line != line.rstrip():
            breaches.append((number, "spaces at the end of the line"))
        if is_code and len(line) > columns:
            breaches.append((number, f"too wide: got {len(line)}, allowed {columns}"))
        if LEFT_TO_DO.search(line):
            breaches.append((number, "work left to do without an issue number"))
    return breaches


def is_ignored(path: Path) -> bool:
    command = ["git", "check-ignore", "-q", "--no-index", str(path)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def check_markdown(path: Path, text: str) -> list[tuple[int, str]]:
    breaches = []
    for number, line in enumerate(text.split("\n"), 1):
        for target in LINK.findall(line):
            if re.match(r"[a-z]+:", target) or target.startswith("#"):
                continue
            if not (ROOT / path.parent / target.split("#")[0]).exists():
                breaches.append((number, f"link to a file that does not exist: {target}"))
        for name in PATH_IN_CODE.findall(line):
            if not (ROOT / name).exists() and not is_ignored(ROOT / name):
                breaches.append((number, f"names a file that does not exist: {name}"))
    return breaches


def check_example(readme: str, example: str) -> list[tuple[int, str]]:
    if example in FENCE.findall(readme):
        return []
    return [(1, "no ```cpp block of README.md equals examples/embed.cpp")]


def check_test_lists(files: list[Path]) -> list[tuple[Path, int, str]]:
    breaches = []
    for path in files:
        if path.parts[0] != "tests":
            continue
        if path.name == "CMakeLists.txt":
            text = (ROOT / path).read_text()
            for program in set(TEST_PROGRAM.findall(text)) - set(REGISTERED.findall(text)):
                breaches.append((path, 1, f"test program that ctest does not run: {program}"))
        if path.name.endswith("_test.cpp"):
            listing = ROOT / path.parent / "CMakeLists.txt"
            if not listing.exists() or path.name not in listing.read_text():
                breaches.append((path, 1, "test source that no CMakeLists.txt beside it lists"))
    return breaches


def check_tree() -> list[str]:
    files = known_files()
    breaches: list[tuple[Path, int, str]] = []
    for path in filter(is_text_of_ours, files):
        text = (ROOT / path).read_text(encoding="utf-8")
        breaches += [(path, *breach) for breach in check_lines(path, text)]
        if path.suffix == ".md":
            breaches += [(path, *breach) for breach in check_markdown(path, text)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = (ROOT / "examples/embed.cpp").read_text(encoding="utf-8")
    breaches += [(Path("README.md"), *breach) for breach in check_example(readme, example)]
    breaches += check_test_lists(files)
    return [f"{path}:{line}: {what}" for path, line, what in breaches]


def main() -> int:
    breaches = check_tree()
    print("\n".join(breaches) if breaches else "check_tree: the tree keeps its habits")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
