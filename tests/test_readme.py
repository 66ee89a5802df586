"""The Python example of both READMEs prints what its comments say."""

from __future__ import annotations

import ast
import io
import os
import re
import tempfile
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@cache
def printed(code: str) -> list[str]:
    """What code without comments prints; the same code of both languages runs once."""
    out, before = io.StringIO(), os.getcwd()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(out):
        os.chdir(folder)
        try:
            exec(compile(code, "README", "exec"), {})
        finally:
            os.chdir(before)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("name", ["README.md", "README.en.md"])
def test_the_example_answers_sensibly(name: str) -> None:
    found = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S)
    assert len(found) == 1
    said = [line.rpartition("# ")[2] for line in found[0].splitlines() if line.startswith("print")]
    assert len(said) >= 4 and printed(ast.unparse(ast.parse(found[0]))) == said
