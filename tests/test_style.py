"""How the code reads: short functions, no path of one machine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST_FUNCTION = 66
CODE = {".py", ".pyi", ".pyx", ".pxi", ".h"}
TEXT = CODE | {".md", ".toml", ".sh", ".json", ".txt", ""}
# Homes and work folders, as they slip in from a session's screen; /home/user in a text is one too.
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|work|Users|mnt)/|[A-Z]:\\Users")


def files(suffixes: set[str]) -> list[Path]:
    """What belongs to the project, by folder: a clone without git is checked too."""
    folders = ("cgpt", "benchmarks", "examples", "tests", "docs", "data", ".ci")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    found += [
        path
        for path in ROOT.iterdir()
        if path.name in {"setup.py", "pyproject.toml", "Makefile", "README.md", "README.en.md"}
    ]
    return sorted(
        path
        for path in found
        if path.is_file()
        and path.suffix in suffixes
        and not path.name.startswith("test_style")
        and "__pycache__" not in path.parts
    )


def long_functions(source: str) -> list[str]:
    return [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]


def test_functions_are_short() -> None:
    long = {
        str(path.relative_to(ROOT)): found
        for path in files({".py"})
        if path.is_relative_to(ROOT / "cgpt")
        if (found := long_functions(path.read_text("utf-8")))
    }
    assert not long


def test_no_path_of_one_machine() -> None:
    named = [
        str(path.relative_to(ROOT))
        for path in files(TEXT)
        if MACHINE.search(path.read_text("utf-8"))
    ]
    assert not named


def test_what_is_wrong_is_noticed() -> None:
    assert len(files(CODE)) > 60
    body = "    x = 1\n" * LONGEST_FUNCTION
    assert long_functions(f"def f():\n{body}") == ["f: 67 lines"]
    assert not long_functions(f"def f():\n{body[:-10]}")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("see /home/ann/model.bin", True),
        ("'/work/main'", True),
        ("C:\\Users\\ann", True),
        ("file:/Users/ann", True),
        ("../work/it", False),
        ("homework/root/x", False),
    ],
)
def test_which_paths_are_of_a_machine(text: str, named: bool) -> None:
    assert bool(MACHINE.search(text)) == named
