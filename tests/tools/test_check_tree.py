"""The tree's guard finds each kind of breach, and nothing in a clean tree."""

import subprocess

import check_tree
import pytest

EXAMPLE = "int main() {}\n"
LEFT_TO_DO = "TO" + "DO"  # in two parts: this file is guarded too
CLEAN = {
    "README.md": "# A title\n\nSee [the page](docs/page.md).\n\n```cpp\n" + EXAMPLE + "```\n",
    "docs/page.md": "`src/one.cpp` does it.\n",
    "examples/embed.cpp": EXAMPLE,
    "src/one.cpp": "// One.\n",
    "tests/CMakeLists.txt": "add_executable(one_test one_test.cpp)\n"
    "gtest_discover_tests(one_test)\n",
    "tests/one_test.cpp": "// Tests.\n",
}


def breaches(tmp_path, monkeypatch, changes=()):
    for name, text in {**CLEAN, **dict(changes)}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    monkeypatch.setattr(check_tree, "ROOT", tmp_path)
    return check_tree.check_tree()


def test_a_clean_tree_has_no_breach(tmp_path, monkeypatch):
    assert breaches(tmp_path, monkeypatch) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("src/one.cpp", "int x;\n" * 501, "src/one.cpp:501: too long: got 501 lines"),
        ("src/one.cpp", "/" * 101 + "\n", "src/one.cpp:1: too wide: got 101"),
        ("src/one.cpp", "int x;\n\tint y;\n", "src/one.cpp:2: a tab"),
        ("docs/page.md", "words \n", "docs/page.md:1: spaces at the end"),
        ("docs/page.md", "words", "docs/page.md:1: no newline"),
        ("src/one.cpp", f"// {LEFT_TO_DO}: later\n", "src/one.cpp:1: work left to do"),
        ("docs/page.md", "[x](../gone.md)\n", "docs/page.md:1: link to a file that does not exist"),
        ("docs/page.md", "`src/gone.cpp`\n", "docs/page.md:1: names a file that does not exist"),
        ("examples/embed.cpp", "int main() { }\n", "README.md:1: no ```cpp block"),
        ("tests/two_test.cpp", "// Two.\n", "tests/two_test.cpp:1: test source that no CMakeLists"),
        (
            "tests/CMakeLists.txt",
            "add_executable(one_test one_test.cpp)\n",
            "tests/CMakeLists.txt:1: test program that ctest does not run: one_test",
        ),
    ],
)
def test_each_breach_is_found(tmp_path, monkeypatch, name, text, expected):
    found = breaches(tmp_path, monkeypatch, {name: text})
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_work_left_to_do_with_an_issue_is_allowed(tmp_path, monkeypatch):
    text = f"// {LEFT_TO_DO}(#12): when the issue says so.\n"
    assert breaches(tmp_path, monkeypatch, {"src/one.cpp": text}) == []


def test_ignored_files_may_be_named(tmp_path, monkeypatch):
    changes = {".gitignore": "/training/runs/\n", "docs/page.md": "`training/runs/log.txt`\n"}
    assert breaches(tmp_path, monkeypatch, changes) == []
